"""What is known of a data set before any trial runs, and its name by content."""

import hashlib
from dataclasses import dataclass

import numpy as np

from workers.data.source import Items, Source
from workers.data.splits import Splits
from workers.errors import DataError
from workers.settings import DataSettings

_TOLD = 20  #: Classes whose images are counted in a line.
_LEAST_STD = 1e-6  #: Of images in [0, 1]; what is divided by less is beyond single precision.
_BLOCK = 1 << 20  #: Pixels of an image that are summed at a time.
_SAMPLED = 512  #: Training images the mean and the standard deviation are taken from.


@dataclass(frozen=True, kw_only=True, slots=True)
class DataInfo:
    """A data set as its settings select it: subset taken, validation split carved out."""

    name: str
    classes: tuple[str, ...]  #: Names, in the order of the labels.
    channels: int
    height: int  #: In pixels, after resizing.
    width: int
    train_images: int  #: Without the validation split.
    val_images: int
    test_images: int
    data_hash: str  #: Checksum of the images and of the three splits.
    mean: tuple[float, ...]  #: Per channel, of images in [0, 1].
    std: tuple[float, ...]
    #: Training, validation and test images of each class.
    class_images: tuple[tuple[int, int, int], ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()  #: Suffixes of files that are no images, and counts.
    repeated: int = 0  #: Validation and test images whose very file is a training image too.

    @property
    def num_classes(self) -> int:
        """Number of classes, which is the number of logits."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(C, H, W)``."""
        return self.channels, self.height, self.width

    def told(self) -> str:
        """Say in a line what it holds, class by class, and which files were left out."""
        parts = zip(self.classes, self.class_images, strict=False)
        classes = [f"{name} {'+'.join(map(str, counts))}" for name, counts in parts]
        more = f", and {len(classes) - _TOLD} more" if len(classes) > _TOLD else ""
        left_out = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in self.left_out)
        twice = f"; {self.repeated} of validation and test are training images as well"
        return (
            f"{self.train_images} training, {self.val_images} validation and {self.test_images} "
            f"test images {self.input_shape} in {self.num_classes} classes: "
            f"{', '.join(classes[:_TOLD])}{more}"
            + (f"; left out: {left_out}" if left_out else "")
            + (twice if self.repeated else "")
        )


def inspect_data(settings: DataSettings, source: Source, splits: Splits) -> DataInfo:
    """Put together what is known; decodes a few hundred training images at most."""
    channels, height, width = source.shape
    mean, std = _normalisation(settings, source, splits)
    return DataInfo(
        name=settings.name,
        classes=source.classes,
        channels=channels,
        height=height,
        width=width,
        train_images=len(splits.train),
        val_images=len(splits.val),
        test_images=len(splits.test),
        data_hash=_data_hash(source, splits),
        mean=mean,
        std=std,
        class_images=_class_images(source, splits),
        left_out=source.left_out,
        repeated=source.repeated(np.concatenate([splits.val, splits.test]), splits.train),
    )


def _class_images(source: Source, splits: Splits) -> tuple[tuple[int, int, int], ...]:
    counts = [
        np.bincount(source.labels[items], minlength=len(source.classes)).tolist()
        for items in (splits.train, splits.val, splits.test)
    ]
    return tuple(zip(*counts, strict=True))


def _data_hash(source: Source, splits: Splits) -> str:
    digest = hashlib.sha256(repr((source.classes, source.shape)).encode())
    for pool, members in (
        (splits.train_pool, (splits.train, splits.val)),
        (splits.test_pool, (splits.test,)),
    ):
        digest.update(source.checksum(pool).encode())
        for items in members:
            digest.update(np.searchsorted(pool, items).astype("<i8").tobytes())
            digest.update(source.labels[items].astype("<i8").tobytes())
    return digest.hexdigest()[:32]


def _normalisation(
    settings: DataSettings, source: Source, splits: Splits
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if settings.mean is None and settings.std is None:
        return _mean_and_std(source, splits.train[:_SAMPLED])
    channels = source.shape[0]
    mean, std = settings.mean or (), settings.std or ()
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"Data set {settings.name!r} has {channels} channel(s), but mean is {settings.mean} "
            f"and std is {settings.std}; give one number per channel for both, or leave both out."
        )
    if min(std) < _LEAST_STD:
        raise DataError(
            f"std is {std}; every channel divides by it, so it must be at least {_LEAST_STD:g}."
        )
    return mean, std


def _mean_and_std(source: Source, items: Items) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel; integer sums, so every machine agrees."""
    channels = source.shape[0]
    total, squares, count = np.zeros(channels, np.int64), np.zeros(channels, np.int64), 0
    for item in items:  # one by one: large images would fill the memory
        pixels = source.decode(np.array([item]))[0].reshape(channels, -1)
        for start in range(0, pixels.shape[1], _BLOCK):
            block = pixels[:, start : start + _BLOCK].astype(np.int64)
            total += block.sum(axis=1)
            squares += (block**2).sum(axis=1)
        count += pixels.shape[1]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))  # one value must not divide by 0
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
