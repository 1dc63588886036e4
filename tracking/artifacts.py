"""The artifact store: files under one URL, addressed by relative paths.

A plain path or a ``file://`` URL is a local (or shared) folder; anything else is an fsspec URL
(``s3://``, ``gs://``, ``memory://`` ...), whose credentials come from the environment.
"""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import fsspec

from tracking.errors import TrackingError, redact
from tracking.private_files import make_folder, open_private

BLOCK = 1 << 20  #: Bytes read at a time.
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")  # what is being written, or a killed process left


class ArtifactError(TrackingError):
    """The artifact store cannot do what was asked of it."""


class ArtifactPathError(ArtifactError, ValueError):
    """A path does not stay inside the store."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"Artifact path {self.path!r} cannot be used; it must be relative, with forward "
            "slashes, without a drive letter and without empty, '.' or '..' parts, as in "
            "'trials/3f2a/plan.json'."
        )


class ArtifactUrlError(ArtifactError, ValueError):
    """The URL of a store cannot be opened."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return (
            f"Artifact store {self.url!r} cannot be opened: {self.problem}. Name a folder or an "
            "fsspec URL whose package is installed (s3fs for s3://, gcsfs for gs://)."
        )


class ArtifactNotFoundError(ArtifactError, LookupError):
    """The store holds no such file."""

    def __init__(self, url: str, path: str) -> None:
        super().__init__(url, path)
        self.url, self.path = url, path

    def __str__(self) -> str:
        return (
            f"Artifact {self.path!r} is not in the store {self.url!r}; check that the sweep was "
            "run with this store, and that every machine reaches it under this URL."
        )


