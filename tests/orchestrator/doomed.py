"""A runner whose trials end in every way a trial can, as the seed says."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.node.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec

RUNNER = "tests.orchestrator.doomed:run_trial"
FATES = ("result", "error", "crash", "memory", "silence", "reports")
GROUPS = Path("/sys/fs/cgroup/memory")  #: Of the kernel's first interface.
GROUP = GROUPS / f"prunesweep-{os.getuid()}"
LIMIT = 300 << 20  #: Bytes.


def stand_in(seed: int) -> TrialSpec:
    """Return a trial that only a runner of tests can run, told apart by its seed."""
    return TrialSpec(
        kind="baseline",
        model=ModelSettings(name="digits_net"),
        data=DataSettings(),
        data_hash="none",
        recipe=Recipe(),
        seed=seed,
    )


def run_trial(
    spec: TrialSpec, _node: Node, report: Callable[[int, dict[str, float]], None]
) -> dict[str, Any]:
    """Report once, then meet the fate."""
    report(1, {"val_accuracy": 10.0})
    match FATES[spec.seed]:
        case "error":
            raise ValueError("this trial is wrong")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(3600)  # until it is dead
        case "memory":
            _use_up_memory()
        case "silence":
            time.sleep(3600)
        case "reports":
            for step in range(2, 36_000):
                time.sleep(0.1)
                report(step, {"val_accuracy": 10.0})
    return {"pid": os.getpid()}


def _use_up_memory() -> None:
    """Be killed by the kernel, as in a container that is too small."""
    (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    blocks = []
    while True:
        blocks.append(os.urandom(1 << 20) * 16)
