"""Trials on a Ray cluster: long-lived actors, streamed reports, lost workers replaced.

Ray is asked for nothing but placement: no restarts, no retries. The ledger decides what runs again.
"""

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

from orchestrator.backend import Event, Failed, Finished, Lost, Reported, Slot, Task, one_line
from orchestrator.errors import PrunesweepError
from orchestrator.surroundings import ResourceSettings
from workers.actor import TRIAL_RUNNER, Worker
from workers.settings import TrialSpec

#: Workers in a row that may die before they answer: a machine that is lost takes several along.
MAX_STILLBORN = 8


@dataclass(slots=True)
class _Seat:
    """An actor and what it is doing."""

    actor: Any
    greeting: Any  #: Reference to its :meth:`Worker.hello`, until it has answered.
    slot: Slot | None = None
    task: Task | None = None
    stream: Any = None


class RayBackend:
    """Keeps a sweep's actors on the cluster and hands them trials.

    Args:
        resources: How many workers, and what each takes.
        cache_dir: Folder on each machine for decoded data and statistics.
        artifacts: URL of the artifact store.
        runner: ``package.module:callable`` that runs one trial in a worker.
    """

    def __init__(
        self,
        resources: ResourceSettings,
        cache_dir: str,
        artifacts: str,
        runner: str = TRIAL_RUNNER,
    ) -> None:
        self._options = _actor_options(resources)
        self._arguments = (resources.device, cache_dir, artifacts, runner)
        self._actor_class: Any = ray.remote(Worker)
        self._seats = [self._hire() for _ in range(resources.workers)]
        self._device: str | None = None
        self._stillborn = 0  # workers in a row that died before they answered

    def _hire(self) -> _Seat:
        actor = self._actor_class.options(**self._options).remote(*self._arguments)
        return _Seat(actor=actor, greeting=actor.hello.remote())

    def device_of_first_worker(self) -> str:
        """Wait until a worker has answered, and name its device."""
        while self._device is None:
            self.wait(timeout_s=1.0)
        return self._device

    def free_slots(self) -> list[Slot]:
        """Return the workers that have answered and run nothing."""
        return [seat.slot for seat in self._seats if seat.slot and seat.task is None]

    @property
    def running(self) -> int:
        """Trials that have begun and not ended."""
        return sum(seat.task is not None for seat in self._seats)

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        """Begin a trial on the free worker at ``slot``."""
        seat = next(s for s in self._seats if s.slot == slot and s.task is None)
        seat.task = task
        seat.stream = seat.actor.run.options(num_returns="streaming").remote(
            spec.model_dump(mode="json"), alone
        )

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
        seat.slot = Slot(node=hello["node"], pid=hello["pid"])
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
            return [Lost(task=task, reason=one_line(error))]
        now = datetime.now(UTC)
        events: list[Event] = []
        for message in messages:
            if message[0] == "report":
                events.append(Reported(task=task, step=message[1], values=message[2], at=now))
            else:
                seat.task = seat.stream = None
                events.append(Finished(task=task, result=message[1]))
        return events

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


def _cause(error: RayTaskError) -> BaseException:
    """Return what was raised in the worker, without Ray's wrapping."""
    return error.cause if isinstance(error.cause, BaseException) else error


def _will_happen_again(error: RayError) -> bool:
    """Say whether a worker failed by its own set-up, not by losing its machine."""
    if isinstance(error, RayActorError):
        return error.actor_init_failed
    return isinstance(error, RayTaskError | RuntimeEnvSetupError | ActorUnschedulableError)


def _actor_options(resources: ResourceSettings) -> dict[str, Any]:
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        there = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
        wants = resources.device != "cpu" and there > 0
        gpus = 1.0 if wants else 0.0
    return {
        "num_cpus": resources.cpus_per_worker,
        "num_gpus": gpus,
        "max_restarts": 0,
        "max_task_retries": 0,
    }
