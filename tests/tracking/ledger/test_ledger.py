"""The ledger on SQLite and on PostgreSQL: one suite, the same behaviour."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.tracking.conftest import NOON, SPEC, add, add_running, search
from tracking import (
    EntryConflictError,
    Loss,
    Place,
    Role,
    SweepExistsError,
    SweepState,
    TrialState,
    UnknownSweepError,
    UnstorableError,
)
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter


class TestSweeps:
    def test_a_sweep_comes_back_as_it_was_created(self, ledger: Ledger) -> None:
        created = ledger.create_sweep("grid", {"seeds": [0, 1], "x": None}, "abc")
        assert ledger.sweep("grid") == created
        assert created.spec == {"seeds": [0, 1], "x": None}
        assert (created.epoch, created.owner, created.artifacts) == (0, None, {})
        assert created.created_at.tzinfo is UTC

    def test_a_name_stands_for_one_sweep(self, ledger: Ledger) -> None:
        ledger.create_sweep("grid", {"first": True}, "a")
        with pytest.raises(SweepExistsError, match="'grid'"):
            ledger.create_sweep("grid", {"first": False}, "b")
        assert [sweep.spec for sweep in ledger.sweeps()] == [{"first": True}]

    def test_an_unknown_sweep_is_answered_with_the_nearest_name(self, ledger: Ledger) -> None:
        ledger.create_sweep("resnet56", {}, "a")
        with pytest.raises(UnknownSweepError, match="did you mean 'resnet56'"):
            ledger.sweep("resnet65")
        with pytest.raises(UnknownSweepError, match="'mobile'"):
            ledger.take_over("mobile", "me")

    def test_state_artifacts_and_specification_can_change(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        before = ledger.sweep("grid")
        writer.set_state("completed")
        writer.set_artifacts({"report.html": "grid/report.html"})
        writer.amend_spec({"arms": ["l1", "fpgm"]}, "hash-2")
        after = ledger.sweep("grid")
        assert after.state is SweepState.COMPLETED
        assert after.artifacts == {"report.html": "grid/report.html"}
        assert (after.spec, after.spec_hash) == ({"arms": ["l1", "fpgm"]}, "hash-2")
        assert after.rev == before.rev + 3

    def test_only_one_that_runs_is_interrupted(self, ledger: Ledger, writer: SweepWriter) -> None:
        writer.interrupt()
        assert ledger.sweep("grid").state is SweepState.INTERRUPTED
        writer.set_state(SweepState.COMPLETED)
        writer.interrupt()
        assert ledger.sweep("grid").state is SweepState.COMPLETED

    def test_taking_over_sets_the_sweep_running_again(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        writer.set_state(SweepState.INTERRUPTED)
        ledger.take_over("grid", "second driver", by_force=True)
        sweep = ledger.sweep("grid")
        assert (sweep.state, sweep.owner, sweep.epoch) == ("running", "second driver", 2)


class TestWanting:
    def test_a_new_entry_brings_a_pending_trial(self, ledger: Ledger, writer: SweepWriter) -> None:
        proposal = {"params": {"a": 0.1}, "system_attrs": {"nsga2:generation": 3}, "number": 0}
        entry, trial = writer.want(
            Place(Role.SEARCH, arm="l1", target="macs-50%", index=7),
            "uid",
            SPEC,
            proposal=proposal,
        )
        assert (entry.trial_id, entry.place.index, entry.proposal) == (trial.id, 7, proposal)
        assert (trial.state, trial.spec, trial.attempt) == (TrialState.PENDING, SPEC, 0)
        assert ledger.trials(writer.sweep_id) == [trial]
        assert ledger.trial(trial.id) == trial
        assert ledger.entries(writer.sweep_id) == [entry]

    def test_wanting_twice_finds_the_first_and_changes_nothing(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        first = writer.want(search(0), "uid", SPEC)
        assert writer.want(search(0), "uid", SPEC) == first
        assert len(ledger.trials(writer.sweep_id)) == len(ledger.entries(writer.sweep_id)) == 1

    def test_several_entries_share_a_trial_of_equal_content(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        first = add(writer, 0, uid="same")
        control = Place(Role.CONTROL, arm="uniform_l1", target="macs-50%", index=2**40)
        second = writer.want(control, "same", SPEC)[1]
        assert second.id == first.id
        assert second.rev > first.rev  # the other entry is to be published as well
        assert {e.trial_id for e in ledger.entries(writer.sweep_id)} == {first.id}
        assert [e.place.index for e in ledger.entries(writer.sweep_id)] == [0, 2**40]

    def test_one_place_cannot_hold_two_contents(self, ledger: Ledger, writer: SweepWriter) -> None:
        add(writer, 0, uid="one")
        with pytest.raises(EntryConflictError, match=r"search/l1/macs-50%/0.*one.*two"):
            add(writer, 0, uid="two")
        assert [trial.uid for trial in ledger.trials(writer.sweep_id)] == ["one"]

    def test_a_trial_completed_in_another_sweep_is_not_run_again(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        writer.complete(trial.id, 1, {"val_accuracy": 91.5})
        ledger.create_sweep("second", {}, "h")
        other = ledger.take_over("second", "me")
        reused = add(other, uid=trial.uid)
        assert (reused.state, reused.result) == (TrialState.COMPLETED, {"val_accuracy": 91.5})
        assert (reused.reused_from, reused.attempt) == (trial.id, 0)
        assert reused.ended_at is not None
        ledger.create_sweep("third", {}, "h")
        again = add(ledger.take_over("third", "me"), uid=trial.uid)
        assert again.reused_from == trial.id  # always the one that ran
        found = ledger.find_completed(trial.uid)
        assert found is not None
        assert found.id == trial.id

    @pytest.mark.parametrize("end", ["stop", "fail", "leave"])
    def test_only_completed_trials_are_reused(
        self, ledger: Ledger, writer: SweepWriter, end: str
    ) -> None:
        trial = add_running(writer)
        if end == "stop":
            writer.stop(trial.id, 1, {"val_accuracy": 10.0}, "below the median")
        elif end == "fail":
            writer.fail(trial.id, 1, "Traceback ...", "error")
        ledger.create_sweep("second", {}, "h")
        other = add(ledger.take_over("second", "me"), uid=trial.uid)
        assert (other.state, other.reused_from) == (TrialState.PENDING, None)
        assert ledger.find_completed(trial.uid) is None

    def test_what_json_cannot_carry_is_refused_at_the_door(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        with pytest.raises(UnstorableError, match=r"search/l1/macs-50%/0.*object"):
            writer.want(search(0), "uid", {"method": object()})
        trial = add_running(writer)
        with pytest.raises(UnstorableError, match=f"result of trial {trial.id}"):
            writer.complete(trial.id, 1, {"kept": {1, 2}})
        assert ledger.trial(trial.id).state is TrialState.RUNNING
        with pytest.raises(UnstorableError, match="'third'"):
            ledger.create_sweep("third", {"x": object()}, "h")


class TestMetrics:
    def test_every_float_comes_back_as_it_was(self, ledger: Ledger, writer: SweepWriter) -> None:
        trial = add_running(writer)
        values = {
            "nan": math.nan,
            "up": math.inf,
            "down": -math.inf,
            "tiny": 5e-324,
            "sum": 0.1 + 0.2,
        }
        writer.report(trial.id, 1, 0, values, NOON)
        points = {point.key: point.value for point in ledger.metrics(trial.id)}
        assert math.isnan(points.pop("nan"))
        assert points == {key: value for key, value in values.items() if key != "nan"}

    def test_times_come_back_in_utc_to_the_microsecond(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        east = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
        writer.report(trial.id, 1, 0, {"loss": 1.0}, east)
        (point,) = ledger.metrics(trial.id)
        assert point.at == NOON
        assert point.at.tzinfo is UTC

    def test_a_time_without_a_zone_is_refused(self, writer: SweepWriter) -> None:
        trial = add_running(writer)
        with pytest.raises(UnstorableError, match="naive"):
            writer.report(trial.id, 1, 0, {"loss": 1.0}, datetime(2026, 1, 1))

    def test_a_value_reported_twice_is_recorded_once(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        writer.report(trial.id, 1, 0, {"loss": 1.0}, NOON)
        writer.report(trial.id, 1, 0, {"loss": 2.0, "accuracy": 3.0}, NOON)
        writer.report(trial.id, 1, 1, {"loss": 0.5}, NOON)
        writer.report(trial.id, 1, 2, {}, NOON)
        points = [(point.step, point.key, point.value) for point in ledger.metrics(trial.id)]
        assert points == [(0, "accuracy", 3.0), (0, "loss", 1.0), (1, "loss", 0.5)]

    def test_curves_of_two_attempts_never_mix(self, ledger: Ledger, writer: SweepWriter) -> None:
        trial = add_running(writer)
        writer.report(trial.id, 1, 0, {"loss": 1.0}, NOON)
        writer.lose(trial.id, 1, Loss.NODE, "node died")
        writer.start(trial.id, "node-b", 2)
        writer.report(trial.id, 2, 0, {"loss": 2.0}, NOON)
        assert [point.value for point in ledger.metrics(trial.id)] == [2.0]
        assert [point.value for point in ledger.metrics(trial.id, 1)] == [1.0]
