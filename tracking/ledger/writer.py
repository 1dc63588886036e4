"""The one way to change a sweep's records: fenced, in transactions, one state machine."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import sqlalchemy as sa

from tracking.cancellations import Cancellations
from tracking.errors import (
    EntryConflictError,
    FencedError,
    StaleAttemptError,
    TransitionError,
    UnknownTrialError,
    UnstorableError,
)
from tracking.ledger import requests, statements
from tracking.ledger.database import Database
from tracking.ledger.lease import Lease
from tracking.ledger.states import TRANSITIONS, Transition, move
from tracking.ledger.storable import check_json, clean
from tracking.ledger.tables import entry_of, metrics, sweeps
from tracking.places import Place
from tracking.records import (
    EntryRecord,
    Loss,
    Outcome,
    SweepState,
    TrialRecord,
    TrialState,
)

_FRESH = {"error": None, "cause": None, "losses": 0}
BY_HAND = "cancelled by hand"  #: Cause of what is not run any more.
MAX_LOSSES = 3  #: Attempts a trial may lose by what may be its own doing before it has failed.
MAX_NODES = 10  #: Machines in a row that may die under a trial before it is taken for the cause.


class SweepWriter:
    """Writes one sweep's records for the driver that holds its epoch; made by `Ledger.take_over`.

    Each method is one transaction, or part of the surrounding ``with writer.transaction():``.
    Every transaction first checks that the epoch is still held, so a driver that was replaced
    changes nothing. What a method refuses, it refuses before it has changed anything. Safe to
    share between threads: transactions take turns.

    Raises (every method):
        FencedError: Another driver has taken the sweep over.
        LedgerUnreachableError: The database does not answer; nothing was written.
    """

    def __init__(
        self,
        database: Database,
        *,
        sweep_id: int,
        name: str,
        epoch: int,
        lease: Lease,
        max_losses: int,
    ) -> None:
        self.sweep_id, self.name, self.epoch = sweep_id, name, epoch
        self.lease = lease  #: To be kept while the driver works: ``with writer.lease.kept():``.
        self._database, self._max_losses = database, max_losses
        self._add_metrics = database.insert_unless_there(metrics)
        self._lock = threading.RLock()
        self._connection: sa.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything written in the block at once, or, when it raises, nothing of it.

        Keep the block short: other writers wait for it, and `Ledger` reads do not see into it.
        """
        with self._writing():
            yield

    def check(self) -> None:
        """Raise once the lease is known to be lost, or the ledger's file to be gone.

        It asks the database nothing before that.
        """
        self._database.check_place()
        if self.lease.is_lost:
            with self._writing():
                pass

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._lock:
            if self._connection is not None:
                yield self._connection
                return
            with self._database.write() as connection:
                # In the transaction and before its first change: SQLite has given it the write
                # lock, PostgreSQL locks the row here; so a take-over comes before all of it or
                # after all of it.
                self._check_epoch(connection)
                self._connection = connection
                try:
                    yield connection
                finally:
                    self._connection = None

    def _check_epoch(self, connection: sa.Connection) -> None:
        held = connection.execute(statements.EPOCH, {"sweep": self.sweep_id}).one()
        if held.epoch != self.epoch:
            raise FencedError(self.name, self.epoch, held.epoch, held.owner)

    def want(
        self,
        place: Place,
        uid: str,
        spec: dict[str, Any],
        *,
        proposal: dict[str, Any] | None = None,
        replace: bool = False,
    ) -> tuple[EntryRecord, TrialRecord]:
        """Find or add an entry and the trial it asks for.

        Asking again for the same entry finds it unchanged. Another entry with the same ``uid``
        joins the trial. A trial whose content was completed in any sweep is born completed.

        Args:
            place: What wants a trial.
            uid: Content hash of the trial.
            spec: What is run.
            proposal: Of a search: what rebuilds the sampler, params and its attributes.
            replace: Let a recorded entry point at another trial from now on, as when an extended
                search has a new winner; the trial before stays in the ledger.

        Raises:
            EntryConflictError: The entry is recorded with another ``uid``, without ``replace``.
            UnstorableError: ``spec`` or the proposal is not JSON.
        """
        check_json(f"The specification of {place}", spec)
        check_json(f"The proposal of {place}", proposal)
        where = {"sweep_id": self.sweep_id, **asdict(place)}
        with self._writing() as connection:
            row = connection.execute(statements.ENTRY_AT, where).one_or_none()
            if row is not None:
                trial = connection.execute(statements.TRIAL, {"trial": row.trial_id}).one()
                if trial.uid == uid:
                    return entry_of(row), TrialRecord(**trial._mapping)
                if not replace:
                    raise EntryConflictError(str(place), trial.uid, uid)
                connection.execute(statements.DROP_ENTRY, {"entry": row.id})
                connection.execute(statements.TOUCH_TRIAL, {"trial": trial.id})
            now = datetime.now(UTC)
            same = {"sweep": self.sweep_id, "content": uid}
            trial = connection.execute(
                statements.JOIN_TRIAL, same
            ).one_or_none() or self._add_trial(connection, uid, spec, now)
            values = where | {"trial_id": trial.id, "proposal": proposal, "at": now}
            row = connection.execute(statements.ADD_ENTRY, values).one()
            return entry_of(row), TrialRecord(**trial._mapping)

    def _add_trial(
        self, connection: sa.Connection, uid: str, spec: dict[str, Any], now: datetime
    ) -> "sa.Row[Any]":
        done = connection.execute(statements.COMPLETED, {"content": uid}).one_or_none()
        values = {
            "sweep_id": self.sweep_id,
            "uid": uid,
            "spec": spec,
            "state": TrialState.COMPLETED if done else TrialState.PENDING,
            "attempt": 0,
            "losses": 0,
            "result": done.result if done else None,
            "reused_from": done.id if done else None,
            "created_at": now,
            "ended_at": now if done else None,
            "rev": 1,
            "published_rev": 0,
        }
        return connection.execute(statements.ADD_TRIAL, values).one()

    def start(self, trial_id: int, node: str, pid: int) -> int:
        """Begin the next attempt at a pending trial and return its number, from 1.

        Raises:
            TransitionError: The trial is not pending.
            UnknownTrialError: It is not one of this sweep's.
        """
        now = datetime.now(UTC)
        with self._writing() as connection:
            moved = move(
                connection,
                Transition.START,
                {"id": trial_id, "sweep_id": self.sweep_id},
                attempt=1,
                started_at=now,
            )
            if not moved:
                state = self._trial(connection, trial_id).state
                raise TransitionError(
                    trial_id, state, Transition.START, TRANSITIONS[Transition.START][0]
                )
            n = moved[0].attempt
            values = {"trial_id": trial_id, "n": n, "node": node, "pid": pid, "started_at": now}
            connection.execute(statements.ADD_ATTEMPT, values)
            return int(n)

    def report(
        self, trial_id: int, attempt: int, step: int, values: Mapping[str, float], at: datetime
    ) -> None:
        """Record the values of one step; a value already recorded for that step stands.

        Raises:
            StaleAttemptError: ``attempt`` is not the one that runs.
            UnstorableError: ``at`` has no time zone.
        """
        if at.tzinfo is None:
            raise UnstorableError(f"The time of trial {trial_id}, step {step}", f"{at} is naive")
        points = [
            {
                "trial_id": trial_id,
                "attempt": attempt,
                "step": step,
                "key": key,
                "value": float(value),
                "at": at,
            }
            for key, value in values.items()
        ]
        with self._writing() as connection:
            self._advance(connection, Transition.REPORT, trial_id, attempt)
            if points:
                connection.execute(self._add_metrics, points)

    def complete(self, trial_id: int, attempt: int, result: dict[str, Any]) -> None:
        """Record the result of a trial that ran to its end.

        Raises:
            StaleAttemptError: ``attempt`` is not the one that runs.
            UnstorableError: ``result`` is not JSON.
        """
        self._end(Transition.COMPLETE, Outcome.COMPLETED, trial_id, attempt, result=result)

    def stop(self, trial_id: int, attempt: int, result: dict[str, Any] | None, reason: str) -> None:
        """Record that a trial was ended early, with what it had reached by then.

        Raises:
            StaleAttemptError: ``attempt`` is not the one that runs.
            UnstorableError: ``result`` is not JSON.
        """
        self._end(
            Transition.STOP,
            Outcome.STOPPED,
            trial_id,
            attempt,
            why=reason,
            result=result,
            cause=reason,
        )

    def fail(self, trial_id: int, attempt: int, error: str, cause: str) -> None:
        """Record that a trial went wrong: ``error`` for people, ``cause`` as one word or line.

        Raises:
            StaleAttemptError: ``attempt`` is not the one that runs.
        """
        self._end(
            Transition.FAIL, Outcome.FAILED, trial_id, attempt, why=error, error=error, cause=cause
        )

    def lose(self, trial_id: int, attempt: int, loss: Loss, reason: str) -> TrialState:
        """Record that an attempt did not come to an end of its own; return the trial's new state.

        It is pending again, or failed when this was the last loss it had left: of those it may be
        to blame for, or of machines that died under it one after another.

        Raises:
            StaleAttemptError: ``attempt`` is not the one that runs.
        """
        with self._writing() as connection:
            trial = self._trial(connection, trial_id)
            losses = trial.losses + loss.may_be_its_own
            changes: dict[str, Any] = {"losses": int(loss.may_be_its_own)}
            transition = Transition.LOSE
            if (loss.may_be_its_own and losses >= self._max_losses) or (
                loss is Loss.NODE and self._nodes_lost(connection, trial_id) + 1 >= MAX_NODES
            ):
                transition = Transition.GIVE_UP
                changes["cause"] = f"lost: {loss}"
                changes["error"] = f"Attempt {attempt} was lost too, and no more are made: {reason}"
            self._end(transition, Outcome.LOST, trial_id, attempt, why=reason, loss=loss, **changes)
            return TRANSITIONS[transition][1]

    @staticmethod
    def _nodes_lost(connection: sa.Connection, trial_id: int) -> int:
        """Count the attempts that were lost with their machine since the last that was not."""
        losses = connection.execute(
            statements.LOSSES, {"trial": trial_id, "most": MAX_NODES}
        ).scalars()
        return sum(1 for _ in takewhile(lambda loss: loss == Loss.NODE, losses))

    def abort(self, trial_id: int, attempt: int, cause: str) -> None:
        """Record that a trial was cancelled while it ran.

        Raises:
            StaleAttemptError: ``attempt`` is not the one that runs.
        """
        self._end(Transition.ABORT, Outcome.CANCELLED, trial_id, attempt, why=cause, cause=cause)

    def retry_failed(self) -> int:
        """Make failed trials pending again as if new, and those of arms that were given up.

        Returns:
            How many; what was cancelled by hand is left alone.
        """
        sweep = {"sweep_id": self.sweep_id}
        with self._writing() as connection:
            retried = len(move(connection, Transition.RETRY, sweep, **_FRESH))
            return retried + self._revive(connection, requests.cancelled(connection, self.sweep_id))

    def restore(self) -> int:
        """Take back all that was cancelled by hand; return how many trials are pending again."""
        with self._writing() as connection:
            requests.restore(connection, self.sweep_id)
            return self._revive(connection, Cancellations())

    def _revive(self, connection: sa.Connection, kept: Cancellations) -> int:
        """Make cancelled trials pending again, but for those that ``kept`` covers."""
        trials = requests.open_trials(connection, self.sweep_id, TrialState.CANCELLED)
        again = [trial for trial, uid, places in trials if not kept.covers(uid, places)]
        for trial in again:
            which = {"id": trial, "sweep_id": self.sweep_id}
            move(connection, Transition.REVIVE, which, **_FRESH)
        return len(again)

    def cancel_pending(self, cancelled: Cancellations) -> int:
        """Cancel what has not begun of what was cancelled by hand; return how many trials."""
        with self._writing() as connection:
            trials = requests.open_trials(connection, self.sweep_id, TrialState.PENDING)
            doomed = [trial for trial, uid, places in trials if cancelled.covers(uid, places)]
            return len(self.cancel(doomed, BY_HAND))

    def cancel(self, trial_ids: Iterable[int], cause: str) -> list[int]:
        """Cancel trials that have not begun; return which: those that have are left alone."""
        cause = clean(cause)
        with self._writing() as connection:
            return [
                row.id
                for trial_id in trial_ids
                for row in move(
                    connection,
                    Transition.CANCEL,
                    {"id": trial_id, "sweep_id": self.sweep_id},
                    cause=cause,
                )
            ]

    def set_state(self, state: SweepState | str) -> None:
        """Record where the sweep stands."""
        self._change_sweep(state=SweepState(state))

    def interrupt(self) -> None:
        """Record that the sweep was stopped, unless it is over: said twice, it changes nothing."""
        self._change_sweep(sweeps.c.state == SweepState.RUNNING, state=SweepState.INTERRUPTED)

    def set_artifacts(self, artifacts: Mapping[str, str]) -> None:
        """Record the sweep's files: name -> path relative to the artifact store; replaces all."""
        self._change_sweep(artifacts=dict(artifacts))

    def amend_spec(
        self, spec: dict[str, Any], spec_hash: str, extension: dict[str, Any] | None = None
    ) -> None:
        """Replace what was asked for, as when a sweep is extended.

        Args:
            spec: All that is asked for from now on.
            spec_hash: Name of its content.
            extension: The request that changed it, open until :meth:`fulfil`; None: as it was.

        Raises:
            UnstorableError: ``spec`` is not JSON.
        """
        check_json(f"The specification of sweep {self.name!r}", spec)
        request = {} if extension is None else {"extension": extension}
        self._change_sweep(spec=spec, spec_hash=spec_hash, **request)

    def fulfil(self) -> None:
        """Close the request to extend the sweep: made again, it is another one."""
        self._change_sweep(extension=None)

    def _change_sweep(self, *where: sa.ColumnElement[bool], **changes: Any) -> None:
        with self._writing() as connection:
            connection.execute(
                sa.update(sweeps)
                .where(sweeps.c.id == self.sweep_id, *where)
                .values(rev=sweeps.c.rev + 1, **changes)
            )

    def _end(
        self,
        transition: Transition,
        outcome: Outcome,
        trial_id: int,
        attempt: int,
        *,
        why: str | None = None,
        loss: Loss | None = None,
        result: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        if result is not None:
            check_json(f"The result of trial {trial_id}", result)
            changes["result"] = result
        for name in changes.keys() & {"error", "cause"}:
            changes[name] = clean(changes[name])
        with self._writing() as connection:
            self._advance(connection, transition, trial_id, attempt, **changes)
            closing = {
                "trial": trial_id,
                "attempt": attempt,
                "how": outcome,
                "loss": loss,
                "why": why and clean(why),
                "now": datetime.now(UTC),
            }
            connection.execute(statements.CLOSE_ATTEMPT, closing)

    def _advance(
        self,
        connection: sa.Connection,
        transition: Transition,
        trial_id: int,
        attempt: int,
        **changes: Any,
    ) -> None:
        """Move the trial, provided ``attempt`` is its latest and it runs."""
        which = {"id": trial_id, "sweep_id": self.sweep_id, "attempt": attempt}
        if not move(connection, transition, which, **changes):
            trial = self._trial(connection, trial_id)
            raise StaleAttemptError(trial_id, attempt, trial.state, trial.attempt)

    def _trial(self, connection: sa.Connection, trial_id: int) -> "sa.Row[Any]":
        row = connection.execute(statements.TRIAL, {"trial": trial_id}).one_or_none()
        if row is None or row.sweep_id != self.sweep_id:
            raise UnknownTrialError(trial_id, f"sweep {self.name!r}")
        return row
