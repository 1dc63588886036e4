"""Older ledgers become what a new one is, and keep their records."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command, op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.tracking.postgres import PostgresServer
from tracking import (
    LedgerSchemaError,
    LedgerUnreachableError,
    Loss,
    MissingLedgerError,
    NewLedgerError,
    OldLedgerError,
    TrialState,
)
from tracking.ledger import schema, tables
from tracking.ledger.database import Database
from tracking.ledger.ledger import Ledger

FIRST = Path(__file__).with_name("ledger_0001.sql")  # as the first version wrote it


@pytest.fixture
def empty(ledger_url: str) -> Iterator[Database]:
    """A database without any tables."""
    if ledger_url.startswith("sqlite"):
        Path(ledger_url.removeprefix("sqlite:///")).parent.mkdir()
    database = Database(ledger_url)
    yield database
    database.close()


@pytest.fixture
def oldest(ledger_url: str, empty: Database) -> str:
    """A ledger of the first version, with two trials of one sweep; returns its URL."""
    if ledger_url.startswith("sqlite"):
        with sqlite3.connect(ledger_url.removeprefix("sqlite:///")) as file:
            file.executescript(FIRST.read_text())
        file.close()
        return ledger_url
    inserts = [line for line in FIRST.read_text().splitlines() if line.startswith("INSERT")]
    order = ("sweep", "trial", "attempt", "entry", "metric")  # what others refer to comes first
    with empty.write() as connection:
        command.upgrade(schema.alembic_config(connection), "0001")
        connection.exec_driver_sql("DROP TABLE ledger_version")
        for name in order:
            for insert in inserts:
                if f'"ledger_{name}"' in insert:
                    connection.exec_driver_sql(insert.replace("%", "%%"))
    return ledger_url


def shape(connection: sa.Connection) -> dict[str, Any]:
    """Return all that a database knows of the ledger's tables."""
    inspector = sa.inspect(connection)
    found: dict[str, Any] = {}
    for table in inspector.get_table_names():
        found[table] = {
            "columns": [
                {key: str(column[key]) for key in ("name", "type", "nullable", "default")}
                for column in inspector.get_columns(table)
            ],
            "key": inspector.get_pk_constraint(table),
            **{
                kind: sorted(map(_plain, getattr(inspector, f"get_{kind}")(table)))
                for kind in (
                    "indexes",
                    "unique_constraints",
                    "check_constraints",
                    "foreign_keys",
                )
            },
        }
    return found


def _plain(item: Any) -> str:
    """Write what an inspector tells, with SQL as its text."""
    if isinstance(item, dict):
        return str({key: _plain(value) for key, value in sorted(item.items())})
    return str(item)


def test_the_migrations_lead_to_the_tables(empty: Database) -> None:
    with empty.write() as connection:
        command.upgrade(schema.alembic_config(connection), "head")
        context = MigrationContext.configure(
            connection, opts={"version_table": tables.version.name, "compare_type": True}
        )
        assert compare_metadata(context, tables.metadata) == []
        migrated = shape(connection)
        tables.metadata.drop_all(connection)
        schema.create(connection)
        assert shape(connection) == migrated
    assert migrated.keys() == set(tables.metadata.tables)


def test_the_revisions_are_the_ones_there_are(empty: Database) -> None:
    with empty.read() as connection:
        scripts = ScriptDirectory.from_config(schema.alembic_config(connection))
    there = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(there)) == schema.REVISIONS


def test_a_ledger_of_the_first_version_is_refused_until_it_is_upgraded(oldest: str) -> None:
    for create in (False, True):
        with pytest.raises(OldLedgerError, match=r"schema 0001; .*prunesweep db upgrade LEDGER"):
            Ledger.open(oldest, create=create)
    database = Database(oldest)
    assert database.revision() == "0001"
    assert database.upgrade() == "0001"
    assert database.upgrade() == database.revision() == schema.HEAD
    database.close()


