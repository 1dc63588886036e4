"""The loop that runs a sweep: ask, store, start, collect, store, tell.

Each step is in the ledger before anything follows from it, so a driver that is killed at any
moment is continued by the next one.
"""

import concurrent.futures as futures
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.queue import Wanted
from orchestrator.agenda.stopper import Stopper
from orchestrator.errors import StoreLostError
from orchestrator.loop.backend import (
    Backend,
    Event,
    Failed,
    Finished,
    Lost,
    Reported,
    Stopped,
    StoreAway,
    Task,
    Waits,
)
from orchestrator.loop.watcher import Ended, Watcher
from tracking.cancellations import Cancellations
from tracking.errors import StaleAttemptError, UnstorableError
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import BY_HAND, SweepWriter
from tracking.places import Place
from tracking.records import Loss, TrialRecord, TrialState
from workers.settings import TrialSpec

WAIT_S = 0.5  #: Longest the loop sleeps while nothing happens.
PLANNING_WAIT_S = 0.01  #: The same while a worker is free and a proposal is being made.
LOOK_S = 1.0  #: Between two looks at what is asked from beside the driver.
PLANNED_AT_ONCE = 8  #: Proposals made before those that are ready are started.


@dataclass(slots=True)
class _Work:
    """A trial that is not final yet, and the places that wait for it."""

    uid: str
    spec: TrialSpec
    places: list[Place] = field(default_factory=list)
    task: Task | None = None  #: Set while it runs.
    stop_reason: str = ""  #: Why it was told to end early.
    is_cancelled: bool = False  #: It was told to end because nobody wants it any more.
    heard_at: float = 0.0  #: When it last gave a sign of life, by `time.monotonic`.

    @property
    def is_exclusive(self) -> bool:
        return self.spec.is_exclusive


