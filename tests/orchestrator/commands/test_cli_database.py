"""What is said of a ledger's schema, the way to the newest one, and of a sweep that is held."""

import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.orchestrator.command_line import call, facts, write_spec
from tests.tracking.ledger.test_migrations import FIRST
from tracking.ledger.ledger import Ledger
from tracking.ledger.schema import HEAD
from tracking.processes import this_process


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store with a ledger of the first version."""
    with sqlite3.connect(tmp_path / "ledger.db") as file:
        file.executescript(FIRST.read_text())
    file.close()
    return tmp_path


def test_an_old_ledger_is_refused_with_the_way_out_which_works(old: Path) -> None:
    refused = call("status", "--store", old)
    assert refused.exit_code == 2
    assert "has schema 0001" in refused.stderr
    assert "prunesweep db upgrade LEDGER" in refused.stderr
    shown = " ".join(call("db", "current", "--store", old).stdout.split())
    assert "schema 0001; this prunesweep" in shown
    upgraded = call("db", "upgrade", f"sqlite:///{old}/ledger.db")
    assert (upgraded.exit_code, upgraded.stderr) == (0, "")
    assert f"was schema 0001 and has schema {HEAD} now" in " ".join(upgraded.stdout.split())
    assert [sweep["name"] for sweep in facts("status", "--store", old)] == ["grid"]


def test_upgrading_again_changes_nothing(old: Path) -> None:
    call("db", "upgrade", "--store", old)
    again = facts("db", "upgrade", "--store", old)
    assert (again["before"], again["schema"]) == (HEAD, HEAD)
    assert facts("db", "current", "--store", old)["schema"] == HEAD


@pytest.mark.parametrize("verb", ["current", "upgrade"])
def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, verb: str) -> None:
    result = call("db", verb, "--store", tmp_path / "typo")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"There is no ledger at {tmp_path}/typo/ledger.db" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        with ledger.database.write() as connection:
            connection.exec_driver_sql("UPDATE ledger_version SET version_num = '0099'")
        result = call("db", "upgrade", "--store", tmp_path)
    assert result.exit_code == 2
    assert "Upgrade prunesweep on this machine" in result.stderr


def test_a_sweep_that_runs_elsewhere_is_waited_for_as_long_as_told(tmp_path: Path) -> None:
    elsewhere = replace(this_process(), host="far-away", place="another machine")
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.create_sweep("tiny", {}, "h")
        ledger.take_over("tiny", "its driver", process=elsewhere)
    began = time.monotonic()
    result = call("run", write_spec(tmp_path), "--wait", "1.5", "--store", tmp_path)
    assert result.exit_code == 2
    assert f"'tiny' is being run by process {elsewhere.pid} on far-away since" in result.stderr
    assert time.monotonic() - began >= 1.5
