"""``stop`` and ``cancel``, from beside a driver and without one."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.loop import driver as driver_module
from orchestrator.output import OUTPUT_LOST
from tests.checkout import ROOT
from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.command_line import call, facts
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import Bench, specification
from tracking.places import Role
from tracking.records import SweepState, TrialState
from workers.results import Report
from workers.settings import TrialSpec


@pytest.fixture
def begun(tmp_path: Path) -> Bench:
    """A sweep whose driver left after two trials, with others pending."""
    bench = Bench(tmp_path)
    bench.drive(specification(), stop_when=lambda log: len(log.trials) == 2)
    return bench


@contextmanager
def driven(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Drive the sweep in a thread; what it comes to is in the list."""

    def slow(spec: TrialSpec, report: Report) -> dict[str, object]:
        time.sleep(0.02)
        return simulate(spec, report)

    def drive() -> None:
        sweep = bench.ledger.sweep(bench.name)
        spec = specification(search={"trials": 40, "window": 2})
        over.append(bench.drive(spec, SeededBackend(runner=slow)).over)
        assert bench.ledger.sweep(bench.name).epoch > sweep.epoch

    monkeypatch.setattr(driver_module, "LOOK_S", 0.0)
    over: list[bool] = []
    thread = threading.Thread(target=drive)
    before = bench.ledger.sweep(bench.name).epoch
    thread.start()
    while bench.ledger.sweep(bench.name).epoch == before:
        time.sleep(0.01)
    try:
        yield over
    finally:
        thread.join()


def test_where_no_driver_runs_there_is_nothing_to_stop(begun: Bench, tmp_path: Path) -> None:
    writer = begun.ledger.take_over(begun.name, "gone", by_force=True)
    writer.set_state("interrupted")
    writer.lease.release()
    for _ in range(2):
        found = facts("stop", begun.name, "--store", tmp_path)
        assert (found["driver"], found["stopped"], found["state"]) == (None, False, "interrupted")
    told = call("stop", begun.name, "--store", tmp_path).stdout
    assert "No driver runs sweep; there is nothing to stop." in told
    assert begun.ledger.sweep(begun.name).stop_epoch is None


def test_a_driver_that_does_not_end_is_told_of(begun: Bench, tmp_path: Path) -> None:
    begun.ledger.take_over(begun.name, "busy", by_force=True)  # this process, which lives
    result = call("stop", begun.name, "--wait", "0.3", "--store", tmp_path)
    assert result.exit_code == 1
    assert "was asked to stop and still runs" in " ".join(result.stdout.split())
    sweep = begun.ledger.sweep(begun.name)
    assert sweep.stop_epoch == sweep.epoch


def test_a_running_driver_hears_of_it(
    begun: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(begun, monkeypatch) as over:
        call("stop", begun.name, "--wait", "0", "--store", tmp_path)
    assert over == [False]
    assert begun.ledger.sweep(begun.name).state is SweepState.INTERRUPTED


def test_a_sweep_is_watched_until_its_driver_has_ended(begun: Bench, tmp_path: Path) -> None:
    _let_go(begun)
    result = call("status", begun.name, "--watch", "--store", tmp_path)
    assert result.exit_code == 0
    assert "sweep: interrupted" in result.stdout


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_watching_ends_when_nobody_reads(begun: Bench, tmp_path: Path) -> None:
    begun.ledger.take_over(begun.name, "lives", lease_s=590.0, by_force=True)
    words = ["status", begun.name, "--watch", "--store", str(tmp_path)]
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as pipe:
        command = [sys.executable, "-m", "orchestrator", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=pipe, timeout=290, check=False
        )
    assert ended.returncode == OUTPUT_LOST


def test_a_running_driver_drops_an_arm_and_goes_on(
    begun: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(begun, monkeypatch) as over:
        found = facts("cancel", begun.name, "--arm", "l1", "--store", tmp_path)
        assert found["driver_told"]
    assert over == [True]
    assert "arm l1: cancelled" in begun.table()["missing"]


def test_without_a_driver_pending_trials_are_cancelled_at_once(
    begun: Bench, tmp_path: Path
) -> None:
    _let_go(begun)
    before = begun.ledger.sweep(begun.name).state
    found = facts("cancel", begun.name, "--store", tmp_path)
    assert (found["driver_told"], found["cancelled"]["whole"]) == (False, True)
    assert {trial.state for trial in begun.trials()} <= {
        TrialState.COMPLETED,
        TrialState.CANCELLED,
    }
    assert begun.ledger.sweep(begun.name).state is before
    (listed,) = facts("status", "--store", tmp_path)
    assert listed["state"] == "cancelled"
    one = facts("status", begun.name, "--store", tmp_path)
    assert one["next"].endswith("--restore")
    again = facts("cancel", begun.name, "--store", tmp_path)
    assert again == found


def test_a_single_trial_is_cancelled_by_the_start_of_its_uid(begun: Bench, tmp_path: Path) -> None:
    _let_go(begun)
    pending = [t for t in begun.trials() if t.state is TrialState.PENDING]
    facts("cancel", begun.name, "--trial", pending[0].uid[:10], "--store", tmp_path)
    assert begun.ledger.trial(pending[0].id).state is TrialState.CANCELLED
    left = [t for t in begun.trials() if t.state is TrialState.PENDING]
    assert len(left) == len(pending) - 1


def test_what_cannot_be_cancelled_is_refused(begun: Bench, tmp_path: Path) -> None:
    _let_go(begun)
    (baseline,) = begun.trials_of(role="baseline")
    for words, says in (
        (["--arm", "radnom"], "no arm or control 'radnom'; did you mean 'random'?"),
        (["--trial", baseline.uid[:12]], "it is completed: nothing to cancel."),
        (["--trial", "zz"], "there is none."),
        (["--arm", "l1", "--trial", "1"], "an arm or a trial, not both"),
    ):
        result = call("cancel", begun.name, *words, "--store", tmp_path)
        assert result.exit_code == 2
        assert says in " ".join(result.stderr.replace("│", "").split())
    assert begun.ledger.sweep(begun.name).cancelled is None


def test_what_all_others_need_goes_only_with_the_sweep(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    bench.drive(specification(), SeededBackend(), stop_when=lambda _: bool(bench.entries()))
    _let_go(bench)
    ((entry, trial),) = [(e, bench.trial(e)) for e in bench.entries() if e.place.role == "baseline"]
    assert (entry.place.role, trial.state) == (Role.BASELINE, TrialState.PENDING)
    result = call("cancel", bench.name, "--trial", str(trial.id), "--store", tmp_path)
    assert "all others need it (baseline); cancel the whole sweep." in result.stderr


def _let_go(bench: Bench) -> None:
    """End the lease that a driver of this process would keep for as long as the process lives."""
    writer = bench.ledger.take_over(bench.name, "test", by_force=True)
    writer.set_state(SweepState.INTERRUPTED)
    writer.lease.release()
