"""How much of a GPU's memory a trial takes, and whether it was that which ran out."""

import gc
from typing import NamedTuple

import torch

#: What a process takes besides what torch allocates, which nothing tells where several share a
#: GPU: the CUDA context and the code of kernels. Usually 300 to 600 MiB.
CONTEXT_BYTES = 600 << 20

_SIGNS = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED")  # of cudaMalloc, cuBLAS and cuDNN


class DeviceMemory(NamedTuple):
    """What one process took of one GPU."""

    peak_bytes: int  #: Largest amount at any time, images that are kept there included.
    total_bytes: int  #: Of the whole GPU.


def begin_measuring(device: torch.device) -> None:
    """Give back what earlier trials left in this process, and forget their peak."""
    if device.type != "cuda":
        return
    torch.cuda.init()  # type: ignore[no-untyped-call]
    gc.collect()  # a trial that failed is kept by its traceback
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def measured(device: torch.device) -> DeviceMemory | None:
    """Return what was taken since :func:`begin_measuring`; None: this kind of device cannot say."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_reserved(device) + CONTEXT_BYTES
    return DeviceMemory(peak, torch.cuda.mem_get_info(device)[1])


def ran_out(error: BaseException) -> bool:
    """Say whether a trial failed because its GPU's memory ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
