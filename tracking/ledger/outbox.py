"""What MLflow has not been shown yet: the records whose ``rev`` is ahead of what was published.

The outbox is level-triggered: a publisher shows the present state of a record and then marks the
``rev`` it had read. It may crash, lag or begin again at any time, and still ends up right.
"""

from typing import Any

import sqlalchemy as sa

from tracking.ledger.ledger import Ledger
from tracking.ledger.tables import attempts, entries, entry_of, sweeps, trials
from tracking.records import AttemptRecord, EntryRecord, MetricPoint, SweepRecord, TrialRecord

# written as in the partial index, so that it serves
_SWEEP_AHEAD = sweeps.c.rev > sweeps.c.published_rev
_TRIAL_AHEAD = trials.c.rev > trials.c.published_rev


class Outbox:
    """Unpublished records, and the marks a publisher leaves on them.

    Marks are not fenced and do not raise ``rev``: they say where a record is shown, not what
    happened.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._database = ledger.database

    def dirty_sweeps(self) -> list[SweepRecord]:
        """Return the sweeps whose own record changed, oldest first."""
        statement = sa.select(sweeps).where(_SWEEP_AHEAD).order_by(sweeps.c.id)
        return [SweepRecord(**row._mapping) for row in self._read(statement)]

    def dirty_trials(self, sweep_id: int | None = None, limit: int = 200) -> list[TrialRecord]:
        """Return trials that changed, of one sweep or of all: oldest sweep and trial first."""
        oldest_first = (trials.c.sweep_id, trials.c.id)
        statement = sa.select(trials).where(_TRIAL_AHEAD).order_by(*oldest_first).limit(limit)
        if sweep_id is not None:
            statement = statement.where(trials.c.sweep_id == sweep_id)
        return [TrialRecord(**row._mapping) for row in self._read(statement)]

    def attempts_of(self, trial_id: int) -> list[AttemptRecord]:
        """Return a trial's attempts in order; none where the result was reused."""
        statement = (
            sa.select(attempts).where(attempts.c.trial_id == trial_id).order_by(attempts.c.n)
        )
        return [AttemptRecord(**row._mapping) for row in self._read(statement)]

    def metrics_of(self, trial_id: int, attempt: int) -> list[MetricPoint]:
        """Return the curves of one attempt, by step and key."""
        return self._ledger.metrics(trial_id, attempt)

    def entries_of(self, trial_id: int) -> list[EntryRecord]:
        """Return the entries that point at a trial, in the order they were wanted."""
        statement = sa.select(entries).where(entries.c.trial_id == trial_id).order_by(entries.c.id)
        return [entry_of(row) for row in self._read(statement)]

    def set_run(self, trial_id: int, attempt: int, run_id: str) -> None:
        """Remember the run that shows an attempt."""
        which = (attempts.c.trial_id == trial_id) & (attempts.c.n == attempt)
        self._write(sa.update(attempts).where(which).values(run_id=run_id))

    def mark_published(self, trial_id: int, rev: int) -> None:
        """Remember that a trial is shown as it was at ``rev``; never goes back."""
        which = (trials.c.id == trial_id) & (trials.c.published_rev < rev)
        self._write(sa.update(trials).where(which).values(published_rev=rev))

    def set_sweep_run(self, sweep_id: int, experiment_id: str, run_id: str) -> None:
        """Remember the experiment and the parent run that show a sweep."""
        self._write(
            sa.update(sweeps)
            .where(sweeps.c.id == sweep_id)
            .values(experiment_id=experiment_id, run_id=run_id)
        )

    def mark_sweep_published(self, sweep_id: int, rev: int) -> None:
        """Remember that a sweep is shown as it was at ``rev``; never goes back."""
        which = (sweeps.c.id == sweep_id) & (sweeps.c.published_rev < rev)
        self._write(sa.update(sweeps).where(which).values(published_rev=rev))

    def pending(self) -> int:
        """Return how many sweeps and trials are still to be published."""
        sweeps_ahead = sa.select(sa.func.count()).select_from(sweeps).where(_SWEEP_AHEAD)
        trials_ahead = sa.select(sa.func.count()).select_from(trials).where(_TRIAL_AHEAD)
        statement = sa.select(sweeps_ahead.scalar_subquery() + trials_ahead.scalar_subquery())
        return int(self._read(statement)[0][0])

    def reset(self, sweep_id: int) -> None:
        """Have a sweep and all its trials published again."""
        self._write(
            sa.update(sweeps).where(sweeps.c.id == sweep_id).values(published_rev=0),
            sa.update(trials).where(trials.c.sweep_id == sweep_id).values(published_rev=0),
        )

    def _read(self, statement: "sa.Select[Any]") -> "list[sa.Row[Any]]":
        with self._database.read() as connection:
            return list(connection.execute(statement).all())

    def _write(self, *statements: sa.Update) -> None:
        with self._database.write() as connection:
            for statement in statements:
                connection.execute(statement)
