"""Decoded images on disk: made once per node, mapped into the memory of every worker there."""

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tracking.private_files import make_file
from workers.data.source import Items, Source
from workers.files import file_lock

log = logging.getLogger(__name__)

_CHUNK = 256  #: Images decoded by one thread at a time.


def decoder_threads() -> int:
    """Threads to decode with; Pillow and zlib release the interpreter while they work."""
    return min(8, os.cpu_count() or 1)


def decoded(source: Source, items: Items, folder: Path) -> Tensor:
    """Return the images as a uint8 tensor ``[N, C, H, W]`` mapped from a file under ``folder``.

    The file is named by the content of the images. The first worker writes it, under a lock and a
    temporary name; the others wait and share its pages. The mapping is private: writing to the
    tensor never reaches the file.
    """
    content = f"{source.checksum(items)}:{source.shape}:{len(items)}"
    path = folder / f"images-{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"
    shape = (len(items), *source.shape)
    with file_lock(path.with_suffix(".lock")):
        if not _is_complete(path, shape):
            _write(source, items, path, shape)
            log.info("Decoded %d images into %s", len(items), path)
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _is_complete(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        images = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):  # not there, or cut short
        return False
    return bool(images.shape == shape and images.dtype == np.uint8)


def _write(source: Source, items: Items, path: Path, shape: tuple[int, ...]) -> None:
    partial = path.with_suffix(".partial")
    make_file(partial)
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)

    def decode(start: int) -> None:
        images[start : start + _CHUNK] = source.decode(items[start : start + _CHUNK])

    with ThreadPoolExecutor(decoder_threads()) as pool:
        for _ in pool.map(decode, range(0, len(items), _CHUNK)):
            pass  # lets an error out
    images.flush()
    partial.replace(path)
