"""The ledger's tables, portable between SQLite and PostgreSQL.

They are the newest revision of the schema; a change of them needs one more in `migrations`.
Names start with ``ledger_`` so that MLflow may keep its own tables in the same database.
"""

import json
import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tracking.places import Place, Role
from tracking.records import EntryRecord, Loss, Outcome, SweepState, TrialState

# JSON knows neither NaN nor infinities, and PostgreSQL refuses them
_FLOAT_KEY = "$float"
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(value: Any) -> str:
    """Write JSON in which NaN and infinities survive, as ``{"$float": "nan"}``."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_mark(value), allow_nan=False)


def decode(text: str | bytes) -> Any:
    """Read what `encode` wrote."""
    text = text if isinstance(text, str) else bytes(text).decode()
    return json.loads(text, object_hook=_unmark if _FLOAT_KEY in text else None)


def _mark(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT_KEY: str(value)}
    if isinstance(value, dict):
        return {key: _mark(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(item) for item in value]
    return value


def _unmark(item: dict[str, Any]) -> Any:
    return _FLOATS.get(item[_FLOAT_KEY], item) if item.keys() == {_FLOAT_KEY} else item


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A moment, in UTC, to the microsecond; SQLite keeps it without saying so."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Store the moment in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """Give it back with its time zone."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Real(sa.types.TypeDecorator[float]):
    """A float that is always there; NaN is kept as NULL, as SQLite would do unasked."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: sa.Dialect) -> float | None:
        """Store NaN as NULL."""
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: sa.Dialect) -> float:
        """Read NULL as NaN."""
        return math.nan if value is None else value


def _one_of(kind: type[StrEnum]) -> sa.Enum:
    return sa.Enum(
        kind,
        values_callable=lambda members: [member.value for member in members],
        native_enum=False,
        create_constraint=True,
        name=kind.__name__.lower(),
        length=16,
    )


def _json(name: str, *, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=nullable)


_AHEAD = sa.text("rev > published_rev")

metadata = sa.MetaData(
    naming_convention={
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
    }
)

#: Where Alembic notes the revision; the name leaves ``alembic_version`` to MLflow.
version = sa.Table(
    "ledger_version",
    metadata,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="ledger_version_pkc"),
)

sweeps = sa.Table(
    "ledger_sweep",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    _json("spec"),
    sa.Column("spec_hash", sa.Text, nullable=False),
    sa.Column("state", _one_of(SweepState), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),
    _json("artifacts"),
    sa.Column("experiment_id", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("published_rev", sa.Integer, nullable=False),
    sa.Column("stop_epoch", sa.Integer),
    _json("cancelled", nullable=True),
    _json("extension", nullable=True),
)

leases = sa.Table(  # a row while a driver holds the sweep
    "ledger_lease",
    metadata,
    sa.Column("sweep_id", sa.ForeignKey(sweeps.c.id), primary_key=True, autoincrement=False),
    sa.Column("driver", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("birth", sa.Text, nullable=False),
    sa.Column("taken_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    _json("note", nullable=True),
)

trials = sa.Table(
    "ledger_trial",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sweep_id", sa.ForeignKey(sweeps.c.id), nullable=False),
    sa.Column("uid", sa.Text, nullable=False),
    _json("spec"),
    sa.Column("state", _one_of(TrialState), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
    _json("result", nullable=True),
    sa.Column("error", sa.Text),
    sa.Column("cause", sa.Text),
    sa.Column("reused_from", sa.ForeignKey("ledger_trial.id")),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("rev", sa.Integer, nullable=False),
    sa.Column("published_rev", sa.Integer, nullable=False),
    sa.UniqueConstraint("sweep_id", "uid"),
    sa.Index("ledger_trial_state", "sweep_id", "state"),
    sa.Index("ledger_trial_uid", "uid", "state"),  # reuse across sweeps
    sa.Index("ledger_trial_outbox", "sweep_id", "id", sqlite_where=_AHEAD, postgresql_where=_AHEAD),
)

entries = sa.Table(
    "ledger_entry",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sweep_id", sa.ForeignKey(sweeps.c.id), nullable=False),
    sa.Column("role", _one_of(Role), nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("index", sa.BigInteger, nullable=False),  # a seed may be large
    sa.Column("trial_id", sa.ForeignKey(trials.c.id), nullable=False),
    _json("proposal", nullable=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.UniqueConstraint("sweep_id", "role", "arm", "target", "index"),
    sa.Index("ledger_entry_trial", "trial_id"),
)

attempts = sa.Table(
    "ledger_attempt",
    metadata,
    sa.Column("trial_id", sa.ForeignKey(trials.c.id), primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("outcome", _one_of(Outcome)),
    sa.Column("error", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("loss", _one_of(Loss)),
)

metrics = sa.Table(
    "ledger_metric",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", Real),
    sa.Column("at", UtcTime, nullable=False),
    sa.ForeignKeyConstraint(["trial_id", "attempt"], [attempts.c.trial_id, attempts.c.n]),
    sqlite_with_rowid=False,
)


def entry_of(row: "sa.Row[Any]") -> EntryRecord:
    """Read a row of `entries`."""
    found = dict(row._mapping)
    place = Place(*(found.pop(part) for part in ("role", "arm", "target", "index")))
    return EntryRecord(place=place, **found)
