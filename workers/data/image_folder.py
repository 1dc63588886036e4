"""Image folders, one subfolder per class, as a folder or a zip file."""

import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps

from workers.data.archive import Archive, open_archive
from workers.data.layout import find_classes
from workers.data.source import Images, Items
from workers.errors import DataError, ImageError
from workers.pointers import in_place_of_a_file

_PROBED = 64  #: Images whose size and colour are looked at, spread evenly.
_CHECKSUM_LIMIT = 1 << 30  #: Bytes; larger archives are named by file names and sizes.
_QUARTER = 5  #: EXIF orientation from which on an image is turned by a quarter.
_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"RGB", "RGBA", "P", "CMYK", "YCbCr"})
#: What may be behind the suffixes; others, as PostScript, would run a program to be read.
_FORMATS = (*("JPEG", "PNG", "BMP", "DIB", "WEBP", "PPM", "TIFF", "GIF", "JPEG2000", "ICO", "TGA"),)
_MOST_NATIVE_PIXELS = 1 << 24  #: Of images that are not resized.
_MOST_PIXELS = 1 << 27  #: Of an image after resizing, before the middle is cut out.
_TOO_MANY_PIXELS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Pillow warns of half of what it refuses, and cannot say which file it means
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
    is_turned: bool = False  #: Whether images are turned as their EXIF orientation says.
    left_out: tuple[tuple[str, int], ...] = ()  #: Suffix and number of files that are no images.

    def checksum(self, items: Items) -> str:
        """Name the images by class, file name, size and CRC-32; a zip and its folder agree.

        Above 1 GiB in all, the CRC is left out: reading everything would take too long.
        """
        names = [self.names[item] for item in items]
        crcs = self.archive.crcs(names) if self._is_small else [0] * len(names)
        digest = hashlib.sha256(b"turned" if self.is_turned else b"")
        for label, name, crc in zip(self.labels[items], names, crcs, strict=True):
            file = f"{self.classes[label]}/{name.rpartition('/')[2]}"
            line = f"{file}:{self.archive.sizes[name]}:{crc}\n"
            digest.update(line.encode(errors="surrogateescape"))  # names may be any bytes
        return digest.hexdigest()

    @property
    def _is_small(self) -> bool:
        return sum(self.archive.sizes.values()) <= _CHECKSUM_LIMIT

    def repeated(self, items: Items, among: Items) -> int:
        """Count those of ``items`` that are, by size and CRC-32, among others too.

        Above 1 GiB in all they are not looked for.
        """
        if not self._is_small:
            return 0
        known = {*self._contents(among)}
        return sum(content in known for content in self._contents(items))

    def _contents(self, items: Items) -> list[tuple[int, int]]:
        names = [self.names[item] for item in items]
        sizes = [self.archive.sizes[name] for name in names]
        return list(zip(sizes, self.archive.crcs(names), strict=True))

    def decode(self, items: Items) -> Images:
        """Return the images as ``[N, C, H, W]``.

        Raises:
            ImageError: A file is corrupt, or of another size than the rest.
        """
        return np.stack([self._decode(self.names[item]) for item in items])

    def _decode(self, name: str) -> Images:
        channels = self.shape[0]
        image = _opened(self.archive, name)
        try:
            pixels = self._pixels(image, name)
        except ImageError:
            raise
        except Exception as error:  # a decoder fed with damaged data may raise anything
            raise _corrupt(self.archive, name, error) from error
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)

    def _pixels(self, image: Image.Image, name: str) -> Images:
        channels, height, width = self.shape
        if self.is_turned:
            image = ImageOps.exif_transpose(image)
        if self.image_size is None and image.size != (width, height):
            raise ImageError(
                self.archive.where(name),
                f"is {image.width}x{image.height} pixels, others are {width}x{height}; set "
                "data.image_size to resize them all.",
            )
        if self.image_size is not None and _resized_pixels(image, height) > _MOST_PIXELS:
            raise ImageError(
                self.archive.where(name),
                f"has {image.width}x{image.height} pixels, too long and narrow to be resized to "
                f"{height}; cut or remove it.",
            )
        image = image.convert("L" if channels == 1 else "RGB")
        return np.asarray(_fitted(image, height) if self.image_size else image)


