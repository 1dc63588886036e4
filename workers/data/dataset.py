"""A data set in a trial's hands: batches to train on, splits to measure on, the test split once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.data.augment import Augmentation, draw_moves, move
from workers.data.info import DataInfo
from workers.data.stores import ImageStore
from workers.errors import TestSplitReadError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """Some images and their labels, in shuffled but fixed order."""

    store: ImageStore
    rows: Tensor  #: Row of each image in the store, int64 ``[N]`` on the CPU.
    labels: Tensor  #: Class of each image, int64 ``[N]`` on the device.

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> "Split":
        """The first images, which are a random sample; all of them when there are fewer."""
        return Split(store=self.store, rows=self.rows[:count], labels=self.labels[:count])


class DataSet:
    """The images of one trial. Batches are float32, normalised, on the device."""

    def __init__(
        self, info: DataInfo, *, train: Split, val: Split, test: Split, device: torch.device
    ) -> None:
        self.info, self.train, self.val, self.device = info, train, val, device
        self._test = test
        self._test_was_taken = False
        self._mean = torch.tensor(info.mean, device=device)[:, None, None] * 255
        self._std = torch.tensor(info.std, device=device)[:, None, None] * 255

    def for_trial(self) -> "DataSet":
        """The same images for a new trial, whose test split is unread."""
        return DataSet(
            self.info, train=self.train, val=self.val, test=self._test, device=self.device
        )

    def take_test(self) -> Split:
        """Hand out the test split.

        Raises:
            TestSplitReadError: It was handed out before.
        """
        if self._test_was_taken:
            raise TestSplitReadError(self.info.name)
        self._test_was_taken = True
        return self._test

    def train_batches(
        self,
        batch_size: int,
        generator: torch.Generator,
        augmentation: Augmentation = "none",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of shuffled images ``[N, C, H, W]`` and labels ``[N]``.

        The last batch may be short. A last batch of one image, which batch norm cannot train on,
        is joined to the batch before, so that every image is seen. Order and augmentation come
        from ``generator``, on the CPU.
        """
        order = torch.randperm(len(self.train), generator=generator)
        sizes = _sizes(len(order), batch_size)
        moves = draw_moves(sizes, self.info.input_shape[1:], augmentation, generator)
        by_batch = torch.split(moves.to(self.device), sizes)
        read = self._read(self.train, order, sizes)
        for (images, labels), some in zip(read, by_batch, strict=True):
            yield self._normalised(move(images, some)), labels

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of batches ``train_batches`` yields."""
        return len(_sizes(len(self.train), batch_size))

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image of ``split`` once, as it is, in the order of the split."""
        order = torch.arange(len(split))
        sizes = [len(chunk) for chunk in torch.split(order, batch_size)]
        for images, labels in self._read(split, order, sizes):
            yield self._normalised(images), labels

    def _read(
        self, split: Split, order: Tensor, sizes: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels in batches of ``sizes``; the order travels once, not by batch."""
        labels = torch.split(split.labels[order.to(split.labels.device)], list(sizes))
        yield from zip(split.store.batches(split.rows[order], sizes), labels, strict=True)

    def _normalised(self, images: Tensor) -> Tensor:
        return images.float().sub_(self._mean).div_(self._std)


def _sizes(images: int, batch_size: int) -> list[int]:
    """Return how many images each batch of an epoch has; none has a single one beside others."""
    whole, rest = divmod(images, batch_size)
    sizes = [batch_size] * whole
    if rest == 1 and whole:
        sizes[-1] += 1
    elif rest or not whole:
        sizes.append(rest)
    return sizes
