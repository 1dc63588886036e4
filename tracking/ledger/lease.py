"""The lease on a sweep: one driver at a time, and a dead one loses it.

It is a row with an end that its driver keeps putting off, by the database's clock. Whoever finds it
expired, or its process ended, takes the sweep over. The lease keeps drivers from getting into each
other's way; that a late one changes nothing is the epoch's part, whatever any clock says.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from tracking.errors import LedgerError, SweepHeldError
from tracking.ledger.database import Database
from tracking.ledger.tables import leases
from tracking.processes import Process, has_ended
from tracking.records import LeaseRecord

LEASE_S = 60.0  #: How long a driver that is not heard of keeps its sweep.
#: A lease that seems longer was taken before a clock was put back.
LONGEST = timedelta(minutes=10)
_BEATS = 4  #: Times a lease is renewed before it would end.


class Lease:
    """A driver's hold on a sweep; made by :func:`take`."""

    def __init__(self, database: Database, sweep_id: int, driver: str, lease_s: float) -> None:
        self.is_lost = False  #: Another driver has taken the sweep, as far as is known here.
        self._database, self._lease_s = database, lease_s
        self._mine = (leases.c.sweep_id == sweep_id, leases.c.driver == driver)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease beside the block, and give the sweep free at its end."""
        ended = threading.Event()
        heart = threading.Thread(target=self._beat, args=(ended,), name="lease", daemon=True)
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()
            with suppress(LedgerError):  # then it expires
                self.release()

    def renew(self) -> None:
        """Put the end of the lease off, or notice that it is lost."""
        with self._database.write() as connection:
            until = self._database.clock(connection) + timedelta(seconds=self._lease_s)
            renewed = connection.execute(
                sa.update(leases).where(*self._mine).values(expires_at=until)
            )
            self.is_lost = renewed.rowcount == 0

    def say(self, note: Mapping[str, Any]) -> None:
        """Leave word of the driver for those who ask where its sweep stands."""
        with self._database.write() as connection:
            connection.execute(sa.update(leases).where(*self._mine).values(note=dict(note)))

    def release(self) -> None:
        """Let another driver have the sweep at once."""
        with self._database.write() as connection:
            connection.execute(sa.delete(leases).where(*self._mine))

    def _beat(self, ended: threading.Event) -> None:
        while not self.is_lost and not ended.wait(self._lease_s / _BEATS):
            with suppress(LedgerError):  # an outage: the next beat tries again
                self.renew()


def take(
    database: Database,
    connection: sa.Connection,
    sweep_id: int,
    name: str,
    process: Process,
    *,
    lease_s: float,
    by_force: bool,
) -> Lease:
    """Take the lease on a sweep, in a transaction that holds the sweep's row.

    Raises:
        SweepHeldError: A driver that may be alive holds it, and it is not taken by force.
    """
    held = read(database, connection, sweep_id)
    if held is not None and not held.is_over and not by_force:
        raise SweepHeldError(name, held)
    now = database.clock(connection)
    driver = uuid4().hex
    connection.execute(sa.delete(leases).where(leases.c.sweep_id == sweep_id))
    connection.execute(
        sa.insert(leases),
        {
            "sweep_id": sweep_id,
            "driver": driver,
            "host": process.host,
            "pid": process.pid,
            "place": process.place,
            "birth": process.birth,
            "taken_at": now,
            "expires_at": now + timedelta(seconds=lease_s),
        },
    )
    return Lease(database, sweep_id, driver, lease_s)


def read(database: Database, connection: sa.Connection, sweep_id: int) -> LeaseRecord | None:
    """Return who holds a sweep; None: nobody."""
    statement = sa.select(leases).where(leases.c.sweep_id == sweep_id)
    row: Any = connection.execute(statement).one_or_none()
    if row is None:
        return None
    process = Process(host=row.host, pid=row.pid, place=row.place, birth=row.birth)
    left = row.expires_at - database.clock(connection)
    expired = not timedelta(0) < left <= LONGEST
    return LeaseRecord(
        driver=row.driver,
        process=process,
        taken_at=row.taken_at,
        expires_at=row.expires_at,
        is_over=expired or has_ended(process),
        note=row.note,
    )
