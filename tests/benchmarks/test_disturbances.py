"""What the chaos benchmark does to a ledger's file and beside a driver, on a small scale."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos.disturbances import LedgerFile
from benchmarks.chaos.world import Supervisor
from tests.tracking.conftest import add_running
from tracking.errors import LedgerMovedError
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter

DRAW = random.Random(0)


class Here(Supervisor):
    """As if this process were the driver."""

    @property
    def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger/ledger.db") as ledger:
        ledger.create_sweep("chaos", {}, "hash")
        yield ledger


@pytest.fixture
def writer(ledger: Ledger) -> SweepWriter:
    return ledger.take_over("chaos", "a driver")


@pytest.fixture
def file(tmp_path: Path, ledger: Ledger) -> LedgerFile:
    drivers = Here(tmp_path / "sweep.yaml", "nowhere", {})
    return LedgerFile(tmp_path / "ledger" / "ledger.db", "chaos", drivers)


def test_moved_away_the_ledger_is_missed_and_back_it_is_whole(
    ledger: Ledger, writer: SweepWriter, file: LedgerFile
) -> None:
    add_running(writer)
    assert file.move(DRAW) == "moved away"
    with pytest.raises(LedgerMovedError):
        writer.check()
    file.put_back()
    writer.check()
    assert len(ledger.trials(writer.sweep_id)) == 1


def test_removed_it_is_restored_from_what_the_driver_saved(
    ledger: Ledger, writer: SweepWriter, file: LedgerFile
) -> None:
    assert file.remove(DRAW) is None  # nothing runs that would save it
    add_running(writer)
    assert file.remove(DRAW) == "removed"
    assert ledger.database.rescue() is not None
    file.restore()
    ledger.database.reopen()
    assert len(ledger.trials(writer.sweep_id)) == 1


def test_a_command_beside_ends_or_is_killed(tmp_path: Path) -> None:
    drivers = Supervisor(tmp_path / "sweep.yaml", "nowhere", {})
    assert drivers.beside(("--help",), 300.0) == "ended with status 0"
    assert drivers.beside(("--help",), 0.0) == "killed after 0.0 s"
