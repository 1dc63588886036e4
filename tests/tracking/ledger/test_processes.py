"""Several processes at one ledger, and processes that die in the middle of a write."""

import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.tracking.conftest import add, add_running
from tracking import FencedError, LedgerUnreachableError, Outcome, TrialState
from tracking.ledger.ledger import Ledger
from tracking.ledger.outbox import Outbox
from tracking.ledger.writer import SweepWriter

pytestmark = pytest.mark.integration


OPENER = """
import sys
from tracking.ledger.ledger import Ledger
print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger.open(sys.argv[1])
ledger.create_sweep(sys.argv[2], {}, "h")
writer = ledger.take_over(sys.argv[2], sys.argv[2])
from tracking import Place, Role
for index in range(10):
    writer.want(Place(Role.SEARCH, index=index), f"uid-{index}", {})
"""

BUSY_WRITER = """
import sys
from datetime import UTC, datetime
from tracking import Place, Role
from tracking.ledger.ledger import Ledger
writer = Ledger.open(sys.argv[1]).take_over("grid", "doomed", by_force=True)
for index in range(1_000_000):
    with writer.transaction():
        entry = Place(Role.SEARCH, arm="doomed", index=index)
        trial = writer.want(entry, f"doomed-{index}", {})[1]
        attempt = writer.start(trial.id, "node", 1)
        for step in range(3):
            values = {f"metric {n}": 1.0 for n in range(5)}
            writer.report(trial.id, attempt, step, values, datetime.now(UTC))
        writer.complete(trial.id, attempt, {"val_accuracy": 1.0})
    print(index, flush=True)
"""

FROZEN_WRITER = """
import sys, time
from tracking import Place, Role
from tracking.ledger.ledger import Ledger
writer = Ledger.open(sys.argv[1]).take_over("grid", "frozen", by_force=True)
with writer.transaction():
    trial = writer.want(Place(Role.SEARCH, arm="frozen", index=0), "frozen", {})[1]
    writer.start(trial.id, "node", 1)
    print("half-written", flush=True)
    time.sleep(600)
"""


def run_python(source: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def lines_from(process: "subprocess.Popen[str]", number: int) -> None:
    assert process.stdout is not None
    for _ in range(number):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_processes_that_open_a_new_ledger_at_once_all_succeed(ledger_url: str) -> None:
    names = [f"sweep {n}" for n in range(5)]
    openers = [run_python(OPENER, ledger_url, name) for name in names]
    for opener in openers:
        lines_from(opener, 1)
    for opener in openers:  # all have loaded, and wait: now
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    for opener in openers:
        _, errors = opener.communicate(timeout=120)
        assert opener.returncode == 0, errors
    with Ledger.open(ledger_url) as ledger:
        assert sorted(sweep.name for sweep in ledger.sweeps()) == names
        assert [len(ledger.trials(sweep.id)) for sweep in ledger.sweeps()] == [10] * 5


def test_an_opener_waits_for_another_that_is_setting_the_file_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    faster = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    faster.execute("BEGIN IMMEDIATE")  # before the journal mode changes, SQLite refuses at once
    opened: list[Ledger] = []
    opener = threading.Thread(target=lambda: opened.append(Ledger.open(url)))
    opener.start()
    opener.join(timeout=0.3)
    assert not opened
    faster.execute("ROLLBACK")
    faster.close()
    opener.join(timeout=30)
    with opened[0] as ledger:
        assert ledger.sweeps() == []


def test_a_writer_killed_anywhere_leaves_whole_trials_only(
    ledger: Ledger, writer: SweepWriter, ledger_url: str
) -> None:
    for round_ in range(3):
        process = run_python(BUSY_WRITER.replace("doomed", f"doomed{round_}"), ledger_url)
        lines_from(process, 5)
        time.sleep(0.003 * round_)
        kill(process)
    trials = ledger.trials(writer.sweep_id)
    assert len(trials) >= 15
    assert {trial.state for trial in trials} == {TrialState.COMPLETED}
    assert len(ledger.entries(writer.sweep_id)) == len(trials)
    attempts = ledger.attempts(writer.sweep_id)
    assert [attempt.trial_id for attempt in attempts] == [trial.id for trial in trials]
    assert {attempt.outcome for attempt in attempts} == {Outcome.COMPLETED}
    assert {len(ledger.metrics(trial.id)) for trial in trials} == {15}


def test_a_writer_killed_within_a_transaction_leaves_nothing_and_no_lock(
    ledger: Ledger, writer: SweepWriter, ledger_url: str
) -> None:
    process = run_python(FROZEN_WRITER, ledger_url)
    lines_from(process, 1)
    kill(process)
    began = time.monotonic()
    successor = ledger.take_over("grid", "successor")  # whose process has ended
    assert time.monotonic() - began < 10.0
    assert successor.epoch == 3
    assert ledger.trials(writer.sweep_id) == []


def test_taking_over_waits_for_the_transaction_in_progress(
    ledger: Ledger, writer: SweepWriter
) -> None:
    taken: list[SweepWriter] = []
    taker = threading.Thread(
        target=lambda: taken.append(ledger.take_over("grid", "second", by_force=True))
    )
    with writer.transaction():
        trial = add_running(writer)
        taker.start()
        taker.join(timeout=0.3)
        assert not taken  # nobody is fenced in the middle of a transaction
    taker.join(timeout=30)
    assert ledger.trial(trial.id).state is TrialState.PENDING  # seen, and given back
    with pytest.raises(FencedError):
        add(writer, 1)


def test_threads_share_a_writer_and_a_publisher_marks_beside_them(
    ledger: Ledger, writer: SweepWriter
) -> None:
    problems: list[Exception] = []

    def drive(first: int) -> None:
        try:
            for index in range(first, first + 10):
                trial = add(writer, index)
                n = writer.start(trial.id, "node", 1)
                writer.report(trial.id, n, 0, {"loss": 1.0}, datetime.now(UTC))
                writer.complete(trial.id, n, {})
        except Exception as problem:
            problems.append(problem)

    outbox = Outbox(ledger)
    threads = [threading.Thread(target=drive, args=(100 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or outbox.dirty_trials():
        for trial in outbox.dirty_trials():
            outbox.mark_published(trial.id, trial.rev)
    assert not problems
    assert ledger.counts(writer.sweep_id)[TrialState.COMPLETED] == 30
    assert all(trial.rev == 4 for trial in ledger.trials(writer.sweep_id))


def test_a_lock_that_is_never_released_is_reported(
    writer: SweepWriter, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracking.ledger.database.LOCK_TIMEOUT_S", 0.2)
    with writer.transaction():
        add(writer)
        with Ledger.open(ledger_url) as other:  # reading is never locked out
            assert other.trials(writer.sweep_id) == []
            with pytest.raises(LedgerUnreachableError, match="lock"):
                other.take_over("grid", "second")
