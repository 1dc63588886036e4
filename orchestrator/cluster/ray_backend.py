"""Trials on a Ray cluster: long-lived actors, streamed reports, lost workers replaced.

Ray is asked for nothing but placement: no restarts, no retries. The ledger decides what runs again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from orchestrator.cluster.losses import Questions
from orchestrator.cluster.packing import Packing
from orchestrator.errors import SweepError
from orchestrator.loop.backend import (
    Event,
    Failed,
    Finished,
    Lost,
    Reported,
    Slot,
    Stopped,
    StoreAway,
    Task,
    Waits,
    one_line,
)
from orchestrator.specification.settings import ResourceSettings
from tracking.artifacts import StoreUnreachableError
from tracking.records import Loss
from workers.node import device_memory
from workers.node.actor import CONCURRENT_CALLS, TRIAL_RUNNER, Worker
from workers.settings import TrialSpec

#: Workers in a row that may die before they answer: a machine that is lost takes several along.
MAX_STILLBORN = 8
DRAIN_CHECK_S = 5.0  #: Between two looks at which machines are about to leave.


@dataclass(slots=True)
class _Seat:
    """An actor and what it is doing."""

    actor: Any
    greeting: Any  #: Reference to its :meth:`Worker.hello`, until it has answered.
    gpu_share: float  #: It was hired with.
    slot: Slot | None = None
    node_id: str = ""
    task: Task | None = None
    uid: str = ""  #: Of the trial it runs.
    alone: bool = False  #: Nothing else of the sweep runs meanwhile.
    stream: Any = None


class RayBackend:
    """Keeps a sweep's actors on the cluster and hands them trials.

    Args:
        resources: How many workers, and what each takes.
        cache_dir: Folder on each machine for decoded data and statistics.
        artifacts: URL of the artifact store.
        checkpoint_epochs: How often a trial leaves a checkpoint; 0: never.
        store_outage_s: How long trials wait for an artifact store that is away; None: not at all,
            and it is the trial that failed.
        runner: ``package.module:callable`` that runs one trial in a worker.
    """

    def __init__(
        self,
        resources: ResourceSettings,
        cache_dir: str,
        artifacts: str,
        *,
        checkpoint_epochs: int = 0,
        store_outage_s: float | None = None,
        runner: str = TRIAL_RUNNER,
    ) -> None:
        self._checkpoint_epochs = checkpoint_epochs
        self._packing = _packing(resources)
        self._options = {
            "num_cpus": resources.cpus_per_worker,
            "max_concurrency": CONCURRENT_CALLS,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        threads = max(1, int(resources.cpus_per_worker))
        self._arguments = (resources.device, cache_dir, artifacts, runner, threads, store_outage_s)
        self._actor_class: Any = ray.remote(Worker)
        self._seats = [self._hire() for _ in range(resources.workers)]
        self._device: str | None = None
        self._stillborn = 0  # workers in a row that died before they answered
        self._questions = Questions()
        self._draining: set[str] = set()  # machines that are about to leave
        self._drain_check = time.monotonic()

    def _hire(self) -> _Seat:
        share = self._packing.share
        options = self._actor_class.options(num_gpus=share, **self._options)
        actor = options.remote(*self._arguments)
        return _Seat(actor=actor, greeting=actor.hello.remote(), gpu_share=share)

    def device_of_first_worker(self, is_stopped: Callable[[], bool] = lambda: False) -> str:
        """Wait until a worker has answered, and name its device.

        Raises:
            KeyboardInterrupt: ``is_stopped`` meanwhile.
        """
        while self._device is None:
            if is_stopped():
                raise KeyboardInterrupt
            self.wait(timeout_s=1.0)
        return self._device

    def free_slots(self) -> list[Slot]:
        """Return the workers that have answered and run nothing, on machines that stay."""
        self._leave_draining()
        self._share_gpus()
        return [seat.slot for seat in self._seats if seat.slot and seat.task is None]

    @property
    def running(self) -> int:
        """Trials that have begun and not ended."""
        return sum(seat.task is not None for seat in self._seats)

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        """Begin a trial on the free worker at ``slot``."""
        seat = next(s for s in self._seats if s.slot == slot and s.task is None)
        seat.task, seat.uid, seat.alone = task, spec.uid, alone
        seat.stream = seat.actor.run.options(num_returns="streaming").remote(
            spec.model_dump(mode="json"), alone, task.attempt, self._checkpoint_epochs
        )

    def stop(self, task: Task) -> None:
        """Ask a trial to end at its next report."""
        for seat in self._seats:
            if seat.task == task:
                seat.actor.stop.remote(seat.uid, task.attempt)

    def abandon(self, task: Task) -> None:
        """Replace the worker of a trial that does not answer."""
        for seat in [seat for seat in self._seats if seat.task == task]:
            self._replace(seat)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened; also lets workers in that have just become ready."""
        pending = {seat.stream if seat.task else seat.greeting: seat for seat in self._seats}
        pending.pop(None, None)
        awaited = [*pending, *self._questions.awaited]
        if not awaited:
            return []
        ready, _ = ray.wait(awaited, num_returns=1, timeout=timeout_s, fetch_local=False)
        if ready and len(awaited) > 1:  # whatever else is there by now comes along
            ready, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0, fetch_local=False)
        events: list[Event] = []
        for reference in ready:
            if reference in pending:
                seat = pending[reference]
                events += self._read(seat) if seat.task else self._welcome(seat)
        return [*events, *self._questions.close(ready)]

    def _welcome(self, seat: _Seat) -> list[Event]:
        try:
            hello = ray.get(seat.greeting)
        except RayError as error:
            self._stillborn += 1
            if _will_happen_again(error) or self._stillborn >= MAX_STILLBORN:
                raise WorkerStartError(
                    str(error).strip().splitlines()[-1], self._stillborn
                ) from error
            self._replace(seat)
            return []
        self._stillborn = 0
        seat.greeting = None
        seat.slot = Slot(node=_name_of_node(hello), pid=hello["pid"])
        seat.node_id = hello["node_id"]
        self._questions.note(seat.node_id, hello["memory_kills"])
        self._device = self._device or hello["device"]
        return []

    def _read(self, seat: _Seat) -> list[Event]:
        task = seat.task
        assert task is not None
        try:
            messages = ray.get(next(seat.stream))
        except RayTaskError as error:
            seat.task = seat.stream = None
            return [self._ended_by(_cause(error), str(error), task, seat)]
        except (RayError, StopIteration) as error:
            self._replace(seat)
            leaves = seat.node_id in self._draining
            return [*self._questions.died(task, seat.node_id, error, leaves=leaves)]
        now = datetime.now(UTC)
        events: list[Event] = []
        for message in messages:
            if message[0] == "report":
                events.append(Reported(task=task, step=message[1], values=message[2], at=now))
            elif message[0] == "waiting":
                events.append(Waits(task=task, reason=message[1]))
            elif message[0] == "memory":
                if not seat.alone:
                    self._packing.measured(*message[1:])
            else:
                seat.task = seat.stream = None
                events.append(
                    Finished(task=task, result=message[1])
                    if message[0] == "result"
                    else Stopped(task=task)
                )
        return events

    def _ended_by(self, cause: BaseException, trace: str, task: Task, seat: _Seat) -> Event:
        """Tell a trial that is wrong from one that had too little of a GPU."""
        if isinstance(cause, StoreUnreachableError):
            return StoreAway(task=task, reason=str(cause))
        if not device_memory.ran_out(cause):
            return Failed(task=task, error=trace, cause=one_line(cause))
        if self._packing.ran_out(seat.gpu_share):
            reason = (
                f"GPU memory ran out in a share of {seat.gpu_share:g}; "
                f"workers get {self._packing.share:g} from now on"
            )
            return Lost(task=task, loss=Loss.DEVICE_MEMORY, reason=reason)
        why = f"{type(cause).__name__}: {self._packing.remedy}"
        return Failed(task=task, error=trace, cause=why)

    def _leave_draining(self) -> None:
        """Take free workers from machines that are about to leave; the others end their trials."""
        now = time.monotonic()
        if now - self._drain_check >= DRAIN_CHECK_S:
            self._drain_check = now
            self._draining |= set(_draining_nodes())
        for seat in list(self._seats):
            if seat.node_id in self._draining and seat.task is None:
                self._replace(seat)

    def _share_gpus(self) -> None:
        """Replace workers that have another share of a GPU than they should, once they are free."""
        for seat in list(self._seats):
            if seat.gpu_share != self._packing.share and seat.task is None:
                self._replace(seat)

    def _replace(self, seat: _Seat) -> None:
        ray.kill(seat.actor)
        self._seats[self._seats.index(seat)] = self._hire()

    def close(self) -> None:
        """Stop every worker, and what it runs."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats = []


class WorkerStartError(SweepError):
    """A worker could not set itself up, or one after another died of trying."""

    def __init__(self, reason: str, in_a_row: int = 1) -> None:
        super().__init__(reason, in_a_row)
        self.reason, self.in_a_row = reason, in_a_row

    def __str__(self) -> str:
        if self.in_a_row < MAX_STILLBORN:
            return f"A worker could not start: {self.reason}"
        return (
            f"{self.in_a_row} workers in a row died before they were ready: {self.reason} Look for "
            "memory that runs out or a library that crashes on import; Ray's logs have the rest."
        )


def _name_of_node(hello: dict[str, Any]) -> str:
    """Name a machine: its address, and enough of Ray's id to tell apart all that have had it.

    A pod takes over the address of another, a machine joins again, and two nodes may share one.
    """
    return f"{hello['node']}/{hello['node_id'][:8]}"


def _draining_nodes() -> list[str]:
    """Return the machines Ray was told to drain; none where this version does not say."""
    from ray._private.state import state  # there is no public way to ask

    ask = getattr(state, "get_draining_nodes", dict)
    return list(ask())


def _cause(error: RayTaskError) -> BaseException:
    """Return what was raised in the worker, without Ray's wrapping."""
    return error.cause if isinstance(error.cause, BaseException) else error


def _will_happen_again(error: RayError) -> bool:
    """Say whether a worker failed by its own set-up, not by losing its machine."""
    if isinstance(error, RayActorError):
        return error.actor_init_failed
    return isinstance(error, RayTaskError | RuntimeEnvSetupError | ActorUnschedulableError)


def _packing(resources: ResourceSettings) -> Packing:
    """Return how GPUs are shared: not at all where there are none."""
    if resources.gpu_share != "auto":
        return Packing(resources.gpu_share)
    there = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    return Packing() if there > 0 and resources.device != "cpu" else Packing(0.0)
