"""A ledger's file that is removed, moved or replaced while it is in use."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tracking.conftest import add
from tracking import LedgerMovedError, MissingLedgerError, SweepState
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(file: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{file}") as ledger:
        ledger.create_sweep("grid", {}, "hash")
        yield ledger


@pytest.fixture
def writer(ledger: Ledger) -> SweepWriter:
    writer = ledger.take_over("grid", "a driver")
    add(writer)
    return writer


def remove(file: Path) -> None:
    for part in file.parent.glob(f"{file.name}*"):
        part.unlink()


def move(file: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for part in file.parent.glob(f"{file.name}*"):
        part.rename(folder / part.name)


def test_nothing_is_written_or_read_once_it_is_removed(
    ledger: Ledger, writer: SweepWriter, file: Path
) -> None:
    remove(file)
    with pytest.raises(LedgerMovedError, match="removed or moved while it was in use"):
        writer.set_state(SweepState.COMPLETED)
    with pytest.raises(LedgerMovedError):
        ledger.sweeps()
    with pytest.raises(LedgerMovedError):
        writer.lease.renew()
    assert not file.exists()


def test_a_driver_with_nothing_to_write_notices(writer: SweepWriter, file: Path) -> None:
    writer.check()
    remove(file)
    with pytest.raises(LedgerMovedError):
        writer.check()


def test_what_is_removed_within_a_transaction_is_not_said_to_be_stored(
    writer: SweepWriter, file: Path
) -> None:
    def end_while_it_goes() -> None:
        with writer.transaction():
            writer.set_state(SweepState.COMPLETED)
            remove(file)

    with pytest.raises(LedgerMovedError):
        end_while_it_goes()


def test_one_that_was_away_and_is_back_goes_on(
    ledger: Ledger, writer: SweepWriter, file: Path, tmp_path: Path
) -> None:
    move(file, tmp_path / "elsewhere")
    with pytest.raises(LedgerMovedError):
        writer.check()
    ledger.database.reopen()  # there is nothing to open: what is open stays
    move(tmp_path / "elsewhere" / file.name, file.parent)
    writer.set_state(SweepState.COMPLETED)
    assert ledger.sweep("grid").state is SweepState.COMPLETED


def test_away_without_its_log_nothing_is_made_that_would_spoil_the_log(
    ledger: Ledger, writer: SweepWriter, file: Path, tmp_path: Path
) -> None:
    file.rename(tmp_path / "away.db")
    ledger.database.close()  # as if there were no connection yet
    with pytest.raises(LedgerMovedError):
        ledger.sweeps()
    assert not file.exists()
    (tmp_path / "away.db").rename(file)
    assert len(ledger.trials(writer.sweep_id)) == 1


def test_another_file_in_its_place_is_not_written_to(
    ledger: Ledger, writer: SweepWriter, file: Path, tmp_path: Path
) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/other.db") as other:
        other.create_sweep("grid", {}, "another")
    os.replace(tmp_path / "other.db", file)
    with pytest.raises(LedgerMovedError, match="another file was put in the place"):
        add(writer, 1)
    ledger.database.reopen()
    assert ledger.sweep("grid").spec_hash == "another"


def test_a_removed_log_is_noticed(writer: SweepWriter, file: Path) -> None:
    file.with_name("ledger.db-wal").unlink()
    with pytest.raises(LedgerMovedError, match=r"its journal ledger\.db-wal was removed"):
        writer.check()


def test_all_of_a_removed_ledger_is_rescued(
    ledger: Ledger, writer: SweepWriter, file: Path
) -> None:
    remove(file)
    copy = ledger.database.rescue()
    assert copy is not None
    assert copy.name.startswith("ledger.db.rescued-")
    shutil.move(copy, file)
    ledger.database.reopen()
    assert len(ledger.trials(writer.sweep_id)) == 1
    assert ledger.take_over("grid", "the same", by_force=True).epoch == writer.epoch + 1


def test_nothing_is_rescued_that_only_moved(
    ledger: Ledger, writer: SweepWriter, file: Path, tmp_path: Path
) -> None:
    assert ledger.database.rescue() is None
    move(file, tmp_path / "elsewhere")
    assert ledger.database.rescue() is None


def test_a_rescue_that_cannot_be_written_is_none(
    ledger: Ledger, writer: SweepWriter, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    remove(file)
    monkeypatch.setattr(sqlite3, "connect", refuse)
    assert ledger.database.rescue() is None


def test_a_ledger_that_never_was_is_still_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingLedgerError):
        Ledger.open(f"sqlite:///{tmp_path}/none.db", create=False)
