"""Requests from beside a driver: to stop, and not to run some of a sweep any more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.loop import driver as driver_module
from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.sweeps import Bench, Log, specification
from tracking.cancellations import Cancellations
from tracking.places import Role
from tracking.records import TrialState


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A sweep whose driver looks for requests at every turn."""
    monkeypatch.setattr(driver_module, "LOOK_S", 0.0)
    return Bench(tmp_path)


def cancel(bench: Bench, **what: object) -> None:
    asked = Cancellations.read(dict(what))
    bench.ledger.ask_to_cancel(bench.ledger.sweep(bench.name).id, asked)


def after(trials: int, bench: Bench, **what: object) -> Callable[[Log], bool]:
    """Cancel once so many trials have ended; never stop."""

    def stop_when(log: Log) -> bool:
        if len(log.trials) >= trials:
            cancel(bench, **what)
        return False

    return stop_when


def rows(bench: Bench, but: str = "") -> dict[str, Any]:
    """Return the accuracies and the shape of every row but one, by name."""
    found = [row for table in bench.table()["tables"] for row in table["rows"]]
    return {r["name"]: (r["by_seed"], r["widths"]) for r in found if r["name"] != but}


class TestStop:
    def test_a_driver_that_is_asked_to_leaves_its_sweep_as_after_ctrl_c(self, bench: Bench) -> None:
        def ask(log: Log) -> bool:
            if len(log.trials) == 3:
                bench.ledger.ask_to_stop(bench.ledger.sweep(bench.name).id)
            return False

        done = bench.drive(specification(), SeededBackend(slots=2), stop_when=ask)
        assert not done.over
        assert TrialState.RUNNING not in {trial.state for trial in bench.trials()}

    def test_the_next_driver_does_not_hear_of_it(self, bench: Bench) -> None:
        bench.drive(specification(), stop_when=lambda log: len(log.trials) == 2)
        bench.ledger.ask_to_stop(bench.ledger.sweep(bench.name).id)
        assert bench.drive(specification()).over


class TestCancelAnArm:
    @pytest.mark.parametrize("trials", [0, 1, 4, 8])
    def test_what_is_left_of_it_does_not_run_and_all_else_does(
        self, bench: Bench, trials: int
    ) -> None:
        when = after(trials, bench, arms=["l1"])
        done = bench.drive(specification(), SeededBackend(slots=2, seed=trials), stop_when=when)
        assert done.over
        states = {trial.state for trial in bench.trials_of(role="confirm", arm="geometric_median")}
        assert states == {TrialState.COMPLETED}
        assert "arm l1: cancelled" in bench.table()["missing"]
        assert len(bench.table()["missing"]) == 1
        assert bench.entries(role="latency", arm="l1") == []
        (winner,) = {entry.place.arm for entry in bench.entries(role="control", index=1)} & {
            "scratch:l1",
            "scratch:geometric_median",
        }
        assert winner == "scratch:geometric_median"

    def test_it_stays_so_for_the_next_driver(self, bench: Bench) -> None:
        spec = specification()
        bench.drive(spec, stop_when=lambda log: len(log.trials) == 2)
        cancel(bench, arms=["l1"])
        backend = SeededBackend()
        assert bench.drive(spec, backend).over
        assert {t.state for t in bench.trials_of(role="confirm", arm="l1")} <= {
            TrialState.CANCELLED
        }
        assert bench.drive(spec, again := SeededBackend(), retry=True).over
        assert again.started == []

    def test_restored_it_ends_as_if_nothing_had_been(self, bench: Bench, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        undisturbed = Bench(tmp_path / "other")
        undisturbed.drive(specification())
        bench.drive(specification(), SeededBackend(slots=2), stop_when=after(2, bench, arms=["l1"]))
        writer = bench.ledger.take_over(bench.name, "test", by_force=True)
        writer.restore()
        assert bench.drive(specification()).over
        # What another arm's win has left is in the table, as after `extend`; all else is equal.
        assert rows(bench, but="scratch:geometric_median") == rows(undisturbed)

    def test_a_control_is_cancelled_likewise(self, bench: Bench) -> None:
        cancel_it = after(1, bench, arms=["random"])
        assert bench.drive(specification(), SeededBackend(), stop_when=cancel_it).over
        assert bench.table()["missing"] == ["arm random: cancelled"]

    def test_what_learning_rates_are_tried_on_still_runs(self, bench: Bench) -> None:
        recipe = {"epochs": 2, "learning_rates": [0.01, 0.1]}
        spec = specification(recipe=recipe, baseline={"epochs": 3, "learning_rate": 0.1})
        assert bench.drive(spec, stop_when=after(1, bench, arms=["uniform_l1"])).over
        assert {t.state for t in bench.trials_of(role="tune")} == {TrialState.COMPLETED}


class TestCancelOneTrial:
    def test_it_is_ended_at_its_next_report_and_told_as_cancelled(self, bench: Bench) -> None:
        def cancel_a_running_one(_log: Log) -> bool:
            running = [t for t in bench.trials_of(role="search") if t.state is TrialState.RUNNING]
            if running and not cancelled:
                cancelled.append(running[0].uid)
                cancel(bench, uids=cancelled)
            return False

        cancelled: list[str] = []
        done = bench.drive(specification(), SeededBackend(), stop_when=cancel_a_running_one)
        assert done.over
        (trial,) = (t for t in bench.trials() if t.uid in cancelled)
        assert trial.state in {TrialState.CANCELLED, TrialState.COMPLETED}
        ends = {attempt.outcome for attempt in bench.attempts() if attempt.trial_id == trial.id}
        assert {str(end) for end in ends} == {str(trial.state)}
        assert bench.table()["missing"] == []


class TestCancelTheSweep:
    @pytest.mark.parametrize("trials", [0, 3])
    def test_nothing_more_is_begun(self, bench: Bench, trials: int) -> None:
        done = bench.drive(
            specification(), SeededBackend(slots=2), stop_when=after(trials, bench, whole=True)
        )
        assert not done.over
        states = {trial.state for trial in bench.trials()}
        assert states <= {TrialState.COMPLETED, TrialState.CANCELLED}
        assert bench.table()["state"] == "cancelled"
        assert "all of the sweep: cancelled" in bench.table()["missing"]
        assert len(bench.table()["missing"]) == 1

    def test_the_next_driver_begins_nothing_until_it_is_restored(self, bench: Bench) -> None:
        bench.drive(specification(), stop_when=after(2, bench, whole=True))
        assert not bench.drive(specification(), backend := SeededBackend()).over
        assert backend.started == []
        bench.ledger.take_over(bench.name, "test", by_force=True).restore()
        assert bench.drive(specification()).over
        assert bench.table()["missing"] == []


def test_cancelling_adds_up_and_twice_is_once(bench: Bench) -> None:
    bench.drive(specification(), stop_when=lambda log: len(log.trials) == 1)
    cancel(bench, arms=["l1"])
    cancel(bench, uids=["abc"])
    before = bench.ledger.sweep(bench.name)
    cancel(bench, arms=["l1"])
    after_all = bench.ledger.sweep(bench.name)
    assert after_all == before
    assert after_all.cancellations == Cancellations(arms=frozenset({"l1"}), uids=frozenset({"abc"}))
    assert not any(entry.place.role is Role.LATENCY for entry in bench.entries())
