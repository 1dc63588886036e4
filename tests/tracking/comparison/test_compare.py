"""Every number expected here was worked out by hand from the accuracies in the test."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.hand_made import ENVIRONMENT, HandMadeSweep, specification
from tracking.comparison.compare import compare, compare_records
from tracking.comparison.comparison import Comparison, Row, Table, Verdict
from tracking.records import SweepState, TrialState
from tracking.report.report import to_text

FAILED, STOPPED, PENDING = TrialState.FAILED, TrialState.STOPPED, TrialState.PENDING


def only(comparison: Comparison) -> Table:
    (table,) = comparison.tables
    return table


def row(comparison: Comparison, name: str) -> Row:
    (found,) = (row for row in only(comparison).rows if row.name == name)
    return found


def verdicts(comparison: Comparison) -> dict[str, Verdict]:
    return {row.name: row.verdict for row in only(comparison).rows}


class TestRanking:
    def test_a_difference_that_is_not_shown_is_undecided_for_both(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.seeds("confirm", "fpgm", [89.0, 90.0, 91.0])
        sweep.seeds("confirm", "l1", [91.0, 92.0, 93.0])
        comparison = sweep.compare()
        assert verdicts(comparison) == {"l1": Verdict.UNDECIDED, "fpgm": Verdict.UNDECIDED}
        assert only(comparison).leader == row(comparison, "l1")
        other = row(comparison, "fpgm")
        assert other.test is not None
        assert (other.test.seeds, other.test.difference) == ((3, 3), 2.0)
        assert other.reach is not None
        assert other.reach.smallest > 2.0
        assert other.reach.seeds is not None
        assert other.reach.seeds > 3

    def test_a_difference_beyond_noise_has_a_best_and_a_worse(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.seeds("confirm", "l1", [92.0, 92.1, 91.9])
        sweep.seeds("confirm", "fpgm", [91.1, 91.0, 90.9])
        comparison = sweep.compare()
        assert verdicts(comparison) == {"l1": Verdict.BEST, "fpgm": Verdict.WORSE}
        assert row(comparison, "l1").p is None

    def test_a_tie_is_shown_within_a_margin(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.seeds("confirm", "l1", [92.0, 92.1, 91.9])
        sweep.seeds("confirm", "fpgm", [92.0, 92.1, 91.8])
        assert verdicts(sweep.compare()) == {"l1": Verdict.TIE, "fpgm": Verdict.TIE}
        narrow = compare(sweep.ledger, sweep.ledger.sweep(sweep.name), margin=0.05)
        assert verdicts(narrow) == {"l1": Verdict.UNDECIDED, "fpgm": Verdict.UNDECIDED}

    def test_the_very_same_trials_are_the_same_and_keep_the_order_of_the_specification(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("z", "a"))
        for arm in ("a", "z"):
            for seed in (1, 2, 3):
                sweep.add("confirm", arm, index=seed, uid=f"shared-{seed}", test=90.0 + seed)
        comparison = sweep.compare()
        assert [row.name for row in only(comparison).rows] == ["z", "a"]
        assert verdicts(comparison) == {"z": Verdict.BEST, "a": Verdict.SAME}
        assert row(comparison, "a").same_as == "z"

    def test_a_recipe_that_harms_the_dense_network_gets_no_verdict(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.baseline(92.0)
        sweep.seeds("control", "dense", [88.0, 88.1, 87.9], target="", macs=1_000_000)
        sweep.seeds("confirm", "l1", [86.0, 86.1, 85.9])
        sweep.seeds("confirm", "fpgm", [80.0, 80.1, 79.9])
        comparison = sweep.compare()
        harm = only(comparison).harm
        assert harm is not None
        assert harm.difference == pytest.approx(-4.0)
        assert {row.verdict for row in only(comparison).arms} == {Verdict.NO_VERDICT}

    def test_one_seed_has_no_spread_and_is_not_ranked(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.seeds("confirm", "l1", [92.0])
        sweep.seeds("confirm", "fpgm", [80.0])
        comparison = sweep.compare()
        assert verdicts(comparison) == {"l1": Verdict.UNTESTED, "fpgm": Verdict.UNTESTED}
        best = row(comparison, "l1")
        assert best.accuracy is not None
        assert (best.accuracy.n, best.accuracy.std, best.accuracy.low) == (1, None, None)

    def test_a_lone_arm_is_not_called_best(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [92.0, 91.0, 90.0])
        assert verdicts(sweep.compare()) == {"l1": Verdict.ONLY}

    def test_an_arm_off_target_is_shown_but_left_out_of_the_ranking(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "big", "small"))
        sweep.seeds("confirm", "l1", [90.0, 91.0, 92.0], macs=490_001)  # 51.0 %: just on target
        sweep.seeds("confirm", "big", [95.0, 95.0, 95.0], macs=511_000)  # 48.9 %
        sweep.seeds("confirm", "small", [80.0, 80.0, 80.0], macs=480_000)  # 52 %
        comparison = sweep.compare()
        assert [(r.name, r.on_target) for r in only(comparison).rows] == [
            ("l1", True),
            ("big", False),
            ("small", False),
        ]
        assert verdicts(comparison) == {
            "l1": Verdict.ONLY,
            "big": Verdict.OFF_TARGET,
            "small": Verdict.OFF_TARGET,
        }
        assert row(comparison, "big").test is None

    def test_one_run_off_target_takes_its_arm_out(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [90.0, 91.0])
        sweep.add("confirm", "l1", index=3, test=99.0, macs=700_000)
        assert verdicts(sweep.compare()) == {"l1": Verdict.OFF_TARGET}


class TestWhatSelectionLeft:
    def test_accuracy_before_recovery_is_averaged_over_the_runs(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [91.0, 92.0, 93.0])
        left = row(sweep.compare(), "l1").val_accuracy_before
        assert left is not None
        assert (left.n, left.mean) == (3, 45.0)


class TestLearningRates:
    def test_tell_what_was_tried_what_was_taken_and_what_choosing_cost(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        for place, (rate, val) in enumerate(((0.01, 70.0), (0.003, 80.0))):
            recipe = {"recipe": {"epochs": 10, "learning_rate": rate}}
            sweep.add("tune", "uniform_l1", index=place, test=None, val=val, spec=recipe)
        sweep.seeds("confirm", "l1", [1.0, 2.0, 3.0], spec={**recipe, "kind": "prune"})
        comparison = sweep.compare()
        rates = comparison.rates
        assert rates is not None
        assert rates.tried == ((0.01, 70.0), (0.003, 80.0))
        assert (rates.chosen, rates.seconds) == (0.003, 40.0)
        assert "Learning rate 0.003 for all, chosen from 0.01 (70.00 %)" in to_text(comparison, 500)

    def test_are_not_spoken_of_where_one_was_given(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [1.0, 2.0, 3.0])
        assert sweep.compare().rates is None


class TestControls:
    def test_drops_are_counted_from_the_baseline_and_from_the_tuned_dense_network(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.baseline(92.0)
        sweep.seeds("control", "dense", [92.5, 93.0, 93.5], target="", macs=1_000_000)
        sweep.seeds("confirm", "l1", [90.0, 91.0, 92.0])
        arm, dense = row(sweep.compare(), "l1"), row(sweep.compare(), "dense")
        assert arm.test_accuracy_drop == pytest.approx(1.0)
        assert arm.tuned_drop == pytest.approx(2.0)
        assert dense.test_accuracy_drop == pytest.approx(-1.0)
        assert (dense.verdict, dense.on_target) == (Verdict.CONTROL, None)

    def test_a_control_that_has_the_trials_of_an_arm_has_its_test_too(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("a", "b", "l1"))
        sweep.seeds("confirm", "a", [92.0, 92.4, 92.8])
        sweep.seeds("confirm", "b", [90.0, 90.4, 90.8])
        for seed, test in enumerate((91.0, 91.4, 91.8), start=1):
            for role, name in (("confirm", "l1"), ("control", "uniform_l1")):
                sweep.add(role, name, index=seed, test=test, uid=f"l1-{seed}")
        comparison = sweep.compare()
        arm, control = row(comparison, "l1"), row(comparison, "uniform_l1")
        assert control.same_as == "l1"
        assert arm.p is not None
        assert (control.p, control.test, control.reach) == (arm.p, arm.test, arm.reach)

    def test_controls_are_tested_against_the_best_arm_and_come_in_a_fixed_order(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [92.0, 92.0, 92.0])
        sweep.seeds("control", "uniform_l1", [91.0, 90.0, 89.0])
        sweep.seeds("control", "random", [91.1, 91.0, 90.9])
        comparison = sweep.compare()
        assert [row.name for row in only(comparison).controls] == ["random", "uniform_l1"]
        p = [row(comparison, name).p for name in ("random", "uniform_l1")]
        tests = [row(comparison, name).test for name in ("random", "uniform_l1")]
        for corrected, test in zip(p, tests, strict=True):
            assert corrected is not None
            assert test is not None
            assert test.p <= corrected <= 2 * test.p + 1e-9

    def test_a_control_that_wins_is_not_hidden(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [91.1, 91.0, 90.9])
        sweep.seeds("control", "random", [92.0, 92.0, 92.0])
        control = row(sweep.compare(), "random")
        assert control.test is not None
        assert control.test.difference == pytest.approx(-1.0)
        assert control.p is not None
        assert control.p < 0.01

    def test_the_scratch_control_pays_for_the_search_that_found_its_shape(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        for number in range(2):
            sweep.add("search", "l1", index=number, test=90.0, seconds_total=100.0)
        sweep.seeds("confirm", "l1", [91.0, 91.0], seconds_total=30.0)
        sweep.seeds("control", "scratch:l1", [90.0, 90.0], seconds_total=40.0, base_weights=None)
        sweep.seeds("control", "random", [90.0, 90.0], seconds_total=25.0)
        comparison = sweep.compare()
        totals = {r.name: r.total_seconds for r in only(comparison).rows}
        assert totals == {"l1": 230.0, "scratch:l1": 240.0, "random": 25.0}

    def test_switched_off_controls_are_named(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", controls={"random": True}))
        assert sweep.compare().warnings == ("Controls switched off: dense, uniform_l1, scratch.",)


class TestWhatCounts:
    def test_accuracy_comes_from_fresh_seed_runs_and_never_from_the_search(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.add("search", "l1", test=99.0, val=99.0)
        sweep.add("search", "fpgm", test=99.0, val=99.0)
        sweep.seeds("confirm", "fpgm", [90.0, 91.0, 92.0])
        comparison = sweep.compare()
        assert row(comparison, "l1").verdict is Verdict.MISSING
        assert row(comparison, "l1").accuracy is None
        fpgm = row(comparison, "fpgm").accuracy
        assert fpgm is not None
        assert fpgm.mean == 91.0

    def test_failures_are_counted_and_the_mean_is_over_the_rest(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", seeds=(1, 2, 3, 4)))
        sweep.add("search", "l1", index=0, test=90.0)
        sweep.add("search", "l1", index=1, state=FAILED)
        sweep.add("search", "l1", index=2, state=STOPPED)
        sweep.seeds("confirm", "l1", [90.0, 92.0, None])
        sweep.add("confirm", "l1", index=4, state=FAILED, cause="MemoryError: no room")
        comparison = sweep.compare()
        arm = row(comparison, "l1")
        assert arm.accuracy is not None
        assert (arm.accuracy.n, arm.accuracy.mean) == (2, 91.0)
        runs = arm.runs
        assert (runs.asked, runs.completed, runs.not_finite, runs.failed) == (4, 2, 1, 1)
        assert arm.search is not None
        searched = arm.search.runs
        assert (searched.failed, searched.not_finite, searched.stopped) == (1, 1, 1)
        found = [(f.role, f.index, f.state, f.cause, f.error) for f in comparison.failures]
        assert found == [
            ("confirm", 3, "completed", "not finite", "test_accuracy is None"),
            ("confirm", 4, "failed", "MemoryError: no room", ""),
            ("search", 1, "failed", "DivergedError: The training loss stopped being finite.", ""),
            ("search", 2, "stopped", "not promising", ""),
        ]

    def test_rows_with_different_failed_seeds_are_held_against_each_other_over_all_they_have(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.seeds("confirm", "l1", [None, 92.0, 93.0, 94.0])
        sweep.seeds("confirm", "fpgm", [90.0, 91.0, 91.0, 92.0])
        test = row(sweep.compare(), "fpgm").test
        assert test is not None
        assert (test.seeds, test.difference) == ((3, 4), 2.0)

    def test_collapsed_layers_and_overspent_budgets_are_counted(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        thin = {"stage1.0.conv1": 1, "stage2.0.conv1": 31}
        sweep.add("confirm", "l1", index=1, test=90.0, kept=thin)
        sweep.add("confirm", "l1", index=2, test=90.0, epochs_select=3, epochs_recover=8)
        sweep.add("confirm", "l1", index=3, test=90.0, epochs_select=3, epochs_recover=7)
        arm = row(sweep.compare(), "l1")
        assert (arm.runs.collapsed, arm.runs.over_budget) == (1, 1)
        assert arm.epochs == pytest.approx(31 / 3)
        # (1 + 8 + 8) / 3 of 16, (31 + 16 + 16) / 3 of 32
        assert [(w.group, w.kept, w.dense) for w in arm.widths] == [
            ("stage1.0.conv1", pytest.approx(17 / 3), 16),
            ("stage2.0.conv1", 21.0, 32),
        ]
        assert arm.widths[1].share == 0.65625

    def test_cost_is_shown_absolute_and_as_reductions(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [90.0, 90.0], macs=495_000, params=5_000)
        cost = row(sweep.compare(), "l1").cost
        assert cost is not None
        assert (cost.macs, cost.flops, cost.params) == (495_000, 990_000, 5_000)
        assert (cost.macs_reduction, cost.params_reduction) == pytest.approx((0.505, 0.75))

    def test_a_repeated_proposal_is_paid_once_and_a_reused_trial_is_still_paid(
        self, tmp_path: Path
    ) -> None:
        first = HandMadeSweep(tmp_path, specification("l1"), name="first")
        first.add("search", "l1", uid="same", test=90.0, seconds_total=50.0)
        second = HandMadeSweep(tmp_path, specification("l1"), name="second")
        second.add("search", "l1", index=0, uid="same")
        second.add("search", "l1", index=1, uid="same")
        second.add("search", "l1", index=2, test=90.0, seconds_total=7.0)
        search = row(second.compare(), "l1").search
        assert search is not None
        assert (search.proposals, search.trials, search.seconds) == (3, 2, 57.0)

    def test_the_time_of_a_failed_run_is_charged_too(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.add("search", "l1", state=FAILED)
        search = row(sweep.compare(), "l1").search
        (trial,) = sweep.ledger.trials(sweep.ledger.sweep(sweep.name).id)
        assert search is not None
        assert trial.started_at is not None
        assert trial.ended_at is not None
        assert search.seconds == (trial.ended_at - trial.started_at).total_seconds() > 0

    def test_statistics_taken_from_a_cache_are_charged_once_to_those_who_took_them(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("first", "second"))
        cached: dict[str, Any] = {"seconds_statistics": 10.0, "statistics_computed": 0}
        computed: dict[str, Any] = {"seconds_statistics": 10.0, "statistics_computed": 1}
        for arm, shares in (("first", [computed, cached]), ("second", [cached, cached])):
            for number, share in enumerate(shares):
                sweep.add("search", arm, index=number, test=0.0, seconds_total=20.0, **share)
            sweep.add("confirm", arm, index=1, test=90.0, seconds_total=20.0, **shares[0])
        comparison = sweep.compare()
        spent = {r.name: (r.search and r.search.seconds, r.seconds) for r in only(comparison).rows}
        assert spent == {"first": (40.0, 20.0), "second": (50.0, 30.0)}
        assert row(comparison, "first").statistics_seconds == 10.0

    def test_search_is_held_against_its_uniform_first_proposal(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        for number, val in enumerate([90.0, 89.0, 90.5, 90.5]):
            sweep.add("search", "l1", index=number, test=0.0, val=val)
        for number, val in enumerate([90.0, 89.0, 90.0]):
            sweep.add("search", "fpgm", index=number, test=0.0, val=val)
        comparison = sweep.compare()
        found, nothing = row(comparison, "l1").uniform, row(comparison, "fpgm").uniform
        assert found is not None
        assert nothing is not None
        assert (found.gain, found.best_index, found.beaten) == (0.5, 2, True)
        assert (nothing.gain, nothing.best_index, nothing.beaten) == (0.0, 0, False)

    def test_a_search_of_one_or_without_its_uniform_proposal_says_nothing(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.add("search", "l1", index=0, test=0.0)
        sweep.add("search", "fpgm", index=0, state=FAILED)
        sweep.add("search", "fpgm", index=1, test=0.0)
        comparison = sweep.compare()
        assert row(comparison, "l1").uniform is None
        assert row(comparison, "fpgm").uniform is None

    def test_speed_ups_are_computed_and_a_shared_device_is_marked(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        measured = {
            "median_ms": 2.0,
            "p90_ms": 2.5,
            "base_median_ms": 3.0,
            "base_p90_ms": 3.5,
            "speed_up": 99.0,
            "device_name": "NVIDIA H200",
            "dtype": "float32",
        }
        records = [{"batch_size": size, **measured} for size in (128, 1)]
        sweep.add("latency", "l1", test=None, latency=records, shared_device=True)
        found = row(sweep.compare(), "l1").latency
        assert [(x.batch_size, x.speed_up, x.device, x.shared_device) for x in found] == [
            (1, 1.5, "NVIDIA H200", True),
            (128, 1.5, "NVIDIA H200", True),
        ]


class TestWhatMayBeCompared:
    @pytest.mark.parametrize(
        ("key", "name"),
        [
            ("base_weights", "baseline weights"),
            ("recipe_hash", "recipe"),
            ("data_hash", "data"),
            ("policy_hash", "layer policy"),
        ],
    )
    def test_runs_that_do_not_share_what_they_must_never_meet_in_one_table(
        self, tmp_path: Path, key: str, name: str
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.seeds("confirm", "l1", [92.0, 92.0, 92.0])
        sweep.seeds("confirm", "fpgm", [91.1, 91.0, 90.9], **{key: "another"})
        one, other = sweep.compare().tables
        assert one.identity != other.identity
        for table in (one, other):
            assert f"differ in {name}, so they are not compared" in table.warnings[0]
            assert [r.verdict for r in table.rows if r.accuracy] == [Verdict.ONLY]

    def test_training_from_scratch_has_no_baseline_and_a_recipe_of_its_own(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [92.0, 91.0])
        own: dict[str, Any] = {"base_weights": None, "recipe_hash": "of-the-baseline"}
        sweep.seeds("control", "scratch:l1", [90.0, 90.0], **own)
        comparison = sweep.compare()
        assert [r.name for r in only(comparison).rows] == ["l1", "scratch:l1"]
        identity = only(comparison).identity
        assert (identity.base_weights, identity.recipe) == ("w-dense", "r-1")

    def test_a_baseline_with_other_weights_gives_no_drop(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.baseline(92.0, weights="of-another-network")
        sweep.seeds("confirm", "l1", [90.0, 91.0])
        comparison = sweep.compare()
        assert row(comparison, "l1").test_accuracy_drop is None
        assert "dense baseline" in only(comparison).warnings[0]

    def test_different_machines_and_a_changed_checkout_are_said(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", controls={}))
        other = {**ENVIRONMENT, "device_name": "NVIDIA H200", "dirty": True}
        sweep.add("confirm", "l1", index=1, test=90.0)
        sweep.add("confirm", "l1", index=2, test=90.0, environment=other)
        comparison = sweep.compare()
        assert comparison.environments == (ENVIRONMENT, other)
        assert comparison.warnings[1:] == (
            "Runs came from different devices: Test CPU, NVIDIA H200.",
            "Some runs came from a checkout with uncommitted changes.",
        )

    def test_every_target_has_its_own_table_and_is_judged_on_its_own_axis(
        self, tmp_path: Path
    ) -> None:
        spec = specification("l1", macs=(0.3, 0.5), params=(0.4,))
        sweep = HandMadeSweep(tmp_path, spec)
        sweep.seeds("confirm", "l1", [90.0, 91.0], target="params-40%", params=12_000, macs=1)
        tables = sweep.compare().tables
        assert [(t.target, t.axis, t.reduction) for t in tables] == [
            ("macs-30%", "macs", 0.3),
            ("macs-50%", "macs", 0.5),
            ("params-40%", "params", 0.4),
        ]
        assert [r.on_target for t in tables for r in t.rows] == [None, None, True]


class TestPartialSweeps:
    def test_a_sweep_that_has_just_begun_says_what_is_to_come(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.add("baseline", target="", state=PENDING)
        comparison = sweep.compare(SweepState.RUNNING)
        assert comparison.missing == (
            "dense baseline: not evaluated yet",
            "control dense: not begun",
            "control random at macs-50%: not begun",
            "control uniform_l1 at macs-50%: not begun",
            "search of l1 at macs-50%: not begun",
            "fresh-seed runs of l1 at macs-50%: not begun",
            "winning shape from scratch at macs-50%: not begun",
            "latency of l1 at macs-50%: not begun",
        )
        assert verdicts(comparison) == {"l1": Verdict.MISSING}
        assert comparison.dense is None

    def test_what_is_under_way_is_counted_and_what_failed_is_not_awaited(
        self, tmp_path: Path
    ) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", controls={}, trials=3))
        sweep.baseline()
        for number in range(2):
            sweep.add("search", "l1", index=number, test=90.0)
        sweep.seeds("confirm", "l1", [90.0])
        sweep.add("confirm", "l1", index=2, state=FAILED)
        sweep.add("confirm", "l1", index=3, state=PENDING)
        sweep.add("latency", "l1", state=PENDING)
        comparison = sweep.compare(SweepState.RUNNING)
        assert comparison.missing == (
            "search of l1 at macs-50%: 2 of 3 in",
            "fresh-seed runs of l1 at macs-50%: 2 of 3 in",
            "latency of l1 at macs-50%: waiting",
        )
        assert row(comparison, "l1").runs.waiting == 1

    def test_a_finished_sweep_misses_nothing(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", trials=1))
        sweep.baseline()
        sweep.add("search", "l1", test=90.0)
        sweep.seeds("confirm", "l1", [90.0, 91.0, 92.0])
        sweep.seeds("control", "dense", [92.0] * 3, target="")
        for name in ("random", "uniform_l1", "scratch:l1"):
            sweep.seeds("control", name, [90.0] * 3)
        sweep.add("latency", "l1", test=90.0)
        comparison = sweep.compare()
        assert comparison.missing == ()
        assert comparison.seeds == (1, 2, 3)

    def test_a_given_checkpoint_and_uniform_ratios_leave_nothing_to_wait_for(
        self, tmp_path: Path
    ) -> None:
        spec = specification("l1", controls={}, trials=1) | {"checkpoint": "resnet.th"}
        sweep = HandMadeSweep(tmp_path, spec)
        sweep.baseline()
        sweep.seeds("confirm", "l1", [90.0, 91.0, 92.0])
        sweep.add("latency", "l1", test=90.0)
        assert sweep.compare().missing == ()

    def test_the_order_records_come_in_changes_nothing(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        sweep.baseline()
        sweep.seeds("confirm", "l1", [90.0, 91.0, 92.0])
        sweep.seeds("confirm", "fpgm", [90.0, 91.0, 91.5])
        record = sweep.ledger.sweep(sweep.name)
        entries, trials = sweep.ledger.entries(record.id), sweep.ledger.trials(record.id)
        random.Random(1).shuffle(entries)
        random.Random(2).shuffle(trials)
        assert compare_records(record, entries, trials) == compare(sweep.ledger, record)

    def test_an_entry_whose_trial_is_unknown_is_left_out(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1"))
        sweep.seeds("confirm", "l1", [90.0, 91.0])
        record = sweep.ledger.sweep(sweep.name)
        entries, trials = sweep.ledger.entries(record.id), sweep.ledger.trials(record.id)
        lost = [replace(entries[0], trial_id=999), *entries[1:]]
        assert row(compare_records(record, lost, trials), "l1").by_seed == {2: 91.0}


class TestFronts:
    def front_sweep(self, folder: Path) -> HandMadeSweep:
        sweep = HandMadeSweep(folder, specification("l1", macs=(), controls={}, trials=5))
        proposals: list[tuple[int, float]] = [
            (800_000, 92.0),
            (600_000, 91.0),
            (700_000, 90.5),  # dearer and worse than the one before
            (400_000, 91.0),  # as good as the second, and cheaper
            (200_000, 85.0),
        ]
        for number, (macs, val) in enumerate(proposals):
            sweep.add("search", "l1", "front", number, macs=macs, val=val, test=0.0)
        sweep.add("search", "l1", "front", 5, state=FAILED)
        return sweep

    def test_only_proposals_no_other_dominates_are_on_the_front(self, tmp_path: Path) -> None:
        comparison = self.front_sweep(tmp_path).compare()
        (front,) = comparison.fronts
        assert [(p.index, p.macs, p.val_accuracy) for p in front.points] == [
            (0, 800_000, 92.0),
            (3, 400_000, 91.0),
            (4, 200_000, 85.0),
        ]
        assert front.points[1].macs_reduction == pytest.approx(0.6)
        assert (front.search.trials, front.search.runs.failed) == (6, 1)
        assert comparison.tables == ()

    def test_points_run_again_show_their_accuracy_and_are_not_ranked(self, tmp_path: Path) -> None:
        sweep = self.front_sweep(tmp_path)
        sweep.baseline(92.0)
        sweep.seeds("confirm", "l1", [90.0, 91.0], target="front-3", macs=400_000)
        sweep.seeds("confirm", "l1", [92.0, 92.0], target="front-0", macs=800_000)
        sweep.seeds("control", "random", [80.0, 81.0], target="macs-50%")
        sweep.seeds("control", "dense", [92.5, 92.5], target="", macs=1_000_000)
        comparison = sweep.compare()
        points = comparison.fronts[0].points
        means = [point.accuracy.mean if point.accuracy else None for point in points]
        assert means == [92.0, 90.5, None]
        table = only(comparison)
        assert [(r.name, r.arm, r.verdict) for r in table.rows] == [
            ("l1 #0", "l1", Verdict.UNRANKED),
            ("l1 #3", "l1", Verdict.UNRANKED),
            ("dense", "dense", Verdict.CONTROL),
            ("random macs-50%", "random", Verdict.CONTROL),
        ]
        assert [r.test_accuracy_drop for r in table.rows] == [0.0, 1.5, -0.5, 11.5]
        assert [r.p for r in table.rows] == [None] * 4
        assert table.leader is None
        assert [r.search.trials if r.search else None for r in table.rows] == [6, 6, None, None]

    def test_what_a_front_still_waits_for_is_listed(self, tmp_path: Path) -> None:
        sweep = self.front_sweep(tmp_path)
        sweep.add("confirm", "l1", "front-3", 1, test=90.0)
        sweep.add("confirm", "l1", "front-3", 2, state=PENDING)
        assert sweep.compare(SweepState.RUNNING).missing == (
            "dense baseline: not evaluated yet",
            "fresh-seed runs of l1 at front: 1 of 9 in",
            "latency of l1 at front: not begun",
        )
