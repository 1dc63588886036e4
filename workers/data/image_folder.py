"""Image folders, one subfolder per class, as a folder or a zip file."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from workers.data.archive import Archive, open_archive
from workers.data.layout import find_classes
from workers.data.source import Images, Items
from workers.errors import DataError, ImageError

_PROBED = 64  #: Images whose size and colour are looked at, spread evenly.
_CHECKSUM_LIMIT = 1 << 30  #: Bytes; larger archives are named by file names and sizes.
_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"RGB", "RGBA", "P", "CMYK", "YCbCr"})
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFolder:
    """Image files with labels, decoded to one shape.

    With an ``image_size`` the shorter edge is resized to it and the middle cut out; without one
    every image must have the size of the others already.
    """

    archive: Archive
    names: tuple[str, ...]  #: File of each item.
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    labels: Items
    train_items: Items
    test_items: Items
    image_size: int | None

    def checksum(self, items: Items) -> str:
        """Name the images by class, file name, size and CRC-32; a zip and its folder agree.

        Above 1 GiB in all, the CRC is left out: reading everything would take too long.
        """
        small = sum(self.archive.sizes.values()) <= _CHECKSUM_LIMIT
        names = [self.names[item] for item in items]
        crcs = self.archive.crcs(names) if small else [0] * len(names)
        digest = hashlib.sha256()
        for label, name, crc in zip(self.labels[items], names, crcs, strict=True):
            file = f"{self.classes[label]}/{name.rpartition('/')[2]}"
            digest.update(f"{file}:{self.archive.sizes[name]}:{crc}\n".encode())
        return digest.hexdigest()

    def decode(self, items: Items) -> Images:
        """Return the images as ``[N, C, H, W]``.

        Raises:
            ImageError: A file is corrupt, or of another size than the rest.
        """
        return np.stack([self._decode(self.names[item]) for item in items])

    def _decode(self, name: str) -> Images:
        channels, height, width = self.shape
        image = _opened(self.archive, name)
        if self.image_size is None and image.size != (width, height):
            raise ImageError(
                self.archive.where(name),
                f"is {image.width}x{image.height} pixels, others are {width}x{height}; set "
                "data.image_size to resize them all.",
            )
        try:
            image = image.convert("L" if channels == 1 else "RGB")
        except _UNREADABLE as error:
            raise _corrupt(self.archive, name, error) from error
        pixels = np.asarray(_fitted(image, height) if self.image_size else image)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def open_image_folder(path: str, image_size: int | None) -> ImageFolder:
    """Find classes, images, their size and whether they are grey or in colour.

    Raises:
        DataError: The path or the classes are not as they must be, or sizes differ.
    """
    archive = open_archive(path)
    found = find_classes(archive.sizes, archive.folders, path)
    files = (*found.train, *found.test)
    names = tuple(name for name, _ in files)
    return ImageFolder(
        archive=archive,
        names=names,
        classes=found.classes,
        shape=_probed_shape(archive, names, image_size, path),
        labels=np.array([label for _, label in files], dtype=np.int64),
        train_items=np.arange(len(found.train)),
        test_items=np.arange(len(found.train), len(files)),
        image_size=image_size,
    )


def _probed_shape(
    archive: Archive, names: Sequence[str], image_size: int | None, path: str
) -> tuple[int, int, int]:
    step = max(1, len(names) // _PROBED)
    images = [_opened(archive, name) for name in names[::step]]
    channels = 1 if all(image.mode in _GREY for image in images) else 3
    if image_size is not None:
        return channels, image_size, image_size
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise DataError(
            f"The images of {path!r} differ in size ({_listed(sizes)}); set data.image_size, to "
            "which the shorter edge is resized before the middle is cut out."
        )
    width, height = sizes.pop()
    return channels, height, width


def _opened(archive: Archive, name: str) -> Image.Image:
    """Read a file and its header; pixels are decoded later."""
    try:
        image = Image.open(io.BytesIO(archive.read(name)))
    except _UNREADABLE as error:
        raise _corrupt(archive, name, error) from error
    if image.mode not in _GREY | _COLOUR:
        raise ImageError(
            archive.where(name), f"has pixels of mode {image.mode!r}; convert it to 8 bits."
        )
    return image


def _corrupt(archive: Archive, name: str, error: Exception) -> ImageError:
    reason = str(error) or type(error).__name__
    return ImageError(
        archive.where(name), f"cannot be decoded ({reason}); replace or remove the file."
    )


def _fitted(image: Image.Image, edge: int) -> Image.Image:
    """Resize the shorter edge to ``edge`` pixels, and cut out the middle square."""
    scale = edge / min(image.size)
    width, height = (max(edge, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - edge) // 2, (height - edge) // 2
    return image.crop((left, top, left + edge, top + edge))


def _listed(sizes: Iterable[tuple[int, int]]) -> str:
    shown = [f"{width}x{height}" for width, height in sorted(sizes)[:3]]
    return ", ".join(shown)
