"""Trials on a Ray cluster: long-lived actors, streamed reports, lost workers replaced.

Ray is asked for nothing but placement: no restarts, no retries. The ledger decides what runs again.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.backend import (
    Event,
    Failed,
    Finished,
    Lost,
    Reported,
    Slot,
    Stopped,
    Task,
    one_line,
)
from orchestrator.errors import PrunesweepError
from orchestrator.surroundings import ResourceSettings
from tracking.records import Loss
from workers.actor import CONCURRENT_CALLS, TRIAL_RUNNER, Worker, memory_kills
from workers.settings import TrialSpec

#: Workers in a row that may die before they answer: a machine that is lost takes several along.
MAX_STILLBORN = 8
ASK_S = 5.0  #: Longest a machine is waited for that is asked why a worker died.
DRAIN_CHECK_S = 5.0  #: Between two looks at which machines are about to leave.


@dataclass(slots=True)
class _Seat:
    """An actor and what it is doing."""

    actor: Any
    greeting: Any  #: Reference to its :meth:`Worker.hello`, until it has answered.
    slot: Slot | None = None
    node_id: str = ""
    task: Task | None = None
    uid: str = ""  #: Of the trial it runs.
    stream: Any = None


class RayBackend:
    """Keeps a sweep's actors on the cluster and hands them trials.

    Args:
        resources: How many workers, and what each takes.
        cache_dir: Folder on each machine for decoded data and statistics.
        artifacts: URL of the artifact store.
        checkpoint_epochs: How often a trial leaves a checkpoint; 0: never.
        runner: ``package.module:callable`` that runs one trial in a worker.
    """

    def __init__(
        self,
        resources: ResourceSettings,
        cache_dir: str,
        artifacts: str,
        *,
        checkpoint_epochs: int = 0,
        runner: str = TRIAL_RUNNER,
    ) -> None:
        self._checkpoint_epochs = checkpoint_epochs
        self._options = _actor_options(resources)
        self._arguments = (resources.device, cache_dir, artifacts, runner)
        self._actor_class: Any = ray.remote(Worker)
        self._seats = [self._hire() for _ in range(resources.workers)]
        self._device: str | None = None
        self._stillborn = 0  # workers in a row that died before they answered
        self._memory_kills: dict[str, int] = {}  # by machine, when it was last asked
        self._draining: set[str] = set()  # machines that are about to leave
        self._drain_check = time.monotonic()

    def _hire(self) -> _Seat:
        actor = self._actor_class.options(**self._options).remote(*self._arguments)
        return _Seat(actor=actor, greeting=actor.hello.remote())

    def device_of_first_worker(self) -> str:
        """Wait until a worker has answered, and name its device."""
        while self._device is None:
            self.wait(timeout_s=1.0)
        return self._device

    def free_slots(self) -> list[Slot]:
        """Return the workers that have answered and run nothing, on machines that stay."""
        self._leave_draining()
        return [seat.slot for seat in self._seats if seat.slot and seat.task is None]

    @property
    def running(self) -> int:
        """Trials that have begun and not ended."""
        return sum(seat.task is not None for seat in self._seats)

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        """Begin a trial on the free worker at ``slot``."""
        seat = next(s for s in self._seats if s.slot == slot and s.task is None)
        seat.task, seat.uid = task, spec.uid
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
        if not pending:
            return []
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=timeout_s, fetch_local=False)
        if ready and len(pending) > 1:  # whatever else is there by now comes along
            ready, _ = ray.wait(
                list(pending), num_returns=len(pending), timeout=0, fetch_local=False
            )
        events: list[Event] = []
        for reference in ready:
            seat = pending[reference]
            events += self._read(seat) if seat.task else self._welcome(seat)
        return events

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
        self._memory_kills[seat.node_id] = hello["memory_kills"]
        self._device = self._device or hello["device"]
        return []

    def _read(self, seat: _Seat) -> list[Event]:
        task = seat.task
        assert task is not None
        try:
            messages = ray.get(next(seat.stream))
        except RayTaskError as error:
            seat.task = seat.stream = None
            return [Failed(task=task, error=str(error), cause=one_line(_cause(error)))]
        except (RayError, StopIteration) as error:
            self._replace(seat)
            return [Lost(task=task, loss=self._why(error, seat.node_id), reason=_reason(error))]
        now = datetime.now(UTC)
        events: list[Event] = []
        for message in messages:
            if message[0] == "report":
                events.append(Reported(task=task, step=message[1], values=message[2], at=now))
            else:
                seat.task = seat.stream = None
                events.append(
                    Finished(task=task, result=message[1])
                    if message[0] == "result"
                    else Stopped(task=task)
                )
        return events

    def _why(self, error: BaseException, node_id: str) -> Loss:
        """Tell what a worker died of."""
        text = str(error)
        if isinstance(error, OutOfMemoryError) or "due to the node running low on memory" in text:
            return Loss.MEMORY
        if isinstance(error, RayActorError) and error.preempted:
            return Loss.PREEMPTED
        if node_id in self._draining:
            return Loss.PREEMPTED
        if isinstance(error, NodeDiedError) or "because its node has died" in text:
            return Loss.NODE
        before = self._memory_kills.get(node_id, 0)
        now = _memory_kills_of(node_id)
        if now is None:
            return Loss.NODE
        self._memory_kills[node_id] = now
        return Loss.MEMORY if now > before else Loss.WORKER

    def _leave_draining(self) -> None:
        """Take free workers from machines that are about to leave; the others end their trials."""
        now = time.monotonic()
        if now - self._drain_check >= DRAIN_CHECK_S:
            self._drain_check = now
            self._draining |= set(_draining_nodes())
        for seat in list(self._seats):
            if seat.node_id in self._draining and seat.task is None:
                self._replace(seat)

    def _replace(self, seat: _Seat) -> None:
        ray.kill(seat.actor)
        self._seats[self._seats.index(seat)] = self._hire()

    def close(self) -> None:
        """Stop every worker, and what it runs."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats = []


class WorkerStartError(PrunesweepError):
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


def _reason(error: BaseException) -> str:
    """Say what happened in one line: of Ray's many, the one after those that name the actor."""
    lines = [line for line in str(error).splitlines() if line.strip() and line[0] != "\t"]
    return lines[min(1, len(lines) - 1)].strip() if lines else type(error).__name__


def _memory_kills_of(node_id: str) -> int | None:
    """Ask a machine how many processes its kernel has killed for memory; None: no answer."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    ask: Any = ray.remote(memory_kills)
    asked = ask.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()
    try:
        return int(ray.get(asked, timeout=ASK_S))
    except RayError:
        return None


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


def _actor_options(resources: ResourceSettings) -> dict[str, Any]:
    gpus = resources.gpu_share
    if gpus == "auto":
        there = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
        wants = resources.device != "cpu" and there > 0
        gpus = 1.0 if wants else 0.0
    return {
        "num_cpus": resources.cpus_per_worker,
        "num_gpus": gpus,
        "max_concurrency": CONCURRENT_CALLS,
        "max_restarts": 0,
        "max_task_retries": 0,
    }
