"""What is asked of a sweep from beside its driver: to stop, and not to run some of it any more.

Requests are not fenced, as whoever makes them drives nothing. They only note what is wanted; the
driver looks every second, and does it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tracking.cancellations import Cancellations
from tracking.ledger.tables import entries, sweeps, trials
from tracking.places import Place
from tracking.records import TrialState

_PARTS = ("role", "arm", "target", "index")


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """What is asked of a sweep's driver."""

    stop_epoch: int | None  #: The driver of this epoch is to stop.
    cancelled: Cancellations


def read(connection: sa.Connection, sweep_id: int) -> Requests:
    """Return what is asked of a sweep's driver."""
    statement = sa.select(sweeps.c.stop_epoch, sweeps.c.cancelled).where(sweeps.c.id == sweep_id)
    row = connection.execute(statement).one()
    return Requests(stop_epoch=row.stop_epoch, cancelled=Cancellations.read(row.cancelled))


def stop(connection: sa.Connection, sweep_id: int) -> None:
    """Ask the present driver to stop."""
    _change(connection, sweep_id, stop_epoch=sweeps.c.epoch)


def cancelled(connection: sa.Connection, sweep_id: int) -> Cancellations:
    """Return what was cancelled by hand."""
    return read(connection, sweep_id).cancelled


def cancel(connection: sa.Connection, sweep_id: int, what: Cancellations) -> None:
    """Add to what was cancelled, in a transaction that waits for others that do."""
    lock = sa.select(sweeps.c.id).where(sweeps.c.id == sweep_id).with_for_update()
    connection.execute(lock)
    before = cancelled(connection, sweep_id)
    if (now := before | what) != before:
        _change(connection, sweep_id, cancelled=now.to_json(), rev=sweeps.c.rev + 1)


def restore(connection: sa.Connection, sweep_id: int) -> None:
    """Forget what was cancelled."""
    _change(connection, sweep_id, cancelled=None, rev=sweeps.c.rev + 1)


def open_trials(
    connection: sa.Connection, sweep_id: int, state: TrialState
) -> list[tuple[int, str, Sequence[Place]]]:
    """Return id, name and places of a sweep's trials in one state."""
    statement = (
        sa.select(entries, trials.c.uid)
        .join(trials, trials.c.id == entries.c.trial_id)
        .where(trials.c.sweep_id == sweep_id, trials.c.state == state)
        .order_by(entries.c.id)
    )
    found: dict[int, tuple[str, list[Place]]] = {}
    for row in connection.execute(statement):
        place = Place(*(row._mapping[entries.c[part]] for part in _PARTS))
        found.setdefault(row.trial_id, (row.uid, []))[1].append(place)
    return [(trial, uid, places) for trial, (uid, places) in found.items()]


def _change(connection: sa.Connection, sweep_id: int, **values: object) -> None:
    connection.execute(sa.update(sweeps).where(sweeps.c.id == sweep_id).values(**values))
