"""A worker: one long-lived Ray actor that runs trials, one after another, and streams reports."""

import importlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import ray
import torch

from tracking.artifacts import ArtifactStore
from workers.errors import StoppedError
from workers.node import device_memory
from workers.node.environment import device_name
from workers.node.heap import give_memory_back, keep_freed_memory
from workers.node.node import Node, resolve_device
from workers.node.trial_log import kept_log
from workers.patient_store import PatientStore
from workers.results import Report
from workers.settings import TrialSpec

Runner = Callable[[TrialSpec, Node, Report], dict[str, Any]]

#: What a worker sends back: an epoch's values; then, on a GPU, the bytes that the trial took of it
#: at most and that it has; last the trial's result, or that it was stopped. Meanwhile, what a trial
#: waits for that can do nothing for it.
Message = (
    tuple[Literal["report"], int, dict[str, float]]
    | tuple[Literal["memory"], int, int]
    | tuple[Literal["result"], dict[str, Any]]
    | tuple[Literal["stopped"]]
    | tuple[Literal["waiting"], str]
)

TRIAL_RUNNER = "workers.trial:run_trial"

#: `Worker.run` and, meanwhile, `Worker.stop`.
CONCURRENT_CALLS = 2


class Worker:
    """Runs trials in its own process, which keeps torch, the data and the weights.

    Args:
        device: Device name, ``auto`` included.
        cache_dir: Folder of this machine for decoded data and statistics.
        artifacts: URL of the artifact store.
        runner: ``package.module:callable`` that runs one trial.
        threads: CPU threads of torch; None: as many as it takes by itself.
        store_outage_s: How long a trial waits for an artifact store that is away; None: any trouble
            with it is the trial's.
    """

    def __init__(
        self,
        device: str,
        cache_dir: str,
        artifacts: str,
        runner: str,
        threads: int | None = None,
        store_outage_s: float | None = None,
    ) -> None:
        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")  # to Ray's log of it
        for name in ("workers", "methods"):
            logging.getLogger(name).setLevel(logging.INFO)
        keep_freed_memory()
        if threads is not None:  # Ray leaves OMP_NUM_THREADS alone where a machine has it set
            torch.set_num_threads(threads)
        module, _, attribute = runner.partition(":")
        self._run: Runner = getattr(importlib.import_module(module), attribute)
        self._patient = None if store_outage_s is None else PatientStore(artifacts, store_outage_s)
        self._node = Node(
            device=resolve_device(device),
            cache_dir=Path(cache_dir),
            artifacts=self._patient or ArtifactStore(artifacts),
        )
        self._to_stop: tuple[str, int] | None = None  # a trial's name and the attempt
        # One thread for all trials: each new one would keep a heap of its own.
        self._trials: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run_trials, name="trials", daemon=True).start()

    def _run_trials(self) -> None:
        while True:
            self._trials.get()()
            give_memory_back()

    def hello(self) -> dict[str, Any]:
        """Say where this worker lives."""
        return {
            "node": ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
            "node_id": ray.get_runtime_context().get_node_id(),
            "pid": os.getpid(),
            "memory_kills": memory_kills(),
            "device": f"{device_name(self._node.device)}, {torch.get_num_threads()} CPU threads",
        }

    def stop(self, uid: str, attempt: int) -> None:
        """End an attempt at a trial at its next report, if it still runs by then."""
        self._to_stop = (uid, attempt)

    def run(
        self, spec: dict[str, Any], alone: bool, attempt: int = 1, checkpoint_epochs: int = 0
    ) -> Iterator[list[Message]]:
        """Run one trial, yielding reports as they are made and the result at the end.

        Messages made while the ones before were sent travel together.

        Args:
            spec: The trial.
            alone: Nothing else runs on the device meanwhile.
            attempt: Number of this attempt at it, from 1.
            checkpoint_epochs: How often it leaves a checkpoint for the next attempt; 0: never.

        The trial runs in another thread, because methods train from deep inside calls that cannot
        yield. What it raises is raised here.
        """
        messages: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()

        def work() -> None:
            try:
                device_memory.begin_measuring(self._node.device)
                if self._patient is not None:
                    self._patient.tell = lambda problem: messages.put(("waiting", problem))
                trial = TrialSpec.model_validate(spec)
                node = replace(
                    self._node,
                    is_shared=not alone,
                    attempt=attempt,
                    checkpoint_epochs=checkpoint_epochs,
                )

                def report(step: int, values: dict[str, float]) -> None:
                    messages.put(("report", step, values))
                    if self._to_stop == (trial.uid, attempt):
                        raise StoppedError

                last: Message
                try:
                    with kept_log(node.artifacts.without_waiting, trial.uid, attempt):
                        last = ("result", dict(self._run(trial, node, report)))
                except StoppedError:
                    last = ("stopped",)
                taken = device_memory.measured(self._node.device)
                if taken is not None:
                    messages.put(("memory", *taken))
                messages.put(last)
            except BaseException as error:
                messages.put(error)

        self._trials.put(work)
        while True:
            ready, error = _take(messages)
            if ready:
                yield ready
            if error is not None:
                raise error
            if ready[-1][0] in {"result", "stopped"}:
                return


def _take(
    messages: "queue.SimpleQueue[Message | BaseException]",
) -> tuple[list[Message], BaseException | None]:
    """Wait for a message, and take along what else is there by then."""
    ready: list[Message] = []
    while not ready or not messages.empty():
        message = messages.get()
        if isinstance(message, BaseException):
            return ready, message
        ready.append(message)
    return ready, None


def memory_kills() -> int:
    """Count the processes this machine's kernel has killed for memory since it started."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:  # no Linux
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
