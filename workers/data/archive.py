"""The files of an image folder, whether it is a folder or a zip file."""

import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol

import fsspec

from workers.data.cache import decoder_threads
from workers.errors import DataError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX)")  #: What file managers leave behind.


class Archive(Protocol):
    """Image files by name, relative to the root, parts separated by ``/``."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of each image file, in bytes."""

    @property
    def folders(self) -> frozenset[str]:
        """Every folder, empty ones too."""

    def where(self, name: str) -> str:
        """Say where a file lies, for a message."""

    def read(self, name: str) -> bytes:
        """Content of a file; safe to call from several threads."""

    def crcs(self, names: Sequence[str]) -> list[int]:
        """CRC-32 of the content of each file."""


def open_archive(path: str) -> Archive:
    """Open a folder, a zip file, or a zip file at an fsspec URL, which is read where it is.

    Raises:
        DataError: It does not exist, or is none of them.
    """
    if "://" in path:
        return _at_url(path)
    root = Path(path)
    if root.is_dir():
        return FolderArchive(root)
    if not root.exists():
        raise DataError(
            f"data.path {path!r} does not exist; it must be a folder or zip file that every node "
            "can read. Give an absolute path."
        )
    if not zipfile.is_zipfile(root):
        raise DataError(f"data.path {path!r} is a file, but no zip file; give a folder or a zip.")
    return ZipArchive(root, path)


def _at_url(url: str) -> "ZipArchive":
    try:
        return ZipArchive(fsspec.open(url, "rb").open(), url)
    except zipfile.BadZipFile:
        raise DataError(f"data.path {url!r} is there, but is no zip file.") from None
    except Exception as error:  # each kind of store has its own
        raise unreadable(url, error) from error


def unreadable(url: str, error: Exception) -> DataError:
    """Return the error that says why an address cannot be read."""
    return DataError(
        f"data.path {url!r} cannot be read ({type(error).__name__}: {error}); every node must "
        "reach this address, with credentials from its environment, in parts as well as whole."
    )


class FolderArchive:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.sizes: dict[str, int] = {}
        found: set[str] = set()
        for at, folders, files in os.walk(root, followlinks=True):
            folders.sort()
            below = Path(at).relative_to(root)
            found.update((below / folder).as_posix() for folder in folders)
            for file in files:
                name = (below / file).as_posix()
                if _is_image(name):
                    self.sizes[name] = os.stat(os.path.join(at, file)).st_size
        self.folders = frozenset(name for name in found if not _HIDDEN.search(name))

    def where(self, name: str) -> str:
        """Say where a file lies, for a message."""
        return str(self._root / name)

    def read(self, name: str) -> bytes:
        """Content of a file."""
        return (self._root / name).read_bytes()

    def crcs(self, names: Sequence[str]) -> list[int]:
        """CRC-32 of the content of each file, which is read for it."""
        with ThreadPoolExecutor(decoder_threads()) as pool:
            return list(pool.map(lambda name: zlib.crc32(self.read(name)), names))


class ZipArchive:
    """A zip file, read in place; its table of contents gives sizes and checksums.

    Args:
        file: It.
        name: What it is called in messages.
    """

    def __init__(self, file: Path | IO[bytes], name: str) -> None:
        self._name = name
        self._zip = zipfile.ZipFile(file)  # reads from several threads take turns at its lock
        entries = [e for e in self._zip.infolist() if not _HIDDEN.search(e.filename)]
        images = [e for e in entries if _is_image(e.filename)]
        self._crcs = {e.filename: e.CRC for e in images}
        self.sizes = {e.filename: e.file_size for e in images}
        self.folders = frozenset(
            "/".join(parts[:depth])
            for parts in {tuple(e.filename.split("/")[:-1]) for e in entries}
            for depth in range(1, len(parts) + 1)
        )

    def where(self, name: str) -> str:
        """Say where a file lies, for a message."""
        return f"{name} in {self._name}"

    def read(self, name: str) -> bytes:
        """Content of a file, checked against its checksum."""
        return self._zip.read(name)

    def crcs(self, names: Sequence[str]) -> list[int]:
        """CRC-32 of the content of each file, from the table of contents."""
        return [self._crcs[name] for name in names]


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not _HIDDEN.search(name)
