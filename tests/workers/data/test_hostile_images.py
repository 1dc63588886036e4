"""Whatever lies in an image folder or a zip of one: a data set, or a message; never a traceback.

Small on every run, a thousand cases under ``slow``; the seed stands above every run's results.
"""

import io
import os
import socket
import stat
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.hostile import CHECKS, Content, damaged, empty, held_to_limits
from workers.data import describe, load
from workers.settings import DataSettings

MODES = ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA", "I;16", "I", "F", "YCbCr", "LAB", "HSV"]
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "EPS", "PDF", "MPO"]
SIZES = [(8, 8), (9, 8), (1, 1), (1, 4000), (4000, 1), (64, 64), (2500, 2500)]
SUFFIXES = [".png", ".jpg", ".JPEG", ".bmp", ".tif", ".ppm", ".webp", ".gif", ".txt", ""]
NO_IMAGES = [
    *(b"", b"\0", b"hello", b"\0" * 2_000_000, b"<!DOCTYPE html><html></html>"),
    b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
    *(b"P6\n99999999 99999999\n255\n", b"P5 8 8 255\n", b"P6 8 8 -1 ", b"P1 4 4 0101"),
    *(b"GIF89a\xff\xff\xff\xff\0\0\0,", b"BM" + b"\xff" * 60, b"II*\0\xff\xff\xff\x7f"),
    *(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\x7f\xff\xff\xff" * 2, b"PK\x05\x06" + bytes(18)),
    *(b"\xff\xd8\xff\xe0", b"\xff\xd8" + b"\xff" * 500, b"RIFF\xff\xff\xff\xffWEBPVP8 "),
]
NAMES = [
    *("a", "train", "test", "val", ".hidden", "__MACOSX", "-rf", " ", "a b ", "a\nb", "\x1b[2J"),
    *("\u202eabc", "x" * 200, "caf\udce9", "ümlaut", "%41", "a\\b", "C:x", "~", "$HOME", "*", "'"),
    *("Thumbs.db", "con", "...", "..."),
]
LINKS = [".", "..", "../..", "/", "/dev/zero", "/dev/tty", "/proc", "/proc/self/mem", "/sys"]
LINKS += ["gone", "loop", "/etc/passwd", "../cat", "../dog/0.png", "/dev/stdin"]
ENTRIES = [
    *("../../escaped.png", "/escaped.png", "C:\\escaped.png", "cat\\..\\..\\escaped.png"),
    *("cat/0.png", "CAT/0.png", "cat//x.png", "./cat/x.png", "cat/./x.png", "cat/", "cat", "/"),
    *("cat/0.png/", "", ".", "..", "cat/\0.png", "cat/" + "x" * 60_000 + ".png", "~/x.png"),
    *("cat/\n.png", "train/cat/0.png", "nested.zip", "cat/x.png/y.png", "\\\\host\\x.png"),
]


@dataclass(frozen=True, kw_only=True)
class Put:
    """One thing that is put among the images."""

    kind: str
    place: str  #: Folder, from the root.
    name: str
    content: bytes
    number: int  #: Whatever the kind makes of it: a size, a mode, a link.


@cache
def image(mode: str, kind: str, size: tuple[int, int]) -> Content:
    """Return an image of Pillow's, as PNG where the kind cannot hold the mode."""
    picture = Image.new("RGB", size, (9, 8, 7)) if size[0] * size[1] < 10**6 else None
    picture = Image.new(mode, size) if picture is None else _converted(picture, mode)
    for name in (kind, "PNG", "TIFF"):
        out = io.BytesIO()
        with suppress(Exception):
            picture.save(out, format=name)
            return Content(out.getvalue())
    return Content()


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    try:
        return picture.convert(mode)
    except ValueError:
        return Image.new(mode, picture.size)


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4)
KINDS_OF_IMAGE = [
    *(("RGB", kind, size) for kind in ("PNG", "JPEG") for size in SIZES),
    *(("RGB", kind, (8, 8)) for kind in FORMATS),
    *((mode, kind, (8, 8)) for kind in ("PNG", "TIFF") for mode in MODES),
]
IMAGES = st.sampled_from(KINDS_OF_IMAGE).map(lambda kind: image(*kind))
CONTENTS = (
    IMAGES
    | st.builds(damaged, IMAGES, st.sampled_from([1.0, 1.0, 0.99, 0.5, 0.1]), CHANGES)
    | st.sampled_from(list(map(Content, NO_IMAGES)))
    | st.binary(max_size=200)
)
PLACES = ["cat", "dog", "", "new", "train/cat", "train/dog", "test/cat", "test/dog", "a/b/c/d"]
FILE_NAMES = st.builds(
    lambda stem, suffix: stem + suffix,
    st.sampled_from([*NAMES, "0", "99"]) | st.text(min_size=1, max_size=8),
    st.sampled_from(SUFFIXES),
)


