"""A runner for GPUs that are only Ray's word: trials say what they take, as their seed tells.

Importing it puts what they say in place of what a GPU would.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ray
import torch

from workers.node import device_memory
from workers.node.device_memory import DeviceMemory
from workers.node.node import Node
from workers.settings import TrialSpec

RUNNER = "tests.orchestrator.packed:run_trial"
TOTAL: Final = 6000  #: Bytes of the GPU.
SIXTH = 790  #: Seed of a trial that takes so much: six fit with headroom.
THIRD = 1580  #: Three fit.
HALF_NEEDED = 1  #: Seed of a trial for which less than half a GPU is too little.
TOO_LARGE = 2  #: Seed of a trial for which every GPU is too small.

_taken: list[DeviceMemory] = []


def run_trial(
    spec: TrialSpec, node: Node, report: Callable[[int, dict[str, float]], None]
) -> dict[str, Any]:
    """Run while the file ``busy`` is in the cache folder, or run out of memory."""
    given = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    share = given.get("GPU", 0.0)
    report(1, {"val_accuracy": 10.0})
    if spec.seed == TOO_LARGE or (spec.seed == HALF_NEEDED and share < 0.5):
        raise torch.OutOfMemoryError(f"CUDA out of memory in a share of {share:g}")
    while (Path(node.cache_dir) / "busy").exists():
        time.sleep(0.05)
    _taken[:] = [DeviceMemory(spec.seed, TOTAL)]
    return {"pid": os.getpid(), "share": share, "threads": torch.get_num_threads()}


def _measured(device: torch.device) -> DeviceMemory | None:
    return _taken[0] if _taken else None


device_memory.measured = _measured
