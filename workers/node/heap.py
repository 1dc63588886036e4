"""The C library's heap of a worker: what a trial frees is kept for it, and given back at its end.

Other C libraries than glibc have none of these calls, and are left as they are.
"""

import ctypes
from typing import Final

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  #: Parameters of mallopt(3).
KEPT_BYTES: Final = 1 << 30  #: As much at the heap's end is kept for the next layer.
MAPPED_FROM_BYTES: Final = 32 << 20  #: The most that glibc takes: larger blocks are mapped alone.


def keep_freed_memory() -> None:
    """Keep the memory of activations between layers.

    As it comes, glibc returns it to the system after one layer and asks for it again in the next;
    then every page is mapped and zeroed anew, which took a sixth of the time of a ResNet-20.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        tune(TRIM_THRESHOLD, KEPT_BYTES)


def give_memory_back() -> None:
    """Return freed memory to the system.

    Networks of ever new shapes leave a heap full of holes: without this a worker grows to several
    times what a trial needs.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
