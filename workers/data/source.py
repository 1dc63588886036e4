"""What every kind of storage has to offer: one contract for the images of a data set."""

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Items: TypeAlias = npt.NDArray[np.int64]  #: Positions of images within their source.
Images: TypeAlias = npt.NDArray[np.uint8]  #: Decoded images, ``[N, C, H, W]``.


class Source(Protocol):
    """All images of a data set, by item number."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every decoded image."""

    @property
    def labels(self) -> Items:
        """Class of each item, ``[N]``."""

    @property
    def train_items(self) -> Items:
        """Items to train on."""

    @property
    def test_items(self) -> Items:
        """Items to test on; empty where the data set has no test split of its own."""

    @property
    def left_out(self) -> tuple[tuple[str, int], ...]:
        """Suffixes of files that are no images of a kind that is read, and their number."""

    def repeated(self, items: Items, among: Items) -> int:
        """Count those of ``items`` whose file, byte by byte, is one of ``among`` too."""

    def checksum(self, items: Items) -> str:
        """Name the images by their content as stored, without decoding them."""

    def decode(self, items: Items) -> Images:
        """Return the images; safe to call from several threads."""