def puts(kinds: Sequence[str]) -> st.SearchStrategy[list[Put]]:
    return st.lists(
        st.builds(
            Put,
            kind=st.sampled_from(kinds),
            place=st.sampled_from(PLACES),
            name=FILE_NAMES,
            content=CONTENTS,
            number=st.integers(0, 1000),
        ),
        min_size=1,
        max_size=5,
    )


def put_file(path: Path, put: Put) -> None:
    path.write_bytes(put.content)


def put_twenty(path: Path, put: Put) -> None:
    """Write a class of its own, whole."""
    path.mkdir()
    for number in range(20):
        (path / f"{number}.png").write_bytes(put.content)


def put_huge(path: Path, put: Put) -> None:
    path.write_bytes(put.content)
    os.truncate(path, put.number << 30)


def put_large(path: Path, put: Put) -> None:
    """Write an image with much behind it, many times."""
    for number in range(put.number % 15):
        copy = path.with_name(f"{path.name}-{number}.png")
        copy.write_bytes(put.content)
        os.truncate(copy, 60 << 20)


def put_link(path: Path, put: Put) -> None:
    path.symlink_to(LINKS[put.number % len(LINKS)])


def put_loop(path: Path, put: Put) -> None:
    path.symlink_to(path.name)


def put_pipe(path: Path, put: Put) -> None:
    os.mkfifo(path)


def put_socket(path: Path, put: Put) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(path))


def put_device(path: Path, put: Put) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def put_folder(path: Path, put: Put) -> None:
    path.mkdir()


def put_deep(path: Path, put: Put) -> None:
    for _ in range(put.number % 120):
        path = path / "d"
        path.mkdir(parents=True)
    (path / "deep.png").write_bytes(put.content)


def put_closed(path: Path, put: Put) -> None:
    path.write_bytes(put.content)
    path.chmod(0)


PUT: dict[str, Callable[[Path, Put], None]] = {
    "file": put_file,
    "more files": put_file,
    "class": put_twenty,
    "huge": put_huge,
    "large": put_large,
    "link": put_link,
    "loop": put_loop,
    "pipe": put_pipe,
    "socket": put_socket,
    "device": put_device,
    "folder": put_folder,
    "deep": put_deep,
    "closed": put_closed,
}


def fill(root: Path, content: bytes) -> None:
    for place in ("cat", "dog"):
        (root / place).mkdir(parents=True)
        for number in range(6):
            (root / place / f"{number}.png").write_bytes(content)


def try_data(path: Path, size: int | None, cache: Path) -> None:
    """Describe and load, as before a sweep and in a worker, and read an image of each split."""
    with held_to_limits():
        chosen = DataSettings(name="image_folder", path=str(path), image_size=size)
        info = describe(chosen)
        info.told().encode(errors="backslashreplace")
        data = load(chosen, "cpu", cache)
        assert data.info == info
        for split in (data.train, data.val, data.take_test()):
            images, labels = next(iter(data.eval_batches(split, 1)))
            assert images.shape[1:] == info.input_shape
            assert 0 <= int(labels.min()) <= int(labels.max()) < info.num_classes


IMAGE_SIZES = st.sampled_from([None, 8, 32])


