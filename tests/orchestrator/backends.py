"""Backends as tests need them: several workers, any order of events, workers that vanish."""

import random
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from orchestrator.loop.backend import (
    Event,
    Failed,
    Finished,
    InlineRunner,
    Lost,
    Reported,
    Slot,
    Stopped,
    Task,
)
from tests.orchestrator.simulation import simulate
from tracking.records import Loss
from workers.settings import TrialSpec

Loses = Callable[[TrialSpec, int], bool]


def never(_spec: TrialSpec, _attempt: int) -> bool:
    """Lose nothing."""
    return False


class SeededBackend:
    """Several workers in this process; which of them says something next is drawn by seed.

    A lost worker is heard of again once its trial has begun anew: such events are stale.

    Args:
        slots: Workers.
        seed: Seed of the order.
        runner: Runs one trial.
        loses: Whether an attempt at a trial is lost, given its number.
    """

    def __init__(
        self, slots: int = 1, seed: int = 0, runner: InlineRunner = simulate, loses: Loses = never
    ) -> None:
        self.started: list[TrialSpec] = []
        self.alone: list[bool] = []  #: For each of ``started``, whether it was promised that.
        self._free = [Slot(node="seeded", pid=number) for number in range(slots)]
        self._busy: dict[Slot, deque[Event]] = {}
        self._exclusive: Slot | None = None
        self._random = random.Random(seed)
        self._runner, self._loses = runner, loses
        self._ghosts: dict[int, list[Event]] = {}  # what lost attempts would have said, by trial
        self._late: list[Event] = []

    def free_slots(self) -> list[Slot]:
        return list(self._free)

    @property
    def running(self) -> int:
        return len(self._busy)

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        assert self._exclusive not in self._busy, "something was started beside a latency"
        if spec.kind == "latency":
            assert not self._busy, "a latency was started beside something"
            self._exclusive = slot
        self._free.remove(slot)
        self.started.append(spec)
        self.alone.append(alone)
        self._late += self._ghosts.pop(task.trial_id, [])
        events = self._events(task, spec)
        if self._loses(spec, task.attempt):
            self._ghosts[task.trial_id] = events[1:]
            events = [*events[:1], Lost(task=task, loss=Loss.WORKER, reason="it went away")]
            if spec.kind == "latency":
                events = events[-1:]
        self._busy[slot] = deque(events)

    def _events(self, task: Task, spec: TrialSpec) -> list[Event]:
        events: list[Event] = []

        def report(step: int, values: dict[str, float]) -> None:
            events.append(Reported(task=task, step=step, values=values, at=datetime.now(UTC)))

        try:
            events.append(Finished(task=task, result=self._runner(spec, report)))
        except Exception as error:
            events.append(Failed(task=task, error=repr(error), cause=repr(error)))
        return events

    def wait(self, timeout_s: float) -> list[Event]:
        events, self._late = self._late, []
        heard = [slot for slot in self._busy if self._random.random() < 0.7]
        self._random.shuffle(heard)
        for slot in heard:
            queue = self._busy[slot]
            for _ in range(self._random.randint(1, 3)):
                if queue:
                    events.append(queue.popleft())
            if not queue:
                del self._busy[slot]
                self._free.append(slot)
        return events

    def stop(self, task: Task) -> None:
        """Let the trial end at its next report, unless that is its last."""
        for queue in self._busy.values():
            if sum(isinstance(event, Reported) for event in queue) and queue[0].task == task:
                queue.clear()
                queue.append(Stopped(task=task))

    def abandon(self, task: Task) -> None:
        for slot in [slot for slot, queue in self._busy.items() if queue[0].task == task]:
            del self._busy[slot]
            self._free.append(slot)

    def close(self) -> None:
        self._busy.clear()
