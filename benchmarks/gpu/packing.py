"""One, two, four and eight worker processes on one device, with MPS and without.

Every process runs trials as a worker does, without Ray. First each a short one, which says what a
trial takes beside its epochs and of the memory; then all one whose epochs are counted while all of
them train. What that comes to in trials of 40 epochs on 45,000 images an hour is computed.
"""

import logging
import multiprocessing
import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import torch

from benchmarks.gpu.mps import MpsUnavailableError, mps
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.shapes import HALF, layout_for, uniform_ratios
from benchmarks.loops import Case, to_nobody
from orchestrator.cluster.packing import Packing
from workers.errors import StoppedError
from workers.node import device_memory
from workers.settings import Recipe, TrialSpec
from workers.trial import run_trial

log = logging.getLogger(__name__)

COUNTS: Final = (1, 2, 4, 8)
EPOCHS, IMAGES = 40, 45_000  #: Of the trial that an hour is counted in.
GOAL: Final = 150  #: Trials an hour.
START_S: Final = 180.0  #: Until all processes must have run their first trial.


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one process did; a plain record, for it crosses to another process."""

    reports: tuple[float, ...]  #: When its epochs ended, on the clock of the machine.
    epoch_images: int
    beside_s: float  #: Of a trial, besides its epochs.
    peak_bytes: int | None  #: As a worker tells it; None: this kind of device cannot say.
    total_bytes: int | None
    used_bytes: int | None  #: Of the whole device, while all of them train.


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield images a second and trials an hour, by number of processes."""
    case = _case(setting)
    spec = _specification(setting, case)
    found: dict[str, Any] = {"goal": GOAL, "rows": []}
    counts = (2,) if setting.miniature else COUNTS
    parts = [
        (f"{count} processes{', MPS' * with_mps}", (count, with_mps))
        for with_mps in (False, True)
        for count in counts
        if not with_mps or count > 1
    ]
    for _, (count, with_mps) in setting.in_time(parts):
        try:
            with mps(setting.device, wanted=with_mps):
                counted = _together(spec, setting, count)
        except MpsUnavailableError as error:
            found["without_mps"] = str(error)
            yield found
            return
        found["rows"].append({"processes": count, "mps": with_mps, **_row(counted)})
        yield found


def _case(setting: Setting) -> Case:
    recipe = Recipe(epochs=2, batch_size=128, augmentation="shift_flip", learning_rate=0.01)
    data = setting.cifar() if setting.miniature else setting.cifar(train_images=10_000)
    if setting.miniature:
        recipe = recipe.model_copy(update={"batch_size": 32})
    return Case(model=setting.model("cifar_resnet56"), data=data, recipe=recipe)


def _specification(setting: Setting, case: Case) -> TrialSpec:
    torch.manual_seed(0)
    network = case.network()
    return case.spec(
        kind="prune",
        weights=setting.keep(network),
        method="filter_norm",
        ratios=uniform_ratios(layout_for(case, network), HALF),
        reads_test=False,
    )


def _together(spec: TrialSpec, setting: Setting, count: int) -> list[Counted]:
    """Run trials in so many processes at once.

    Raises:
        RuntimeError: One of them failed.
    """
    context = multiprocessing.get_context("spawn")
    results: Queue[Counted | str] = context.Queue()
    start = context.Barrier(count)
    processes = [
        context.Process(target=_count, args=(spec, setting, start, results), daemon=True)
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        return [_taken(results, processes) for _ in processes]
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()


def _taken(
    results: "Queue[Counted | str]", processes: Sequence[multiprocessing.process.BaseProcess]
) -> Counted:
    deadline = time.monotonic() + 2 * START_S
    while time.monotonic() < deadline:
        try:
            result = results.get(timeout=1.0)
        except queue.Empty:
            died = [process.exitcode for process in processes if process.exitcode]
            if died:
                raise RuntimeError(f"a worker process ended with status {died[0]}") from None
            continue
        if isinstance(result, str):
            raise RuntimeError(f"a worker process failed: {result}")
        return result
    raise RuntimeError("the worker processes did not end")


def _count(
    spec: TrialSpec, setting: Setting, start: Barrier, results: "Queue[Counted | str]"
) -> None:
    """Be one of the processes."""
    try:
        results.put(_counted(spec, setting, start))
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")
        start.abort()


def _counted(spec: TrialSpec, setting: Setting, start: Barrier) -> Counted:
    torch.set_num_threads(1)
    node = setting.node()
    device_memory.begin_measuring(setting.device)
    run_trial(spec, node, to_nobody)  # images are decoded, the device is woken
    first = run_trial(spec, node, to_nobody)
    memory = device_memory.measured(setting.device)
    window = 0.5 if setting.miniature else 15.0
    endless = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"epochs": 100_000})})
    reports: list[float] = []
    used: int | None = None
    start.wait(timeout=START_S)
    until = time.time() + window

    def report(_step: int, _values: dict[str, float]) -> None:
        nonlocal used
        reports.append(time.time())
        if time.time() > until and len(reports) > 1:
            used = _used(setting.device)
            raise StoppedError

    with suppress(StoppedError):
        run_trial(endless, node, report)
    start.wait(timeout=START_S)  # the others may still count
    return Counted(
        reports=tuple(reports),
        epoch_images=len(node.data(spec.data).train),
        beside_s=first["seconds_total"] - first["seconds_recover"],
        peak_bytes=memory.peak_bytes if memory else None,
        total_bytes=memory.total_bytes if memory else None,
        used_bytes=used,
    )


def _used(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def _row(counted: Sequence[Counted]) -> dict[str, Any]:
    """Add up the processes, counting each between its first and its last epoch."""
    rates = [
        one.epoch_images * (len(one.reports) - 1) / (one.reports[-1] - one.reports[0])
        for one in counted
    ]
    beside = max(one.beside_s for one in counted)
    trial_s = EPOCHS * IMAGES / (sum(rates) / len(rates)) + beside
    row: dict[str, Any] = {
        "images_per_s": sum(rates),
        "beside_s": beside,
        "trials_per_hour": len(counted) * 3600 / trial_s,
    }
    peak, total = counted[0].peak_bytes, counted[0].total_bytes
    if peak is not None and total is not None:
        packing = Packing()
        packing.measured(peak, total)
        used = max(one.used_bytes or 0 for one in counted)
        row |= {"peak_bytes": peak, "auto_share": packing.share, "total_bytes": total}
        row["used_bytes_per_process"] = used / len(counted)
    return row