def open_image_folder(path: str, image_size: int | None) -> ImageFolder:
    """Find classes, images, their size and whether they are grey or in colour.

    Raises:
        DataError: The path or the classes are not as they must be, or sizes differ.
    """
    archive = open_archive(path)
    found = find_classes(archive.sizes, archive.folders, path)
    files = (*found.train, *found.test)
    names = tuple(name for name, _ in files)
    shape, is_turned = _probed(archive, names, image_size, path)
    return ImageFolder(
        archive=archive,
        names=names,
        classes=found.classes,
        shape=shape,
        is_turned=is_turned,
        left_out=_left_out(archive.others, found.places),
        labels=np.array([label for _, label in files], dtype=np.int64),
        train_items=np.arange(len(found.train)),
        test_items=np.arange(len(found.train), len(files)),
        image_size=image_size,
    )


def _left_out(others: Iterable[str], places: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Count the files below class folders that are not read, by suffix, the most first."""
    inside = (name.removeprefix(at) for name in others for at in places if name.startswith(at))
    files = (name.rpartition("/")[2].lower() for name in inside if "/" in name)
    counts = Counter("." + name.rpartition(".")[2] if "." in name else "" for name in files)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _probed(
    archive: Archive, names: Sequence[str], image_size: int | None, path: str
) -> tuple[tuple[int, int, int], bool]:
    """Return the shape of all images, and whether some are to be turned."""
    step = max(1, len(names) // _PROBED)
    headers = [_header(archive, name) for name in names[::step]]
    channels = 1 if all(header.is_grey for header in headers) else 3
    is_turned = any(header.orientation > 1 for header in headers)
    if image_size is not None:
        return (channels, image_size, image_size), is_turned
    sizes = {header.upright_size for header in headers}
    if len(sizes) > 1:
        raise DataError(
            f"The images of {path!r} differ in size ({_listed(sizes)}); set data.image_size, to "
            "which the shorter edge is resized before the middle is cut out."
        )
    width, height = sizes.pop()
    if width * height > _MOST_NATIVE_PIXELS:
        raise DataError(
            f"The images of {path!r} have {width}x{height} pixels, more than the "
            f"{_MOST_NATIVE_PIXELS:,} that a network can be given; set data.image_size."
        )
    return (channels, height, width), is_turned


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    """What the first bytes of an image say; the file itself is let go."""

    is_grey: bool
    size: tuple[int, int]  #: Width and height as stored, in pixels.
    orientation: int  #: Of EXIF.

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the image is turned."""
        width, height = self.size
        return (height, width) if self.orientation >= _QUARTER else (width, height)


def _header(archive: Archive, name: str) -> _Header:
    image = _opened(archive, name)
    return _Header(is_grey=image.mode in _GREY, size=image.size, orientation=_orientation(image))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 is upright, from 5 on width and height change."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data, without which the image can be read
        return 1
    return found if found in range(1, 9) else 1


def _opened(archive: Archive, name: str) -> Image.Image:
    """Read a file and its header; pixels are decoded later."""
    content = b""
    try:
        content = archive.read(name)
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except _TOO_MANY_PIXELS as error:
        raise ImageError(
            archive.where(name), f"is too large: {error} Save it smaller, or remove it."
        ) from error
    except Exception as error:  # as above
        if what := in_place_of_a_file(content):
            raise ImageError(
                archive.where(name), f"is {what}; bring the file itself here."
            ) from error
        raise _corrupt(archive, name, error) from error
    if image.mode not in _GREY | _COLOUR:
        raise ImageError(
            archive.where(name), f"has pixels of mode {image.mode!r}; convert it to 8 bits."
        )
    return image


def _corrupt(archive: Archive, name: str, error: Exception) -> ImageError:
    reason = re.sub(r" <_io.BytesIO[^>]*>", "", str(error)) or type(error).__name__
    return ImageError(
        archive.where(name), f"cannot be decoded ({reason}); replace or remove the file."
    )


def _resized_pixels(image: Image.Image, edge: int) -> float:
    """Return how many pixels an image has whose shorter edge has become ``edge``."""
    return edge * edge * max(image.size) / min(image.size)


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
