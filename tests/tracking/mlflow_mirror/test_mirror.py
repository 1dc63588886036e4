from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.comparison.compare import compare
from tracking.mlflow_mirror.mirror import (
    attempt_run,
    flatten,
    no_longer,
    run_name,
    sweep_key,
    sweep_run,
)
from tracking.mlflow_mirror.verdicts import verdicts_of
from tracking.places import Place, Role
from tracking.records import (
    AttemptRecord,
    EntryRecord,
    MetricPoint,
    Outcome,
    SweepRecord,
    SweepState,
    TrialRecord,
    TrialState,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOON_MS = 1_795_348_800_000
SWEEP = SweepRecord(
    id=1,
    name="grid",
    spec={
        "name": "grid",
        "arms": [{"name": "l1", "method": "filter_norm"}, {"name": "random", "method": "random"}],
        "recipe": {"epochs": 3, "warmup": None},
        "tracking": {"ledger": "${LEDGER}"},
    },
    spec_hash="hash",
    state=SweepState.COMPLETED,
    epoch=1,
    owner="me",
    artifacts={"report.html": "sweeps/grid/report.html"},
    experiment_id=None,
    run_id=None,
    created_at=NOON,
    rev=1,
    published_rev=0,
)
TRIAL = TrialRecord(
    id=1,
    sweep_id=1,
    uid="uid",
    spec={"kind": "prune", "seed": 3, "method": "filter_norm", "ratios": {"conv1": 0.25}},
    state=TrialState.COMPLETED,
    attempt=2,
    losses=1,
    result={"test_accuracy": 90.0, "macs": 21, "shared_device": True, "note": "text"},
    error=None,
    cause=None,
    reused_from=None,
    created_at=NOON,
    started_at=NOON,
    ended_at=NOON,
    rev=1,
    published_rev=0,
)
ATTEMPT = AttemptRecord(
    trial_id=1,
    n=2,
    node="node",
    pid=1,
    started_at=NOON,
    ended_at=NOON + timedelta(seconds=2.5),
    outcome=Outcome.COMPLETED,
    loss=None,
    error=None,
    run_id=None,
)


def entry(role: str, arm: str = "l1", target: str = "macs-50%", index: int = 3) -> EntryRecord:
    place = Place(Role(role), arm, target, index)
    return EntryRecord(id=1, sweep_id=1, place=place, trial_id=1, proposal=None, at=NOON)


def curve(*values: float, key: str = "val_accuracy") -> list[MetricPoint]:
    return [MetricPoint(step=step, key=key, value=v, at=NOON) for step, v in enumerate(values)]


@pytest.mark.parametrize(
    ("of", "attempt", "name"),
    [
        (entry("search"), 1, "l1 macs-50% #3"),
        (entry("search"), 2, "l1 macs-50% #3 (attempt 2)"),
        (entry("confirm"), 1, "confirm l1 macs-50% seed 3"),
        (entry("baseline", arm="", target=""), 1, "baseline seed 3"),
    ],
)
def test_runs_are_named_for_people(of: EntryRecord, attempt: int, name: str) -> None:
    assert run_name([of], attempt) == name


def test_nested_settings_become_flat_params_without_the_empty_ones() -> None:
    settings = {"recipe": {"epochs": 3, "steps": [0.5], "path": None}, "on": True, "text": ""}
    assert flatten(settings) == {"recipe.epochs": "3", "recipe.steps": "[0.5]", "on": "true"}


class TestAttempt:
    def test_only_the_attempt_that_ended_the_trial_is_its_result(self) -> None:
        lost = replace(ATTEMPT, n=1, outcome=Outcome.LOST)
        first = attempt_run(SWEEP, TRIAL, lost, [], [])
        second = attempt_run(SWEEP, TRIAL, ATTEMPT, [], [])
        results = [run.tags["prunesweep.is_result"] for run in (first, second)]
        assert results == ["false", "true"]
        assert not first.points
        assert first.key != second.key

    @pytest.mark.parametrize(
        "state", [TrialState.PENDING, TrialState.RUNNING, TrialState.CANCELLED]
    )
    def test_a_trial_without_an_outcome_has_no_result(self, state: str) -> None:
        run = attempt_run(SWEEP, replace(TRIAL, state=TrialState(state)), ATTEMPT, [], [])
        assert run.tags["prunesweep.is_result"] == "false"

    def test_times_are_the_ledgers(self) -> None:
        run = attempt_run(SWEEP, TRIAL, ATTEMPT, [], [])
        assert (run.start_ms, run.end_ms) == (NOON_MS, NOON_MS + 2500)
        assert {point.timestamp_ms for point in run.points} == {NOON_MS + 2500}

    def test_flops_are_twice_the_macs_and_flags_are_no_numbers(self) -> None:
        points = attempt_run(SWEEP, TRIAL, ATTEMPT, [entry("confirm")], []).points
        assert {point.key: point.value for point in points} == {
            "test_accuracy": 90.0,
            "macs": 21.0,
            "flops": 42.0,
        }

    def test_results_come_behind_the_end_of_the_curves(self) -> None:
        entries = [entry("confirm")]
        points = attempt_run(SWEEP, TRIAL, ATTEMPT, entries, curve(1.0, 2.0)).points
        assert [point.step for point in points if point.key == "test_accuracy"] == [2]

    @pytest.mark.parametrize("role", [*Role])
    def test_only_runs_that_count_show_how_they_did_on_the_test_split(self, role: Role) -> None:
        curves = curve(80.0, key="test_accuracy")
        lost = replace(ATTEMPT, n=1, outcome=Outcome.LOST)
        first = attempt_run(SWEEP, TRIAL, lost, [entry(role)], curves)
        assert "test_accuracy" not in {point.key for point in first.points}
        second = attempt_run(SWEEP, TRIAL, ATTEMPT, [entry(role)], curves)
        shown = "test_accuracy" in {point.key for point in second.points}
        assert shown == (role in {"baseline", "confirm", "control"})

    @pytest.mark.parametrize(("final", "expected"), [(2.0, [1.0, 2.0]), (2.5, [1.0, 2.0, 2.5])])
    def test_a_curve_is_extended_by_its_final_value_only_if_that_is_news(
        self, final: float, expected: list[float]
    ) -> None:
        trial = replace(TRIAL, result={"val_accuracy": final})
        points = attempt_run(SWEEP, trial, ATTEMPT, [], curve(1.0, 2.0)).points
        assert [point.value for point in points] == expected

    def test_roles_and_arms_of_all_entries_are_tags(self) -> None:
        entries = [entry("search"), entry("control", arm="uniform_l1"), entry("search", index=4)]
        tags = attempt_run(SWEEP, TRIAL, ATTEMPT, entries, []).tags
        assert tags["prunesweep.roles"] == "control,search"
        assert tags["prunesweep.arm"] == "l1,uniform_l1"
        assert tags["prunesweep.target"] == "macs-50%"

    def test_each_role_arm_and_target_has_a_tag_of_its_own(self) -> None:
        entries = [entry("search"), entry("control", arm="uniform_l1"), entry("search", index=4)]
        tags = attempt_run(SWEEP, TRIAL, ATTEMPT, entries, []).tags
        own = {key.removeprefix("prunesweep.") for key, value in tags.items() if value == "true"}
        assert own == {
            "role.search",
            "role.control",
            "arm.l1",
            "arm.uniform_l1",
            "target.macs-50pct",
            "is_result",
        }

    def test_what_a_run_is_no_longer_for_is_taken_back(self) -> None:
        before = attempt_run(SWEEP, TRIAL, ATTEMPT, [entry("search"), entry("confirm")], [])
        now = attempt_run(SWEEP, TRIAL, ATTEMPT, [entry("search")], [])
        assert no_longer(now, before.tags) == {"prunesweep.role.confirm": "false"}
        assert no_longer(before, before.tags) == {}

    def test_a_plan_is_a_file_and_no_param(self) -> None:
        plan = {"kept": {"conv1": [0]}}
        trial = replace(TRIAL, spec={**TRIAL.spec, "plan": plan}, result={"plan": plan})
        run = attempt_run(SWEEP, trial, ATTEMPT, [], [])
        assert run.files == {"plan.json": b'{"kept": {"conv1": [0]}}'}
        assert not any("plan" in key for key in run.params)
        assert run.params["ratio.conv1"] == "0.25"

    def test_the_end_of_a_long_error_is_kept(self) -> None:
        trial = replace(TRIAL, state=TrialState.FAILED, result=None, error="x" * 9000 + "Boom")
        failed = replace(ATTEMPT, outcome=Outcome.FAILED)
        tag = attempt_run(SWEEP, trial, failed, [], []).tags["prunesweep.error"]
        assert tag.endswith("xBoom")
        assert len(tag) == 5000


class TestSweep:
    def test_shows_what_was_asked_but_not_where_it_is_kept(self) -> None:
        run = sweep_run(SWEEP, NOON)
        arm: Any = run.params["arm.l1"]
        assert arm == '{"method": "filter_norm", "name": "l1"}'
        assert run.params["recipe.epochs"] == "3"
        assert not any(key.startswith("tracking") for key in run.params)
        assert run.status == "FINISHED"
        assert "l1, random" in run.tags["mlflow.note.content"]
        assert run.copies == SWEEP.artifacts

    def test_a_sweep_of_the_same_name_in_a_new_ledger_is_another_one(self) -> None:
        later = replace(SWEEP, created_at=NOON + timedelta(microseconds=1))
        assert sweep_key(later) != sweep_key(SWEEP)
        changed = replace(SWEEP, state=SweepState.FAILED, spec={}, epoch=9)
        assert sweep_key(changed) == sweep_key(SWEEP)

    def test_its_numbers_are_named_by_target_measure_and_arm(self, tmp_path: Path) -> None:
        made = HandMadeSweep(tmp_path, specification("l1", "fpgm", seeds=[1, 2]))
        made.baseline()
        for arm, test in (("l1", 91.0), ("fpgm", 89.0)):
            for seed in (1, 2):
                made.add("confirm", arm, index=seed, test=test + seed)
        data = {"data": {"name": "digits"}, "data_hash": "d" * 40}
        made.add("control", "random", index=1, test=80.0, spec=data)
        record = made.ledger.sweep(made.name)
        trials = made.ledger.trials(record.id)
        verdicts = verdicts_of(compare(made.ledger, record))
        made.ledger.close()
        run = sweep_run(record, NOON, "", verdicts, trials)
        values = {point.key: point.value for point in run.points}
        assert values["macs-50pct.accuracy_mean/l1"] == 92.5
        assert values["macs-50pct.accuracy_mean/fpgm"] == 90.5
        assert values["macs-50pct.accuracy_std/l1"] == pytest.approx(0.5**0.5)
        assert values["macs-50pct.macs_reduction/random"] == 0.5
        assert values["trials_ended"] == len(trials) == 6
        assert {(point.step, point.timestamp_ms) for point in run.points} == {(6, NOON_MS)}
        assert run.tags["prunesweep.verdict.macs-50pct/random"] == "control"
        assert "| l1 | 92.50 ± 0.71 |" in run.tags["mlflow.note.content"]
        assert run.data is not None
        assert (run.data.name, len(run.data.digest)) == ("digits", 36)