class StoreUnreachableError(ArtifactError, ConnectionError):
    """The artifact store is away, or takes nothing."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(url, cause)
        self.url, self.cause = url, cause

    def __str__(self) -> str:
        return (
            f"The artifact store {self.url!r} cannot be reached or written: {self.cause}. See that "
            "it is mounted or answers, takes these credentials, and has space left."
        )


def check_path(path: str) -> PurePosixPath:
    """Return ``path`` once it is known to stay inside the store.

    Raises:
        ArtifactPathError: It is empty, absolute, or has a drive letter, a backslash, NUL, ``.``,
            ``..`` or an empty part.
    """
    parts = path.split("/")
    if (
        "\\" in path
        or "\0" in path
        or PureWindowsPath(path).drive
        or any(part in {"", ".", ".."} for part in parts)
    ):
        raise ArtifactPathError(path)
    return PurePosixPath(path)


class ArtifactStore:
    """Files under one URL. Writing replaces a file as a whole: readers never see half of one.

    On a local folder that is a temporary file, fsync and rename; elsewhere it is as atomic as the
    service's own put (object stores: entirely).
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        url = os.fspath(url)
        self.url = redact(url)  #: Safe to show and to store.
        self._folder: Path | None = None
        self._system: Any = None
        self._prefix = ""
        if url.startswith("file://"):
            self._folder = Path(unquote(urlsplit(url).path))
        elif "://" not in url:
            self._folder = Path(os.path.expanduser(url)).absolute()
        else:
            try:
                self._system, prefix = fsspec.core.url_to_fs(url)
            except (ImportError, ValueError) as error:
                problem = str(error).replace(url, self.url).rstrip(".")
                raise ArtifactUrlError(self.url, problem) from error
            self._prefix = prefix.rstrip("/")

    def __repr__(self) -> str:
        return f"ArtifactStore({self.url!r})"

    @property
    def folder(self) -> Path | None:
        """The folder of a local store; None for a remote one."""
        return self._folder

    @property
    def without_waiting(self) -> "ArtifactStore":
        """The same store, for what is not worth waiting for."""
        return self

    def write_bytes(self, path: str, data: bytes, *, staging: str | None = None) -> str:
        """Store ``data`` under ``path``, replacing what is there; return ``path``.

        Args:
            path: Where it is found.
            data: All of the file.
            staging: Folder in which a local store writes the file before it takes its place; beside
                it without. What a killed process leaves there goes with the folder.
        """
        relative = check_path(path)
        if self._folder is not None:
            target = self._folder / relative
            if staging is not None:
                with contextlib.suppress(OSError):  # removed meanwhile, or not to be had
                    self._replace(target, lambda file: file.write(data), staging=staging)
                    return path
            self._replace(target, lambda file: file.write(data))
        else:
            self._make_parent(relative)
            self._system.pipe_file(self._remote(relative), data)
        return path

    def write_content(self, folder: str, data: bytes, suffix: str = "") -> str:
        """Store ``data`` in ``folder`` under its own SHA-256; return the path.

        A file that is already there is left alone: its name says what it holds.
        """
        path = f"{folder}/{hashlib.sha256(data).hexdigest()}{suffix}"
        return path if self.exists(path) else self.write_bytes(path, data)

    def put_file(self, source: str | os.PathLike[str], path: str) -> str:
        """Copy the local file ``source`` to ``path``, replacing what is there; return ``path``."""
        relative = check_path(path)
        if self._folder is not None:
            with open(source, "rb") as opened:
                self._replace(
                    self._folder / relative, lambda file: shutil.copyfileobj(opened, file, BLOCK)
                )
        else:
            self._make_parent(relative)
            self._system.put_file(os.fspath(source), self._remote(relative))
        return path

    def read_bytes(self, path: str) -> bytes:
        """Return the content of ``path``.

        Raises:
            ArtifactNotFoundError: There is no such file.
        """
        with self._open(path) as file:
            return file.read()

    def exists(self, path: str) -> bool:
        """Say whether there is a file at ``path``."""
        relative = check_path(path)
        if self._folder is not None:
            return (self._folder / relative).is_file()
        self._system.invalidate_cache()  # another machine may have written it since
        return bool(self._system.isfile(self._remote(relative)))

    def size(self, path: str) -> int | None:
        """Return how many bytes the file at ``path`` has; None: there is none."""
        relative = check_path(path)
        try:
            if self._folder is not None:
                return (self._folder / relative).stat().st_size
            self._system.invalidate_cache()  # another machine may have written it since
            return int(self._system.size(self._remote(relative)) or 0)
        except FileNotFoundError:
            return None

    def remove(self, path: str) -> None:
        """Delete the file at ``path``; nothing happens when there is none."""
        relative = check_path(path)
        if self._folder is not None:
            (self._folder / relative).unlink(missing_ok=True)
        elif self.exists(path):
            self._system.rm_file(self._remote(relative))

    def files(self, folder: str) -> list[str]:
        """Return the names of the files that lie in ``folder``, sorted; none without a folder."""
        relative = check_path(folder)
        if self._folder is not None:
            try:
                with os.scandir(self._folder / relative) as found:
                    names = [entry.name for entry in found if entry.is_file()]
            except (FileNotFoundError, NotADirectoryError):
                return []
            return sorted(name for name in names if not _TEMPORARY.fullmatch(name))
        self._system.invalidate_cache()  # another machine may have written since
        try:
            rows = self._system.ls(self._remote(relative), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(row["name"].rsplit("/", 1)[-1] for row in rows if row["type"] == "file")

    def remove_folder(self, folder: str) -> None:
        """Delete ``folder`` with all that lies in it; nothing happens when there is none."""
        relative = check_path(folder)
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._folder / relative)
            return
        self._system.invalidate_cache()  # another machine may have written since
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(self._remote(relative), recursive=True)

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of the content of ``path`` as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        with self._open(path) as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def local_path(self, path: str, cache_dir: str | os.PathLike[str]) -> Path:
        """Return a local file with the content of ``path``.

        In a local store that is the file itself. A remote file is downloaded into ``cache_dir``
        once, so ask only for files that never change.

        Raises:
            ArtifactNotFoundError: There is no such file.
        """
        relative = check_path(path)
        if self._folder is not None:
            if not (self._folder / relative).is_file():
                raise ArtifactNotFoundError(self.url, path)
            return self._folder / relative
        cached = Path(cache_dir) / hashlib.sha256(self.url.encode()).hexdigest()[:16] / relative
        if not cached.is_file():
            with self._open(path) as remote:
                self._replace(cached, lambda file: shutil.copyfileobj(remote, file, BLOCK))
        return cached

    def _remote(self, relative: PurePosixPath) -> str:
        return f"{self._prefix}/{relative}"

    def _make_parent(self, relative: PurePosixPath) -> None:
        """Create the folder of a file where the service has folders; object stores have none."""
        self._system.makedirs(self._remote(relative).rsplit("/", 1)[0], exist_ok=True)

    def _open(self, path: str) -> BinaryIO:
        relative = check_path(path)
        try:
            if self._folder is not None:
                return (self._folder / relative).open("rb")
            return cast(BinaryIO, self._system.open(self._remote(relative), "rb"))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ArtifactNotFoundError(self.url, path) from error

    def _replace(
        self, target: Path, write: Callable[[BinaryIO], object], *, staging: str | None = None
    ) -> None:
        """Write ``target`` elsewhere, then rename: it is whole, or it is as it was."""
        folder = target.parent
        if staging is not None and self._folder is not None:
            folder = self._folder / check_path(staging)
            make_folder(folder)
        make_folder(target.parent)
        temporary = folder / f".{uuid.uuid4().hex}.tmp"  # short: names have a length limit
        try:
            with open(temporary, "xb", opener=open_private) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        parent = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(parent)  # the rename itself survives a power failure
        finally:
            os.close(parent)
