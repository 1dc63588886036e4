"""Data sets that are arrays already: the digits of scikit-learn, and torchvision's small ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import torchvision.datasets

from workers.data.source import Images, Items
from workers.errors import DataError
from workers.files import file_lock

_TORCHVISION = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "mnist": torchvision.datasets.MNIST,
    "fashion_mnist": torchvision.datasets.FashionMNIST,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySource:
    """Square images of one size, held in memory."""

    classes: tuple[str, ...]
    images: Images  #: ``[N, C, H, W]``, as stored.
    labels: Items
    train_items: Items
    test_items: Items
    image_size: int | None = None  #: Edge to resize to, in pixels.

    @property
    def left_out(self) -> tuple[tuple[str, int], ...]:
        """Nothing: every image of these data sets is read."""
        return ()

    def repeated(self, items: Items, among: Items) -> int:
        """Nothing is looked for: these data sets are compared as they were published."""
        return 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of a decoded image."""
        channels, height, width = self.images.shape[1:]
        return channels, self.image_size or height, self.image_size or width

    def checksum(self, items: Items) -> str:
        """Name the images by their pixels."""
        return hashlib.sha256(self.images[items].tobytes()).hexdigest()

    def decode(self, items: Items) -> Images:
        """Return the images as ``[N, C, H, W]``, resized if asked for."""
        images = self.images[items]
        if images.shape[1:] == self.shape:
            return images
        resized = F.interpolate(
            torch.from_numpy(images).float(),
            size=self.shape[1:],
            mode="bilinear",
            antialias=True,
        )
        result: Images = resized.round().clamp(0, 255).byte().numpy()
        return result


def load_digits(image_size: int | None) -> ArraySource:
    """1,797 handwritten digits of 8x8 grey pixels, from scikit-learn's installation."""
    import sklearn.datasets  # which only this data set needs

    bunch = sklearn.datasets.load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    return ArraySource(
        classes=tuple("0123456789"),
        images=images[:, None],
        labels=bunch.target.astype(np.int64),
        train_items=np.arange(len(images)),
        test_items=np.arange(0),
        image_size=image_size,
    )


def load_torchvision(
    name: str, path: str, image_size: int | None, *, download: bool
) -> ArraySource:
    """One of torchvision's data sets, from the folder torchvision keeps it in.

    Raises:
        DataError: The files are missing or damaged, and may not be or cannot be downloaded.
    """
    try:
        if download:
            Path(path).mkdir(parents=True, exist_ok=True)
            with file_lock(Path(path) / f".{name}.lock"):  # one worker of a node downloads
                _TORCHVISION[name](path, download=True)
        parts = [_TORCHVISION[name](path, train=train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"Data set {name!r} cannot be read from {path!r}: {error}. Set data.download to true "
            "on a machine that reaches the internet, or copy the folder torchvision makes there."
        ) from error
    sizes = [len(part.targets) for part in parts]
    return ArraySource(
        classes=tuple(parts[0].classes),
        images=np.concatenate([_channels_first(part.data) for part in parts]),
        labels=_labels([part.targets for part in parts]),
        train_items=np.arange(sizes[0]),
        test_items=np.arange(sizes[0], sum(sizes)),
        image_size=image_size,
    )


def _channels_first(data: npt.ArrayLike) -> Images:
    images = np.asarray(data, dtype=np.uint8)  # [N, H, W] or [N, H, W, C]
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _labels(parts: Sequence[npt.ArrayLike]) -> Items:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
