"""The files of an image folder, whether it is a folder or a zip file.

Regular files only, each real folder once, and no file larger than an image is: what a path leads
to is looked at before it is opened.
"""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

import fsspec

from workers.data.cache import decoder_threads
from workers.errors import DataError, ImageError

MOST_BYTES = 1 << 28  #: Of one image file, 256 MiB.
_MOST_OTHERS = 100_000  #: Files that are no images, ten to each image: a place of another kind.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX)")  #: What file managers leave behind.
_SYSTEM = ("/proc", "/sys", "/dev")  #: Mounts without files; their devices are not entered.
_COMPRESSIONS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 96: "JPEG", 98: "PPMd"}
_WINDOWS = 0  #: What wrote an entry; elsewhere a backslash is part of a name.
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Archive(Protocol):
    """Image files by name, relative to the root, parts separated by ``/``."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of each image file, in bytes."""

    @property
    def folders(self) -> frozenset[str]:
        """Every folder, empty ones too."""

    @property
    def others(self) -> Sequence[str]:
        """Names of the files that are left out, as no images of a kind that is read."""

    def where(self, name: str) -> str:
        """Say where a file lies, for a message."""

    def read(self, name: str) -> bytes:
        """Content of a file; safe to call from several threads."""

    def crcs(self, names: Sequence[str]) -> list[int]:
        """CRC-32 of the content of each file."""


