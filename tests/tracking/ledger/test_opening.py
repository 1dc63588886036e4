"""Opening a ledger: what is refused, how fast, and in which words."""

import logging
import pickle
import sqlite3
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.tracking.conftest import NOON
from tests.tracking.postgres import PASSWORD, PostgresServer
from tracking import (
    FencedError,
    LeaseRecord,
    LedgerAwayError,
    LedgerError,
    LedgerSchemaError,
    LedgerUnreachableError,
    LedgerUrlError,
    MissingLedgerError,
    NewLedgerError,
    OldLedgerError,
    StaleAttemptError,
    SweepHeldError,
    UnknownSweepError,
    redact,
)
from tracking.ledger.ledger import Ledger
from tracking.processes import this_process

LEASE = LeaseRecord(
    driver="d",
    process=this_process(),
    taken_at=NOON,
    expires_at=NOON,
    is_over=False,
)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:hush@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("postgresql://me:p@ss/w:rd@db/x", "postgresql://me:***@db/x"),
        ("https://me:@host/", "https://me:***@host/"),
        ("postgresql://db/x?user=me&password=hush&sslmode=require",
         "postgresql://db/x?user=me&password=***&sslmode=require"),
        ("s3://bucket/x?aws_secret_access_key=hush#top", "s3://bucket/x?aws_secret_access_key=***#top"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("sqlite:////data/odd:name@here/ledger.db", "sqlite:////data/odd:name@here/ledger.db"),
        ("not a url", "not a url"),
    ],
)  # fmt: skip
def test_passwords_are_hidden_and_nothing_else(url: str, shown: str) -> None:
    assert redact(url) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("mysql://me:hush@db/x", "'mysql'"),
        ("just a path", "not a database URL"),
        ("postgresql://me:hush@db:port/x", "not a database URL"),
    ],
)
def test_urls_of_other_kinds_are_refused(url: str, problem: str) -> None:
    with pytest.raises(LedgerUrlError, match=problem) as caught:
        Ledger.open(url)
    assert "hush" not in f"{caught.value!r} {caught.value} {caught.value.args}"


@pytest.mark.integration
def test_a_ledger_shows_its_url_without_the_password(postgres: PostgresServer) -> None:
    with Ledger.open(postgres.new_database()) as ledger:
        assert PASSWORD not in f"{ledger!r} {ledger.url} {vars(ledger.database)}"
        assert "***" in repr(ledger)


@pytest.mark.integration
def test_a_wrong_password_is_reported_without_saying_it(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(LedgerUnreachableError, match="authentication failed") as caught:
        Ledger.open(postgres.url("postgres", password="wrong-secret"))
    told = f"{caught.value!r} {caught.value} {caught.value.__cause__} {caplog.text}"
    assert "wrong-secret" not in told
    assert "ledger:***@127.0.0.1" in str(caught.value)


@pytest.mark.integration
def test_a_server_that_is_gone_is_reported_at_once_and_used_again_when_it_is_back(
    postgres: PostgresServer,
) -> None:
    with Ledger.open(postgres.new_database()) as ledger:
        ledger.create_sweep("grid", {}, "h")
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ledger' "
            "AND pid <> pg_backend_pid()"
        )
        assert ledger.sweep("grid").name == "grid"  # found dead, and replaced


def test_an_absent_server_is_reported_within_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(LedgerUnreachableError, match=r"me:\*\*\*@127.0.0.1:1/x.*refused") as caught:
        Ledger.open("postgresql+psycopg://me:hush@127.0.0.1:1/x")
    assert time.monotonic() - began < 8.0
    assert str(caught.value).count("cannot be reached") == 1


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerUnreachableError, match="file"):
        Ledger.open(f"sqlite:///{tmp_path}/file/ledger.db")


