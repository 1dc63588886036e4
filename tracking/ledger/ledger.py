"""The ledger: what every sweep asked for, what ran, what came out.

It is the truth about a sweep; Optuna proposes, Ray runs and MLflow shows. Reading is open to
everyone, writing goes through a `SweepWriter`, held by one driver at a time.
"""

from datetime import UTC, datetime
from difflib import get_close_matches
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from tracking.cancellations import Cancellations
from tracking.errors import SweepExistsError, UnknownSweepError, UnknownTrialError, UnstorableError
from tracking.ledger import requests
from tracking.ledger.database import Database
from tracking.ledger.lease import LEASE_S
from tracking.ledger.lease import read as read_lease
from tracking.ledger.lease import take as take_lease
from tracking.ledger.requests import Requests
from tracking.ledger.statements import COMPLETED
from tracking.ledger.states import Transition, move
from tracking.ledger.storable import clean
from tracking.ledger.tables import attempts, encode, entries, entry_of, metrics, sweeps, trials
from tracking.ledger.writer import MAX_LOSSES, SweepWriter
from tracking.processes import Process, this_process
from tracking.records import (
    AttemptRecord,
    EntryRecord,
    LeaseRecord,
    Loss,
    MetricPoint,
    Outcome,
    SweepRecord,
    SweepState,
    TrialRecord,
    TrialState,
)