class Folders:
    """The check of a folder, whose number of cases each of its tests decides."""

    def check(self, folder: Path, content: bytes, these: list[Put], size: int | None) -> None:
        with empty(folder) as own:
            root = own / "set"
            fill(root, content)
            for put in these:
                place = root / put.place
                with suppress(OSError, ValueError):  # names no file can have, and what is there
                    place.mkdir(parents=True, exist_ok=True)
                    PUT[put.kind](place / put.name.replace("/", "_"), put)
            try_data(root, size, own / "cache")
            assert {"set"} <= {entry.name for entry in own.iterdir()} <= {"set", "cache"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that is put into a zip, and what its table of contents says of it."""

    name: str
    content: bytes
    compression: int
    declared: dict[str, int]


def zipped(content: bytes, entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for place in ("cat", "dog"):
            for number in range(6):
                archive.writestr(f"{place}/{number}.png", content)
        for entry in entries:
            with warnings.catch_warnings(), suppress(ValueError, IndexError):  # of an empty name
                warnings.simplefilter("ignore")  # of a name that is there already
                archive.writestr(entry.name, entry.content, entry.compression)
                for field, value in entry.declared.items():
                    setattr(archive.filelist[-1], field, value)
    return out.getvalue()


#: What a table of contents may say of an entry, by the bits that a field has.
VALUES = {
    8: [0, 3, 20, 99, 255],
    16: [0, 1, 8, 9, 14, 99, 0x800, 0xFFFF],
    32: [0, 1, 10**6, 2**31, (stat.S_IFLNK | 0o777) << 16],
}
BITS = {
    **dict.fromkeys(["create_system", "extract_version"], 8),
    **dict.fromkeys(["flag_bits", "compress_type"], 16),
    **dict.fromkeys(["file_size", "compress_size", "CRC", "header_offset", "external_attr"], 32),
}
SAID = [(field, value) for field, bits in BITS.items() for value in VALUES[bits]]
DECLARED = st.lists(st.sampled_from(SAID), max_size=2).map(dict)
ENTRY = st.builds(
    Entry,
    name=st.sampled_from(ENTRIES) | FILE_NAMES.map(lambda name: f"cat/{name}"),
    content=CONTENTS | st.just(Content(image("RGB", "PNG", (8, 8)) + bytes(24 << 20))),
    compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]),
    declared=st.just({}) | DECLARED,
)


class Zips:
    """The check of a zip, whose number of cases each of its tests decides."""

    def check(
        self,
        folder: Path,
        content: bytes,
        entries: list[Entry],
        damage: tuple[float, list[tuple[int, int]]],
        size: int | None,
    ) -> None:
        with empty(folder) as own:
            (own / "set.zip").write_bytes(damaged(zipped(content, entries), *damage))
            try_data(own / "set.zip", size, own / "cache")
            assert {entry.name for entry in own.iterdir()} <= {"set.zip", "cache"}


ENTRY_LISTS = st.lists(ENTRY, max_size=6)
DAMAGE: st.SearchStrategy[tuple[float, list[tuple[int, int]]]] = st.just((1.0, [])) | st.tuples(
    st.sampled_from([1.0, 0.999, 0.9, 0.3]), CHANGES
)


class TestZips(Zips):
    @pytest.mark.timeout(300)
    @settings(CHECKS, max_examples=12)
    @given(content=IMAGES, entries=ENTRY_LISTS, damage=DAMAGE, size=IMAGE_SIZES)
    def test_some(
        self, tmp_path: Path, content: bytes, entries: list[Entry], damage: Any, size: int | None
    ) -> None:
        self.check(tmp_path, content, entries, damage, size)

    @pytest.mark.slow
    @settings(CHECKS, max_examples=1000)
    @given(content=IMAGES, entries=ENTRY_LISTS, damage=DAMAGE, size=IMAGE_SIZES)
    def test_a_thousand(
        self, tmp_path: Path, content: bytes, entries: list[Entry], damage: Any, size: int | None
    ) -> None:
        self.check(tmp_path, content, entries, damage, size)


class TestFolders(Folders):
    @pytest.mark.timeout(300)
    @settings(CHECKS, max_examples=12)
    @given(content=IMAGES, these=puts(list(PUT)), size=IMAGE_SIZES)
    def test_some(self, tmp_path: Path, content: bytes, these: list[Put], size: int | None) -> None:
        self.check(tmp_path, content, these, size)

    @pytest.mark.slow
    @settings(CHECKS, max_examples=1000)
    @given(content=IMAGES, these=puts(list(PUT)), size=IMAGE_SIZES)
    def test_a_thousand(
        self, tmp_path: Path, content: bytes, these: list[Put], size: int | None
    ) -> None:
        self.check(tmp_path, content, these, size)