class Driver:
    """Runs one sweep to its end.

    Args:
        agenda: What the sweep wants.
        backend: What runs it.
        ledger: Where records are read.
        writer: Where records are written; held by this driver alone.
        watcher: Is told of everything.
        stopper: Says which search trials end early.
        hung_after_s: How long a trial may be silent before its attempt is given up.
    """

    def __init__(
        self,
        agenda: Agenda,
        backend: Backend,
        ledger: Ledger,
        writer: SweepWriter,
        watcher: Watcher,
        *,
        stopper: Stopper,
        hung_after_s: float = math.inf,
    ) -> None:
        self._stopper = stopper
        self._hung_after_s = hung_after_s
        self._agenda, self._backend, self._watcher = agenda, backend, watcher
        self._ledger, self._writer = ledger, writer
        self._work: dict[int, _Work] = {}
        self._waiting: deque[int] = deque()  # trials to start, in order
        self._running: set[int] = set()
        # The agenda lives in one thread, so that suggesting never delays a report.
        self._planner = futures.ThreadPoolExecutor(1, thread_name_prefix="planner")
        self._planned: futures.Future[list[Wanted]] | None = None
        self._told: deque[futures.Future[None]] = deque()
        self._given_up: set[str] = set()  # arms whose waiting trials are cancelled
        self._cancelled = Cancellations()  # what is not run any more
        self._looked_at = -math.inf  # when requests were last read, by `time.monotonic`
        self._asks = True  # the agenda may want something it did not want when last asked
        self._stopping = False
        self._store_problem: str | None = None  # why no trial can go on

    def stop(self) -> None:
        """Start nothing more, and leave the loop at the next turn; running trials go back."""
        self._stopping = True

    def run(self) -> bool:
        """Run until nothing is left to do.

        Returns:
            Whether the sweep is over; False after :meth:`stop`, and when it was cancelled.

        Raises:
            FencedError: Another driver has taken the sweep over.
            StoreLostError: The artifact store stayed away; what ran is pending again.
        """
        try:
            self._take_up_pending()
            while not self._stopping:
                self._look_at_requests()
                if self._cancelled.whole and not self._running:
                    return False
                # A driver with nothing to write would not notice that it has been replaced.
                self._writer.check()
                self._plan()
                self._start()
                if self._is_over():
                    return True
                # What workers sent comes before silence is judged: a report that has waited here
                # is a sign of life, and its trial must not be given up.
                self._collect(self._backend.wait(self._patience()))
                self._collect(self._give_up_silent())
                self._give_up_arms()
                self._drop_waiting()
                if self._store_problem is not None:
                    self._give_back()
                    raise StoreLostError(self._writer.name, self._store_problem)
                self._watcher.tick(len(self._running), len(self._waiting))
            self._give_back()
            return False
        finally:
            self._planner.shutdown(cancel_futures=True)

    def _take_up_pending(self) -> None:
        """Go on from the ledger: what is pending runs first, with its stored ratios."""
        entries = self._ledger.entries(self._writer.sweep_id)
        trials = self._ledger.trials(self._writer.sweep_id)
        # In the thread that asks it later, and before anything is queued: what the agenda restores
        # is exactly what is in the ledger.
        self._cancelled = self._ledger.requests(self._writer.sweep_id).cancelled
        arms = self._cancelled.arms
        self._planner.submit(self._agenda.begin, entries, trials, cancelled=arms).result()
        pending = {trial.id: trial for trial in trials if trial.state is TrialState.PENDING}
        for entry in entries:
            if entry.trial_id in pending:
                self._take_up(pending[entry.trial_id], entry.place)
        self._drop_waiting()

    def _take_up(self, trial: TrialRecord, place: Place) -> None:
        work = self._work.get(trial.id)
        if work is None:
            work = self._work[trial.id] = _Work(
                uid=trial.uid, spec=TrialSpec.model_validate(trial.spec)
            )
            self._waiting.append(trial.id)
        work.places.append(place)

    def _plan(self) -> None:
        """Keep trials ready for every worker; the asking goes on beside the loop."""
        while self._told and self._told[0].done():
            self._told.popleft().result()
        if self._planned is not None and self._planned.done():
            wanted, self._planned = self._planned.result(), None
            self._store(wanted)
            self._asks = self._asks or bool(wanted)
        workers = len(self._backend.free_slots()) + len(self._running)
        room = 2 * max(1, workers) - len(self._waiting)
        wants = self._asks and room > 0 and not self._cancelled.whole
        if self._planned is None and wants and not self._is_over():
            some = min(room, PLANNED_AT_ONCE)
            self._planned, self._asks = self._planner.submit(self._agenda.next, some), False
        waits = self._planned or self._told or self._work or self._cancelled.whole
        if not (waits or self._agenda.is_over):
            raise RuntimeError("The agenda wants nothing, waits for nothing and is not over.")

    def _store(self, wanted: list[Wanted]) -> None:
        """Record what is wanted; content that has its result already does not run again."""
        if not wanted:
            return
        stored = []
        # All of them are committed before the first is queued or told of: a driver that is killed
        # in between finds the same proposals, so no search proposes anything twice.
        with self._writer.transaction():
            for item in wanted:
                spec = item.trial.model_dump(mode="json")
                _, trial = self._writer.want(
                    item.place,
                    item.trial.uid,
                    spec,
                    proposal=item.stored_proposal,
                    replace=item.place.role.may_be_replaced,
                )
                stored.append((item, trial))
        for item, trial in stored:
            if trial.state.is_final:
                self._tell(
                    Ended(
                        trial_id=trial.id,
                        uid=trial.uid,
                        places=(item.place,),
                        spec=item.trial,
                        state=trial.state,
                        result=trial.result,
                        cause=trial.cause,
                        reused=True,
                    )
                )
            else:
                self._take_up(trial, item.place)

    def _start(self) -> None:
        """Start waiting trials on free workers; the ledger knows before the worker does."""
        slots = self._backend.free_slots()
        begun = []
        while slots and self._waiting and self._may_start(self._work[self._waiting[0]]):
            trial_id = self._waiting.popleft()
            begun.append((trial_id, slots.pop()))
            self._running.add(trial_id)
        if not begun:
            return
        # The attempt is committed before its worker hears of it: no worker ever runs what the
        # ledger does not know to be running.
        with self._writer.transaction():
            for trial_id, slot in begun:
                attempt = self._writer.start(trial_id, slot.node, slot.pid)
                self._work[trial_id].task = Task(trial_id=trial_id, attempt=attempt)
        for trial_id, slot in begun:
            work = self._work[trial_id]
            assert work.task is not None
            work.heard_at = time.monotonic()
            self._backend.start(slot, work.task, work.spec, alone=work.is_exclusive)
            worker = f"{slot.node}:{slot.pid}"
            self._watcher.started(trial_id, work.places[0], work.spec, worker)

    def _may_start(self, work: _Work) -> bool:
        if work.is_exclusive:
            return not self._running
        return not any(self._work[trial_id].is_exclusive for trial_id in self._running)

    def _patience(self) -> float:
        """Return how long to wait for the backend, having waited for the planner if it is idle."""
        if self._planned is None:
            return WAIT_S
        if self._running or self._backend.running:
            return PLANNING_WAIT_S if self._backend.free_slots() else WAIT_S
        futures.wait([self._planned], timeout=WAIT_S)
        return 0.0

    def _is_over(self) -> bool:
        planning = self._planned is not None or bool(self._told)
        return not planning and not self._work and self._agenda.is_over

    def _collect(self, events: list[Event]) -> None:
        """Record what happened in one transaction, then tell of it."""
        if not events:
            return
        after: list[Callable[[], None]] = []
        with self._writer.transaction():
            for event in events:
                try:
                    follow_up = self._record(event)
                except StaleAttemptError:
                    continue  # a report of an attempt that was given up meanwhile
                if follow_up is not None:
                    after.append(follow_up)
        # Only once it is committed: the agenda must not follow up what is rolled back.
        for follow_up in after:
            follow_up()

    def _record(self, event: Event) -> Callable[[], None] | None:
        """Write one event down; return what is to follow once it is committed."""
        trial_id, attempt = event.task.trial_id, event.task.attempt
        match event:
            case Reported():
                self._writer.report(trial_id, attempt, event.step, event.values, event.at)
                return lambda: self._heard(trial_id, event)
            case Finished():
                try:
                    self._writer.complete(trial_id, attempt, event.result)
                except UnstorableError as error:
                    self._writer.fail(trial_id, attempt, str(error), "the result is not JSON")
                    return self._end(trial_id, TrialState.FAILED, cause=str(error))
                self._stopper.completed(trial_id, self._work[trial_id].places)
                return self._end(trial_id, TrialState.COMPLETED, result=event.result)
            case Failed():
                self._writer.fail(trial_id, attempt, event.error, event.cause)
                return self._end(trial_id, TrialState.FAILED, cause=event.cause)
            case Stopped():
                reason = self._work[trial_id].stop_reason
                if self._work[trial_id].is_cancelled:
                    self._writer.abort(trial_id, attempt, BY_HAND)
                    return self._end(trial_id, TrialState.CANCELLED, cause=BY_HAND)
                self._writer.stop(trial_id, attempt, None, reason)
                return self._end(trial_id, TrialState.STOPPED, cause=reason)
            case Lost():
                state = self._writer.lose(trial_id, attempt, event.loss, event.reason)
                if state.is_final:
                    return self._end(trial_id, state, cause=f"lost: {event.loss}")
                return lambda: self._requeue(trial_id, event)

            case Waits():
                return lambda: self._waits(trial_id, event)
            case StoreAway():
                self._writer.lose(trial_id, attempt, Loss.DRIVER, event.reason)
                return lambda: self._end_of_patience(trial_id, event)

    def _waits(self, trial_id: int, event: Waits) -> None:
        """Take waiting for a sign of life."""
        work = self._work.get(trial_id)
        if work is not None and work.task == event.task:
            work.heard_at = time.monotonic()
            self._watcher.waits(event.reason)

    def _end_of_patience(self, trial_id: int, event: StoreAway) -> None:
        self._running.discard(trial_id)
        self._store_problem = event.reason

    def _heard(self, trial_id: int, event: Reported) -> None:
        """Note a sign of life, and end the trial if it does not look promising."""
        work = self._work.get(trial_id)
        if work is None or work.task != event.task:
            return  # it has ended by now
        work.heard_at = time.monotonic()
        self._watcher.reported(trial_id, event.step)
        reason = self._stopper.reported(trial_id, work.places, event.step, event.values)
        if reason is not None and not work.is_cancelled:
            work.stop_reason = reason
            self._backend.stop(event.task)

    def _requeue(self, trial_id: int, lost: Lost) -> None:
        self._running.discard(trial_id)
        self._work[trial_id].task = None  # a late report of the lost attempt finds no task
        # To the front: its search may wait for this very result to propose anything more.
        self._waiting.appendleft(trial_id)
        self._watcher.lost(trial_id, lost.loss, lost.reason)

    def _give_up_silent(self) -> list[Event]:
        """Take the workers from trials that have been silent for too long."""
        earliest = time.monotonic() - self._hung_after_s
        lost: list[Event] = []
        for trial_id in sorted(self._running):
            work = self._work[trial_id]
            if work.task is not None and work.heard_at < earliest:
                self._backend.abandon(work.task)
                reason = f"no report for {self._hung_after_s:g} s (recovery.hung_after_s)"
                lost.append(Lost(task=work.task, loss=Loss.HUNG, reason=reason))
        return lost

    def _give_up_arms(self) -> None:
        """Cancel what waits of arms that the agenda has given up."""
        for arm in sorted(self._agenda.given_up.keys() - self._given_up):
            self._given_up.add(arm)
            self._watcher.given_up(arm, self._agenda.given_up[arm])
        if self._given_up:
            works = {trial_id: self._work[trial_id] for trial_id in self._waiting}
            arms = {trial_id: {p.arm for p in work.places} for trial_id, work in works.items()}
            doomed = [trial_id for trial_id in works if arms[trial_id] <= self._given_up]
            self._cancel(doomed, "the arm was given up")

    def _look_at_requests(self) -> None:
        """See now and then whether somebody wants the driver to stop, or less of the sweep."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        asked = self._ledger.requests(self._writer.sweep_id)
        if asked.stop_epoch == self._writer.epoch:
            self.stop()
        if asked.cancelled == self._cancelled:
            return
        for arm in sorted(asked.cancelled.arms - self._cancelled.arms):
            self._told.append(self._planner.submit(self._agenda.cancel, arm))
            self._asks = True
        self._cancelled = asked.cancelled
        for trial_id in sorted(self._running):
            work = self._work[trial_id]
            if work.task is not None and self._cancelled.covers(work.uid, work.places):
                work.is_cancelled = True
                self._backend.stop(work.task)
        self._drop_waiting()

    def _drop_waiting(self) -> None:
        """Cancel what waits and was cancelled by hand."""
        if self._cancelled:
            works = {trial_id: self._work[trial_id] for trial_id in self._waiting}
            covers = self._cancelled.covers
            self._cancel([n for n, work in works.items() if covers(work.uid, work.places)], BY_HAND)

    def _cancel(self, trial_ids: list[int], cause: str) -> None:
        for trial_id in self._writer.cancel(trial_ids, cause) if trial_ids else []:
            self._waiting.remove(trial_id)
            self._end(trial_id, TrialState.CANCELLED, cause=cause)()

    def _end(
        self,
        trial_id: int,
        state: TrialState,
        *,
        result: Mapping[str, Any] | None = None,
        cause: str | None = None,
    ) -> Callable[[], None]:
        def end() -> None:
            self._running.discard(trial_id)
            work = self._work.pop(trial_id)
            self._tell(
                Ended(
                    trial_id=trial_id,
                    uid=work.uid,
                    places=tuple(work.places),
                    spec=work.spec,
                    state=state,
                    result=result,
                    cause=cause,
                )
            )

        return end

    def _tell(self, trial: Ended) -> None:
        for place in trial.places:
            told = self._planner.submit(
                self._agenda.ended, place, trial.uid, trial.state, trial.result, trial.cause
            )
            self._told.append(told)
            self._asks = True
        self._watcher.ended(trial)

    def _give_back(self) -> None:
        """Make running trials pending again; being stopped in good order costs them nothing."""
        with self._writer.transaction():
            for trial_id in sorted(self._running):
                task = self._work[trial_id].task
                if task is not None:
                    reason = "the driver was stopped"
                    self._writer.lose(trial_id, task.attempt, Loss.DRIVER, reason)
