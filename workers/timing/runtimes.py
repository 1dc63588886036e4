"""A network made ready to be timed in one of the runtimes that people deploy it with."""

import copy
import importlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from workers.errors import WorkerError

Runtime = Literal["eager", "compile", "onnxruntime"]
DType = Literal["float32", "bfloat16"]

INSTALL: Final = "pip install 'prunesweep[onnx]'"


class RuntimeMissingError(WorkerError, ImportError):
    """A latency is wanted in a runtime that is not installed, or cannot run here."""

    def __init__(self, runtime: str, problem: str) -> None:
        super().__init__(runtime, problem)
        self.runtime, self.problem = runtime, problem

    def __str__(self) -> str:
        return f"The runtime {self.runtime!r} cannot be used: {self.problem}"


def check_runtime(runtime: Runtime, dtype: DType, device: torch.device | None = None) -> None:
    """See that networks can be timed in ``runtime``; on a device, if one is given.

    Raises:
        RuntimeMissingError: They cannot.
    """
    if runtime != "onnxruntime":
        return
    missing = [name for name in ("onnxruntime", "onnx") if find_spec(name) is None]
    if missing:
        problem = f"{' and '.join(missing)} cannot be imported. Install what it needs: {INSTALL}"
        raise RuntimeMissingError(runtime, problem)
    if dtype != "float32":
        raise RuntimeMissingError(runtime, f"it is timed in float32 only, not in {dtype}.")
    if device is not None and device.type != "cpu":
        raise RuntimeMissingError(runtime, f"it is timed on CPUs only, not on {device.type}.")


@contextmanager
def threads_of(count: int | None) -> Iterator[int]:
    """Give torch so many CPU threads meanwhile; None: those it has. Yields their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield count or before
    finally:
        torch.set_num_threads(before)


def ready(
    network: nn.Module,
    images: Tensor,
    runtime: Runtime,
    threads: int,
    runner: Callable[[nn.Module], Callable[[Tensor], Tensor]] | None = None,
) -> Callable[[], object]:
    """Return a forward pass of a copy of ``network`` over ``images``.

    Args:
        network: It is not changed.
        images: ``[N, C, H, W]``, of the type and on the device it is timed with.
        runtime: What runs it.
        threads: CPU threads, for runtimes that torch does not govern.
        runner: Gives what is run of the copy, in place of ``runtime``.

    Raises:
        RuntimeMissingError: The runtime is not installed.
    """
    twin = copy.deepcopy(network).eval().to(images.device, images.dtype)
    if images.is_cuda:
        twin.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    if runner is not None:
        run = runner(twin)
        return lambda: run(images)
    if runtime == "onnxruntime":
        return _onnx(twin, images, threads)
    forward = torch.compile(twin, dynamic=False) if runtime == "compile" else twin
    return lambda: forward(images)


def _onnx(network: nn.Module, images: Tensor, threads: int) -> Callable[[], object]:
    check_runtime("onnxruntime", "float32", images.device)
    onnxruntime: Any = importlib.import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "network.onnx"
        torch.onnx.export(network, (images,), file, dynamo=False)
        exported = file.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session: Any = onnxruntime.InferenceSession(
        exported, options, providers=["CPUExecutionProvider"]
    )
    given = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, given)


def forget_compiled() -> None:
    """Let go of what was compiled, whose number per kind of network is limited."""
    torch.compiler.reset()
