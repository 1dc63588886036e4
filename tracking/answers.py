"""Which test images a network got right, as text that a result can hold: a bit an image."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Which test images some runs got right, ``[runs, images]``.
Answers: TypeAlias = NDArray[np.bool_]


def pack_answers(correct: NDArray[np.bool_]) -> str:
    """Write one answer a bit, in hexadecimal, eight to a byte and the first one highest.

    Args:
        correct: Whether each image was got right, ``[N]``, in the order of the test split.
    """
    return np.packbits(correct).tobytes().hex()


def unpack_answers(text: str, images: int) -> NDArray[np.bool_]:
    """Return what `pack_answers` was given, ``[images]``.

    Raises:
        ValueError: The text does not hold that many answers.
    """
    packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    if len(packed) != -(-images // 8):
        raise ValueError(f"{len(packed)} bytes do not hold {images} answers, one a bit")
    return np.unpackbits(packed, count=images).astype(np.bool_)