def open_archive(path: str) -> Archive:
    """Open a folder, a zip file, or a zip file at an fsspec URL, which is read where it is.

    Raises:
        DataError: It does not exist, or is none of them, or something in it is not as it must be.
    """
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    if "://" in path:
        return _at_url(path)
    root = Path(path)
    try:
        mode = root.stat().st_mode
    except FileNotFoundError:
        raise DataError(
            f"data.path {path!r} does not exist; it must be a folder or zip file that every node "
            "can read. Give an absolute path."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.path {path!r} cannot be read: {reason}.") from error
    if stat.S_ISDIR(mode):
        return FolderArchive(root)
    if not stat.S_ISREG(mode) or not zipfile.is_zipfile(root):
        raise DataError(
            f"data.path {path!r} is a {_kind(mode)}, but no zip file; give a folder or a zip."
        )
    try:
        return ZipArchive(root, path)
    except DataError:
        raise
    except Exception as error:  # a damaged table of contents raises anything
        raise DataError(
            f"data.path {path!r} is a zip file that cannot be read ({_reason(error)}); it is "
            "damaged, or one of several parts. Zip the folder anew."
        ) from error


def _at_url(url: str) -> "ZipArchive":
    try:
        return ZipArchive(fsspec.open(url, "rb").open(), url)
    except DataError:
        raise
    except zipfile.BadZipFile:
        raise DataError(f"data.path {url!r} is there, but is no zip file.") from None
    except Exception as error:  # each kind of store has its own
        raise unreadable(url, error) from error


def unreadable(url: str, error: Exception) -> DataError:
    """Return the error that says why an address cannot be read."""
    return DataError(
        f"data.path {url!r} cannot be read ({_reason(error)}); every node must "
        "reach this address, with credentials from its environment, in parts as well as whole."
    )


class FolderArchive:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._crcs: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.others: list[str] = []
        found: set[str] = set()
        for below, names in _walk(root):
            found.add(below)
            for name in names:
                self._take(f"{below}/{name}" if below else name)
        self.folders = frozenset(name for name in found if name and not _HIDDEN.search(name))

    def _take(self, name: str) -> None:
        if _HIDDEN.search(name):
            return
        if _is_image(name):
            self.sizes[name] = self._size(name)
            return
        self.others.append(name)
        if len(self.others) > max(_MOST_OTHERS, 10 * len(self.sizes)):
            raise DataError(
                f"{str(self._root)!r} holds {len(self.others):,} files that are no images and "
                f"{len(self.sizes):,} that are; name the folder of the data set itself."
            )

    def _size(self, name: str) -> int:
        path = self._root / name
        try:
            found = path.stat()
        except OSError as error:
            if path.is_symlink():
                raise ImageError(
                    str(path),
                    f"is a link to {os.readlink(path)!r}, where there is nothing; bring the file "
                    "here, or remove the link.",
                ) from None
            raise ImageError(str(path), f"cannot be read: {error.strerror}.") from error
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(str(path), f"is a {_kind(found.st_mode)}, no file; remove it.")
        return _checked_size(str(path), found.st_size)

    def where(self, name: str) -> str:
        """Say where a file lies, for a message."""
        return str(self._root / name)

    def read(self, name: str) -> bytes:
        """Content of a file."""
        with (self._root / name).open("rb") as file:
            return file.read(MOST_BYTES + 1)

    def crcs(self, names: Sequence[str]) -> list[int]:
        """CRC-32 of the content of each file, which is read for it once.

        Raises:
            ImageError: A file cannot be read.
        """
        unread = [name for name in names if name not in self._crcs]
        with ThreadPoolExecutor(decoder_threads()) as pool:
            self._crcs |= zip(unread, pool.map(self._crc, unread), strict=True)
        return [self._crcs[name] for name in names]

    def _crc(self, name: str) -> int:
        try:
            return zlib.crc32(self.read(name))
        except OSError as error:
            raise ImageError(self.where(name), f"cannot be read: {error.strerror}.") from error


class ZipArchive:
    """A zip file, read in place; its table of contents gives sizes and checksums.

    Args:
        file: It.
        name: What it is called in messages.

    Raises:
        ImageError: An image in it is encrypted, a link, too large, or compressed in a way that
            cannot be read.
    """

    def __init__(self, file: Path | IO[bytes], name: str) -> None:
        self._name = name
        self._zip = zipfile.ZipFile(file)  # reads from several threads take turns at its lock
        names = _entry_names(self._zip)
        self._entries = {name: entry for name, entry in names if _is_image(name)}
        for name_, entry in self._entries.items():
            self._check(name_, entry)
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}
        self.others = [name for name, _ in names if not name.endswith("/") and not _is_image(name)]
        self.folders = frozenset(
            "/".join(parts[:depth])
            for parts in {tuple(name.split("/")[:-1]) for name, _ in names}
            for depth in range(1, len(parts) + 1)
        )

    def _check(self, name: str, entry: zipfile.ZipInfo) -> None:
        where = self.where(name)
        if entry.flag_bits & 0x1:
            raise ImageError(where, "is encrypted; zip the folder anew, without a password.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ImageError(where, "is a link; zip the folder anew, with the files themselves.")
        if entry.compress_type not in _READABLE:
            kind = _COMPRESSIONS.get(entry.compress_type, f"method {entry.compress_type}")
            raise ImageError(
                where, f"is compressed by {kind}, which is not read; zip the folder with deflate."
            )
        _checked_size(where, entry.file_size)

    def where(self, name: str) -> str:
        """Say where a file lies, for a message."""
        return f"{name} in {self._name}"

    def read(self, name: str) -> bytes:
        """Content of a file, checked against its checksum."""
        return self._zip.read(self._entries[name])

    def crcs(self, names: Sequence[str]) -> list[int]:
        """CRC-32 of the content of each file, from the table of contents."""
        return [self._entries[name].CRC for name in names]


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each real folder below ``root`` once, by its path from there, and its files.

    Folders come before links to folders, so that of a folder and a link to it the link is left out.
    """
    seen: set[tuple[int, int]] = set()
    system = _system_devices()
    waiting, links = [""], list[str]()
    if root.stat().st_dev in system:
        raise DataError(f"data.path {str(root)!r} belongs to the system and holds no data set.")
    while waiting or links:
        below = waiting.pop() if waiting else links.pop()
        try:
            found = os.stat(root / below)
            with os.scandir(root / below) as entries:
                inside = sorted(
                    (entry.name, entry.is_dir(), entry.is_symlink())
                    for entry in entries
                    if not _HIDDEN.search(entry.name)
                )
        except OSError as error:
            raise DataError(
                f"The folder {str(root / below)!r} cannot be read: {error.strerror}."
            ) from error
        identity = found.st_dev, found.st_ino
        if identity in seen or found.st_dev in system:
            continue
        seen.add(identity)
        files = []
        for name, is_folder, is_link in reversed(inside):
            if not is_folder:
                files.append(name)
            else:
                (links if is_link else waiting).append(f"{below}/{name}" if below else name)
        yield below, files


def _system_devices() -> set[int]:
    own = os.stat("/").st_dev
    found = {os.stat(mount).st_dev for mount in _SYSTEM if os.path.isdir(mount)}
    return found - {own}


def _entry_names(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """Return every entry with its name: parts separated by ``/``, as on Windows too, no ``./``."""
    entries = archive.infolist()
    has_slashes = any("/" in entry.filename for entry in entries)
    found = []
    for entry in entries:
        is_windows = entry.create_system == _WINDOWS or not has_slashes
        name = entry.filename.replace("\\", "/") if is_windows else entry.filename
        name = re.sub(r"^(\./+)+", "", name)
        if name and not _HIDDEN.search(name):
            found.append((name, entry))
    return found


def _checked_size(where: str, size: int) -> int:
    if size > MOST_BYTES:
        raise ImageError(
            where,
            f"has {size / 2**20:,.0f} MiB, and an image may have {MOST_BYTES >> 20}; remove it, or "
            "save it smaller.",
        )
    return size


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISREG, "file"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISDIR, "folder"),
        (stat.S_ISSOCK, "socket"),
    )
    return next((word for is_kind, word in kinds if is_kind(mode)), "device")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not _HIDDEN.search(name)
