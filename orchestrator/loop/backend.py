"""What runs trials, seen from the driver; and its twin that runs them right here."""

import os
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from tracking.artifacts import StoreUnreachableError
from tracking.records import Loss
from workers.results import Report
from workers.settings import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One attempt at a trial, as the driver knows it."""

    trial_id: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A free worker, held for the trial about to start."""

    node: str
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """An epoch of a running trial."""

    task: Task
    step: int
    values: dict[str, float]
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A trial brought its result."""

    task: Task
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The trial itself went wrong; running it again would go wrong again."""

    task: Task
    error: str  #: Traceback.
    cause: str  #: The error's kind and message, in one line.


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """The trial ended where it stood, as it was told to."""

    task: Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The worker or its machine went away."""

    task: Task
    loss: Loss
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """A trial is well, and waits for the artifact store."""

    task: Task
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreAway:
    """A trial ended because the artifact store stayed away: no trial could go on."""

    task: Task
    reason: str


Event = Reported | Finished | Failed | Stopped | Lost | Waits | StoreAway


class Backend(Protocol):
    """Runs trials, as many at a time as it has workers."""

    def free_slots(self) -> list[Slot]:
        """Return the workers that could start a trial now."""

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        """Begin a trial on a free worker; never waits for it.

        ``alone`` promises that nothing else is started until the trial has ended.
        """

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened, waiting up to ``timeout_s`` for the first event."""

    def stop(self, task: Task) -> None:
        """Ask a trial to end at its next report; it may come to its own end before that."""

    def abandon(self, task: Task) -> None:
        """Take the worker from a trial that does not answer; nothing more is heard of the task."""

    @property
    def running(self) -> int:
        """Trials that have begun and not ended."""

    def close(self) -> None:
        """Stop every worker, and what it runs."""


def one_line(error: BaseException) -> str:
    """Say what went wrong in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


InlineRunner = Callable[[TrialSpec, Report], dict[str, Any]]


class InlineBackend:
    """Runs each trial in this process while the driver waits; for tests and for debugging.

    Args:
        runner: Runs one trial, given the way to report.
    """

    def __init__(self, runner: InlineRunner) -> None:
        self._runner = runner
        self._queue: deque[tuple[Task, TrialSpec]] = deque()

    def free_slots(self) -> list[Slot]:
        """One worker, free unless its trial has yet to run."""
        return [] if self._queue else [Slot(node="inline", pid=os.getpid())]

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        """Remember the trial until :meth:`wait`."""
        self._queue.append((task, spec))

    @property
    def running(self) -> int:
        """Trials that wait for :meth:`wait`."""
        return len(self._queue)

    def wait(self, timeout_s: float) -> list[Event]:
        """Run the trial that was started, to its end."""
        events: list[Event] = []
        while self._queue:
            task, spec = self._queue.popleft()

            def report(step: int, values: dict[str, float], task: Task = task) -> None:
                now = datetime.now(UTC)
                events.append(Reported(task=task, step=step, values=values, at=now))

            try:
                events.append(Finished(task=task, result=self._runner(spec, report)))
            except StoreUnreachableError as error:
                events.append(StoreAway(task=task, reason=str(error)))
            except Exception as error:
                trace = "".join(traceback.format_exception(error))
                events.append(Failed(task=task, error=trace, cause=one_line(error)))
        return events

    def stop(self, task: Task) -> None:
        """Nothing: whoever could ask waits until the trial has ended."""

    def abandon(self, task: Task) -> None:
        """Nothing, likewise."""

    def close(self) -> None:
        """Forget what has not run."""
        self._queue.clear()