def test_an_upgrade_keeps_the_records_and_the_sweep_goes_on(oldest: str) -> None:
    database = Database(oldest)
    database.upgrade()
    database.close()
    with Ledger.open(oldest) as ledger:
        (sweep,) = ledger.sweeps()
        done, running = ledger.trials(sweep.id)
        assert (sweep.name, sweep.owner, sweep.epoch) == ("grid", "node-a:42", 1)
        assert (done.state, done.result) == (TrialState.COMPLETED, {"val_accuracy": 90.0})
        assert [(p.key, p.value) for p in ledger.metrics(done.id)] == [("loss", 1.5)]
        assert [entry.proposal for entry in ledger.entries(sweep.id)] == [
            {"params": {"a": 0.5}},
            None,
        ]
        assert running.state is TrialState.RUNNING
        assert [(a.trial_id, a.pid) for a in ledger.attempts(sweep.id)] == [(1, 43), (2, 43)]
        assert ledger.lease(sweep.id) is None
        writer = ledger.take_over("grid", "its next driver")
        assert writer.start(running.id, "node-b", 1) == 2
        writer.lose(running.id, 2, Loss.DEVICE_MEMORY, "a kind of loss it did not know")


def test_an_upgrade_renames_the_share_of_a_gpu_in_specifications(oldest: str) -> None:
    database = Database(oldest)
    before = {"arms": ["l1"], "resources": {"workers": 3, "gpus_per_worker": 0.5}}
    with database.write() as connection:
        connection.execute(sa.update(tables.sweeps).values(spec=before))
    database.upgrade()
    database.close()
    with Ledger.open(oldest) as ledger:
        after = ledger.sweep("grid").spec
    assert after == {"arms": ["l1"], "resources": {"workers": 3, "gpu_share": 0.5}}


def test_an_upgrade_leaves_no_metrics_without_their_attempts(
    oldest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(statement: Any, **_: Any) -> None:
        if "INSERT INTO ledger_attempt" not in str(statement):
            execute(statement)

    execute = op.execute
    database = Database(oldest)
    if not oldest.startswith("sqlite"):
        pytest.skip("only SQLite makes the table anew")
    monkeypatch.setattr(op, "execute", forget)
    with pytest.raises(LedgerUnreachableError, match="FOREIGN KEY constraint failed"):
        database.upgrade()
    monkeypatch.undo()
    assert database.revision() == "0001"
    database.close()


def test_an_upgrade_that_breaks_leaves_the_ledger_as_it_was(
    oldest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    database = Database(oldest)
    with database.read() as connection:
        before = shape(connection)
    monkeypatch.setattr("alembic.operations.Operations.drop_table", stop)  # its last step
    with pytest.raises(KeyboardInterrupt):
        database.upgrade()
    with database.read() as connection:
        assert shape(connection) == before
    database.close()


def test_a_newer_ledger_is_not_touched(ledger_url: str) -> None:
    with Ledger.open(ledger_url) as ledger:
        with ledger.database.write() as connection:
            connection.execute(sa.update(tables.version).values(version_num="0099"))
        with pytest.raises(NewLedgerError, match=r"schema 0099.*Upgrade prunesweep"):
            ledger.database.upgrade()
        assert ledger.database.revision() == "0099"


def test_reading_makes_no_ledger(ledger_url: str) -> None:
    with pytest.raises(MissingLedgerError, match="There is no ledger at"):
        Ledger.open(ledger_url, create=False)
    database = Database(ledger_url)
    assert database.revision() is None
    database.close()
    if ledger_url.startswith("sqlite"):
        assert not Path(ledger_url.removeprefix("sqlite:///")).parent.exists()


def test_no_file_is_made_by_an_upgrade(tmp_path: Path) -> None:
    with pytest.raises(MissingLedgerError):
        Database(f"sqlite:///{tmp_path}/typo.db").upgrade()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_server_database_is_made_ready_by_an_upgrade(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    database = Database(url)
    assert database.upgrade() is None
    database.close()
    with Ledger.open(url, create=False) as ledger:
        assert ledger.sweeps() == []


def test_another_programs_tables_are_not_upgraded(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
    other.close()
    with pytest.raises(LedgerSchemaError, match="not a ledger's: alembic_version"):
        Database(f"sqlite:///{tmp_path}/mlflow.db").upgrade()