def test_a_file_that_is_no_database_is_reported_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("a diary, and quite a long one. " * 50)
    with pytest.raises(LedgerUnreachableError, match="not a database"):
        Ledger.open(f"sqlite:///{path}")
    assert path.read_text().startswith("a diary")


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("CREATE TABLE runs (id INTEGER)")
    other.close()
    with pytest.raises(LedgerSchemaError, match=r"not a ledger's: runs.*Name a new file"):
        Ledger.open(f"sqlite:///{tmp_path}/mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
    other.close()


@pytest.mark.integration
def test_a_server_database_may_be_shared_with_another_program(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE runs (id INTEGER)"))
    engine.dispose()
    with Ledger.open(url) as ledger:
        assert ledger.sweeps() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE ledger_version SET version_num = '0099'", "schema 0099, .*Upgrade prunesweep"),
        ("UPDATE ledger_version SET version_num = '0001'", "prunesweep db upgrade LEDGER"),
        ("DELETE FROM ledger_version", "with 0 revisions.*Name a new file"),
    ],
)
@pytest.mark.parametrize("create", [False, True])
def test_another_schema_is_refused_with_a_way_out(
    ledger_url: str, change: str, says: str, create: bool
) -> None:
    with Ledger.open(ledger_url) as ledger, ledger.database.write() as connection:
        connection.execute(sa.text(change))
    with pytest.raises(LedgerSchemaError, match=says):
        Ledger.open(ledger_url, create=create)


def test_half_a_ledger_is_refused(ledger_url: str) -> None:
    with Ledger.open(ledger_url) as ledger, ledger.database.write() as connection:
        connection.execute(sa.text("DROP TABLE ledger_version"))
    with pytest.raises(LedgerSchemaError, match="ledger_attempt"):
        Ledger.open(ledger_url)


def test_opening_again_finds_what_was_written(ledger_url: str) -> None:
    with Ledger.open(ledger_url) as ledger:
        created = ledger.create_sweep("grid", {}, "h")
    with Ledger.open(ledger_url) as ledger:
        assert ledger.sweeps() == [created]


def test_sqlite_is_set_up_for_a_reader_beside_a_writer(tmp_path: Path) -> None:
    with (
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger,
        ledger.database.read() as connection,
    ):
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 30000,
        "foreign_keys": 1,
    }


class TestAway:
    """A ledger whose file is gone, to whoever finds it so."""

    @pytest.mark.parametrize("create", [True, False])
    def test_it_is_not_made_anew_in_silence(self, tmp_path: Path, create: bool) -> None:
        file = tmp_path / "ledger.db"
        with Ledger.open(f"sqlite:///{file}") as ledger:
            ledger.create_sweep("mine", {}, "hash")
        file.rename(tmp_path / "moved.db")
        with pytest.raises(LedgerAwayError, match=r"ledger\.db\.made beside it says"):
            Ledger.open(f"sqlite:///{file}", create=create)
        assert not file.exists()
        (tmp_path / "moved.db").rename(file)
        with Ledger.open(f"sqlite:///{file}", create=create) as ledger:
            assert ledger.sweep("mine").name == "mine"

    def test_a_copy_that_was_saved_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "ledger.db.rescued-20260101-000000").touch()
        with pytest.raises(
            LedgerAwayError, match=r"rename ledger\.db\.rescued-2026.*, which holds"
        ):
            Ledger.open(f"sqlite:///{tmp_path}/ledger.db")

    def test_removed_with_all_that_is_named_like_it_one_begins_anew(self, tmp_path: Path) -> None:
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db").close()
        for part in tmp_path.glob("ledger.db*"):
            part.unlink()
        with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
            assert ledger.sweeps() == []


@pytest.mark.parametrize(
    "error",
    [
        LedgerAwayError("postgresql://me:hush@db/x", "x.made"),
        LedgerUnreachableError("postgresql://me:hush@db/x", "refused"),
        LedgerUrlError("mysql://me:hush@db/x", "is odd"),
        MissingLedgerError("postgresql://me:hush@db/x"),
        LedgerSchemaError("sqlite:///x.db", "tables of another program", "0002"),
        OldLedgerError("postgresql://me:hush@db/x", "0001", "0002"),
        NewLedgerError("postgresql://me:hush@db/x", "0003", "0002"),
        SweepHeldError("grid", LEASE),
        FencedError("grid", 1, 2, "host:7"),
        StaleAttemptError(3, 1, "completed", 2),
        UnknownSweepError("gird", "grid"),
    ],
)
def test_errors_survive_a_trip_between_processes(error: LedgerError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert "hush" not in f"{copy!r}{copy}"
