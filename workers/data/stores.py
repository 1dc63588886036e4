"""Handing out decoded images in batches: from one tensor, or decoded as they are needed."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from workers.data.cache import decoder_threads
from workers.data.source import Items, Source


class ImageStore(Protocol):
    """The images of one pool, by row."""

    def batches(self, rows: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
        """Yield the images of ``rows`` in batches of ``sizes``: uint8, on the device."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorStore:
    """All images in one tensor: in the device's memory, or mapped from a file."""

    images: Tensor  #: uint8, ``[N, C, H, W]``.
    device: torch.device

    def batches(self, rows: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
        """Yield the images of ``rows`` in batches of ``sizes``: uint8, on the device."""
        for some in torch.split(rows.to(self.images.device), list(sizes)):
            yield _moved(self.images[some], self.device)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamStore:
    """Images decoded as they are needed, a few batches ahead.

    Threads, not processes: decoding releases the interpreter, and no child process can outlive a
    worker that is killed and hold on to its GPU.
    """

    source: Source
    items: Items  #: Item of each row.
    device: torch.device

    def batches(self, rows: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
        """Yield the images of ``rows`` in batches of ``sizes``: uint8, on the device."""
        threads = decoder_threads()
        wanted = iter(torch.split(rows, list(sizes)))
        pool = ThreadPoolExecutor(threads)
        try:
            ahead: deque[Future[Tensor]] = deque(
                pool.submit(self._decode, some) for some in islice(wanted, threads + 1)
            )
            while ahead:
                images = ahead.popleft().result()
                ahead.extend(pool.submit(self._decode, some) for some in islice(wanted, 1))
                yield _moved(images, self.device)
        finally:  # also when the reader stops early
            pool.shutdown(cancel_futures=True)

    def _decode(self, rows: Tensor) -> Tensor:
        images = torch.from_numpy(self.source.decode(self.items[rows.numpy()]))
        return images.pin_memory() if self.device.type == "cuda" else images  # not by the reader


def _moved(images: Tensor, device: torch.device) -> Tensor:
    if images.device == device or device.type == "cpu":
        return images
    return images.pin_memory().to(device, non_blocking=True)
