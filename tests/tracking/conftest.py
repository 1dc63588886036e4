"""Ledgers to test on: every test that takes one runs on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.postgres import PostgresServer
from tracking import Place, Role, TrialRecord
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
SPEC: dict[str, Any] = {"method": "l1", "ratios": {"layer1.0.conv1": 0.1 + 0.2}, "plan": None}


def search(index: int) -> Place:
    return Place(Role.SEARCH, arm="l1", target="macs-50%", index=index)


def add(writer: SweepWriter, index: int = 0, uid: str | None = None) -> TrialRecord:
    return writer.want(search(index), uid or f"uid-{index}", SPEC)[1]


def add_running(writer: SweepWriter, index: int = 0) -> TrialRecord:
    trial = add(writer, index)
    assert writer.start(trial.id, "node-a", 100 + index) == 1
    return trial


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new folder/ledger.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as ledger:
        yield ledger


@pytest.fixture
def writer(ledger: Ledger) -> SweepWriter:
    """The driver of a fresh sweep ``grid``."""
    ledger.create_sweep("grid", {"arms": ["l1"]}, "hash-1")
    return ledger.take_over("grid", "first driver")