class Ledger:
    """Reads records, creates sweeps and hands out writers. Safe to share between threads.

    Raises (every method):
        LedgerUnreachableError: The database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open the ledger at a database URL; the first opener creates folder and tables.

        Args:
            url: ``sqlite:///path/to/ledger.db`` (a local disk, not a network share) or
                ``postgresql+psycopg://user@host/database``.
            create: Whether to make a ledger where there is none.

        Raises:
            LedgerUrlError: The URL is not of these kinds.
            MissingLedgerError: There is no ledger, and none is to be made.
            LedgerAwayError: There is none, though one was made there: it is not made anew.
            LedgerUnreachableError: The database does not answer within seconds, or refuses.
            LedgerSchemaError: It holds tables of another version, or another program's.
        """
        database = Database(url)
        try:
            database.prepare(create=create)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def url(self) -> str:
        """Where the ledger lives, without passwords."""
        return self.database.url

    def __repr__(self) -> str:
        return f"Ledger({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()

    def create_sweep(self, name: str, spec: dict[str, Any], spec_hash: str) -> SweepRecord:
        """Record a new sweep.

        Raises:
            SweepExistsError: The name is taken.
            UnstorableError: ``spec`` is not JSON.
        """
        try:
            encode(spec)
        except (TypeError, ValueError) as error:
            raise UnstorableError(f"The specification of sweep {name!r}", str(error)) from error
        values = {
            "name": name,
            "spec": spec,
            "spec_hash": spec_hash,
            "state": SweepState.RUNNING,
            "epoch": 0,
            "artifacts": {},
            "created_at": datetime.now(UTC),
            "rev": 1,
            "published_rev": 0,
        }
        statement = self.database.insert_unless_there(sweeps).returning(*sweeps.c)
        with self.database.write() as connection:
            row = connection.execute(statement, values).one_or_none()
        if row is None:
            raise SweepExistsError(name)
        return SweepRecord(**row._mapping)

    def sweep(self, name: str) -> SweepRecord:
        """Return the sweep of this name.

        Raises:
            UnknownSweepError: There is none.
        """
        with self.database.read() as connection:
            row = connection.execute(sa.select(sweeps).where(sweeps.c.name == name)).one_or_none()
            if row is None:
                raise self._unknown(connection, name)
        return SweepRecord(**row._mapping)

    def sweeps(self) -> list[SweepRecord]:
        """Return every sweep, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(sweeps).order_by(sweeps.c.id)).all()
        return [SweepRecord(**row._mapping) for row in rows]

    def take_over(
        self,
        name: str,
        owner: str,
        *,
        process: Process | None = None,
        lease_s: float = LEASE_S,
        by_force: bool = False,
        max_losses: int = MAX_LOSSES,
    ) -> SweepWriter:
        """Become the one driver of a sweep, fencing off the one before.

        Attempts the old driver left open are lost and their trials pending again; that never fails
        a trial.

        Args:
            name: The sweep.
            owner: Who writes from now on, for messages: host and process, say.
            process: Whose life the lease hangs on; this one by default.
            lease_s: How long the sweep is held without a sign of life; see `SweepWriter.lease`.
            by_force: Take it from a driver that lives, too; that one is fenced.
            max_losses: Attempts a trial may lose by what may be its own doing before it has failed.

        Raises:
            UnknownSweepError: There is no such sweep.
            SweepHeldError: Another driver holds it, and may be alive.
        """
        owner = clean(owner)
        statement = (
            sa.update(sweeps)
            .where(sweeps.c.name == name)
            .values(
                epoch=sweeps.c.epoch + 1,
                owner=owner,
                state=SweepState.RUNNING,
                rev=sweeps.c.rev + 1,
            )
            .returning(sweeps.c.id, sweeps.c.epoch)
        )
        with self.database.write() as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                raise self._unknown(connection, name)
            lease = take_lease(
                self.database,
                connection,
                row.id,
                name,
                process or this_process(),
                lease_s=lease_s,
                by_force=by_force,
            )
            running = sa.select(trials.c.id).where(
                trials.c.sweep_id == row.id, trials.c.state == TrialState.RUNNING
            )
            why = f"the driver was replaced by {owner}"
            connection.execute(
                sa.update(attempts)
                .where(attempts.c.trial_id.in_(running), attempts.c.outcome.is_(None))
                .values(
                    outcome=Outcome.LOST,
                    loss=Loss.DRIVER,
                    error=why,
                    ended_at=datetime.now(UTC),
                )
            )
            move(connection, Transition.LOSE, {"sweep_id": row.id})
        return SweepWriter(
            self.database,
            sweep_id=row.id,
            name=name,
            epoch=row.epoch,
            lease=lease,
            max_losses=max_losses,
        )

    def lease(self, sweep_id: int) -> LeaseRecord | None:
        """Return who drives a sweep; None: nobody."""
        with self.database.read() as connection:
            return read_lease(self.database, connection, sweep_id)

    def requests(self, sweep_id: int) -> Requests:
        """Return what is asked of a sweep's driver from beside it."""
        with self.database.read() as connection:
            return requests.read(connection, sweep_id)

    def ask_to_stop(self, sweep_id: int) -> None:
        """Ask the present driver of a sweep to stop; those after it do not hear of it."""
        with self.database.write() as connection:
            requests.stop(connection, sweep_id)

    def ask_to_cancel(self, sweep_id: int, what: Cancellations) -> None:
        """Note what is not to be run any more; its driver, or the next one, sees to it."""
        with self.database.write() as connection:
            requests.cancel(connection, sweep_id, what)

    def trial(self, trial_id: int) -> TrialRecord:
        """Return one trial.

        Raises:
            UnknownTrialError: There is none of this number.
        """
        with self.database.read() as connection:
            row = connection.execute(sa.select(trials).where(trials.c.id == trial_id)).one_or_none()
        if row is None:
            raise UnknownTrialError(trial_id, "this ledger")
        return TrialRecord(**row._mapping)

    def trials(self, sweep_id: int, state: TrialState | None = None) -> list[TrialRecord]:
        """Return a sweep's trials, or those in one state, in the order they were first wanted."""
        statement = sa.select(trials).where(trials.c.sweep_id == sweep_id).order_by(trials.c.id)
        if state is not None:
            statement = statement.where(trials.c.state == state)
        with self.database.read() as connection:
            rows = connection.execute(statement).all()
        return [TrialRecord(**row._mapping) for row in rows]

    def counts(self, sweep_id: int) -> dict[TrialState, int]:
        """Return how many of a sweep's trials are in each state; every state is there."""
        statement = (
            sa.select(trials.c.state, sa.func.count().label("number"))
            .where(trials.c.sweep_id == sweep_id)
            .group_by(trials.c.state)
        )
        with self.database.read() as connection:
            found = {row.state: row.number for row in connection.execute(statement)}
        return {state: found.get(state, 0) for state in TrialState}

    def places(self, sweep_id: int) -> dict[TrialState, int]:
        """Return how many places of a sweep have a trial in each state; every state is there."""
        statement = (
            sa.select(trials.c.state, sa.func.count().label("number"))
            .join(entries, entries.c.trial_id == trials.c.id)
            .where(entries.c.sweep_id == sweep_id)
            .group_by(trials.c.state)
        )
        with self.database.read() as connection:
            found = {row.state: row.number for row in connection.execute(statement)}
        return {state: found.get(state, 0) for state in TrialState}

    def entries(self, sweep_id: int) -> list[EntryRecord]:
        """Return a sweep's entries, in the order they were wanted."""
        statement = sa.select(entries).where(entries.c.sweep_id == sweep_id)
        with self.database.read() as connection:
            rows = connection.execute(statement.order_by(entries.c.id)).all()
        return [entry_of(row) for row in rows]

    def attempts(self, sweep_id: int) -> list[AttemptRecord]:
        """Return every attempt at a sweep's trials, by trial and number."""
        statement = (
            sa.select(attempts)
            .join(trials, trials.c.id == attempts.c.trial_id)
            .where(trials.c.sweep_id == sweep_id)
            .order_by(attempts.c.trial_id, attempts.c.n)
        )
        with self.database.read() as connection:
            rows = connection.execute(statement).all()
        return [AttemptRecord(**row._mapping) for row in rows]

    def metrics(self, trial_id: int, attempt: int | None = None) -> list[MetricPoint]:
        """Return the curves of one attempt, by step and key; of the latest where none is named."""
        latest = sa.select(trials.c.attempt).where(trials.c.id == trial_id).scalar_subquery()
        statement = (
            sa.select(metrics.c.step, metrics.c.key, metrics.c.value, metrics.c.at)
            .where(
                metrics.c.trial_id == trial_id,
                metrics.c.attempt == (latest if attempt is None else attempt),
            )
            .order_by(metrics.c.step, metrics.c.key)
        )
        with self.database.read() as connection:
            rows = connection.execute(statement).all()
        return [MetricPoint(**row._mapping) for row in rows]

    def curves(self, sweep_id: int) -> list[tuple[int, MetricPoint]]:
        """Return the curves of the latest attempts, as number of the trial and point, in order."""
        at = metrics.c
        statement = (
            sa.select(at.trial_id, at.step, at.key, at.value, at.at)
            .join(trials, sa.and_(trials.c.id == at.trial_id, trials.c.attempt == at.attempt))
            .where(trials.c.sweep_id == sweep_id)
            .order_by(at.trial_id, at.step, at.key)
        )
        with self.database.read() as connection:
            rows = connection.execute(statement).all()
        return [
            (row.trial_id, MetricPoint(step=row.step, key=row.key, value=row.value, at=row.at))
            for row in rows
        ]

    def find_completed(self, uid: str) -> TrialRecord | None:
        """Return the first completed trial of this content, in whichever sweep it ran."""
        with self.database.read() as connection:
            row = connection.execute(COMPLETED, {"content": uid}).one_or_none()
        return None if row is None else TrialRecord(**row._mapping)

    @staticmethod
    def _unknown(connection: sa.Connection, name: str) -> UnknownSweepError:
        known = connection.execute(sa.select(sweeps.c.name)).scalars().all()
        return UnknownSweepError(name, next(iter(get_close_matches(name, known, n=1)), None))
