"""Workers on a virtual clock: trials of minutes pass at once, what the driver does takes its time.

The clock is the real one plus what was skipped. Time is skipped only while the driver sleeps with
nothing to do: never beyond the time-out it asked for, and never while a proposal is being made.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from orchestrator.loop.backend import Event, Finished, InlineRunner, Reported, Slot, Stopped, Task
from workers.settings import TrialSpec

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)  #: What the virtual clock shows at 0.
NAP_S = 0.001  #: Between looks at whether the proposal has been made.


@dataclass(frozen=True, kw_only=True, slots=True)
class Stint:
    """One trial on one worker; virtual seconds."""

    kind: str  #: Kind of the trial.
    seed: int  #: Of the trial: re-runs have others than the search.
    begun: float
    ended: float
    idle: float  #: How long the worker had been free before.


class VirtualBackend:
    """Workers that are busy for as long as a formula says; their reports spread over that time.

    Args:
        workers: How many.
        runner: Returns a trial's result, given the way to report; takes no time.
        seconds: How long a trial takes.
        is_planning: Says whether the driver is making a proposal beside its loop.
        clock: Seconds that really pass; one that stands still leaves only simulated time.
    """

    def __init__(
        self,
        workers: int,
        runner: InlineRunner,
        seconds: Callable[[TrialSpec], float],
        *,
        is_planning: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._seconds = runner, seconds
        self._is_planning, self._clock = is_planning, clock
        self._origin, self._skipped = clock(), 0.0
        self._free = {Slot(node="virtual", pid=number): 0.0 for number in range(workers)}
        self._busy: dict[Task, tuple[Slot, int]] = {}  # and the number of its stint
        self._due: list[tuple[float, int, Event]] = []
        self._order = count()
        self.workers = workers
        self.stints: list[Stint] = []  #: In the order they began.
        self.cpu_s = 0.0  #: What the simulation itself took.

    def now(self) -> float:
        """Return what the virtual clock shows, in seconds."""
        return self._clock() - self._origin + self._skipped

    def free_slots(self) -> list[Slot]:
        """Return the workers that run nothing; the driver takes the last, the longest free."""
        return list(reversed(self._free))

    @property
    def running(self) -> int:
        """Trials that have begun and not ended."""
        return len(self._busy)

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        """Work out when what is heard of a trial."""
        cpu, now, length = time.thread_time(), self.now(), self._seconds(spec)
        idle = now - self._free.pop(slot)
        stint = Stint(kind=spec.kind, seed=spec.seed, begun=now, ended=now + length, idle=idle)
        reports: list[tuple[int, dict[str, float]]] = []
        result = self._runner(spec, lambda step, values: reports.append((step, values)))
        for nth, (step, values) in enumerate(reports, start=1):
            due = now + length * nth / (len(reports) + 1)
            at = BEGIN + timedelta(seconds=due)
            self._expect(due, Reported(task=task, step=step, values=values, at=at))
        self._expect(stint.ended, Finished(task=task, result=result))
        self._busy[task] = (slot, len(self.stints))
        self.stints.append(stint)
        self.cpu_s += time.thread_time() - cpu

    def _expect(self, due: float, event: Event) -> None:
        heapq.heappush(self._due, (due, next(self._order), event))

    def wait(self, timeout_s: float) -> list[Event]:
        """Let time pass until the next event, at most ``timeout_s``; return what is due by then."""
        cpu, until = time.thread_time(), self.now() + timeout_s
        if self._due:
            until = min(until, self._due[0][0])
        while self._is_planning() and self.now() < until:
            time.sleep(NAP_S)
        self._skipped += max(0.0, until - self.now())
        events: list[Event] = []
        while self._due and self._due[0][0] <= self.now():
            due, _, event = heapq.heappop(self._due)
            events.append(event)
            if not isinstance(event, Reported):
                self._release(event.task, due)
        self.cpu_s += time.thread_time() - cpu
        return events

    def stop(self, task: Task) -> None:
        """Let a trial end at its next report, unless it has none to come."""
        mine = [item for item in self._due if item[2].task == task]
        following = min((item for item in mine if isinstance(item[2], Reported)), default=None)
        if following is not None:
            due, _, report = following
            self._forget(task)
            self._expect(due, report)
            self._expect(due, Stopped(task=task))

    def abandon(self, task: Task) -> None:
        """Free the worker now."""
        self._forget(task)
        self._release(task, self.now())

    def _forget(self, task: Task) -> None:
        self._due = [item for item in self._due if item[2].task != task]
        heapq.heapify(self._due)

    def _release(self, task: Task, at: float) -> None:
        slot, number = self._busy.pop(task)
        self.stints[number] = replace(self.stints[number], ended=at)
        self._free[slot] = at

    def close(self) -> None:
        """Nothing is to be stopped."""


def utilisation(stints: Sequence[Stint], workers: int, begin: float, end: float) -> float:
    """Return the share of the workers' time between two moments in which they ran trials."""
    busy = sum(max(0.0, min(s.ended, end) - max(s.begun, begin)) for s in stints)
    return busy / (workers * (end - begin))


def searching(stints: Sequence[Stint], workers: int, seed: int) -> tuple[float, float]:
    """Return when a search had given every worker a trial, and when it started its last.

    Args:
        stints: At least one trial of the search for each worker.
        workers: How many there are.
        seed: Of the search's trials.
    """
    begun = [stint.begun for stint in stints if (stint.kind, stint.seed) == ("prune", seed)]
    return begun[workers - 1], begun[-1]
