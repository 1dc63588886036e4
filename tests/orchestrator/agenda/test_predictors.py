"""Arms that train against a latency predictor wait for it; the others do not."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.agenda.predictors import predictor_settings
from orchestrator.agenda.queue import Wanted
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.agenda.test_agenda import Play, fails, of_role, silent
from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import DEVICE, OFF, Bench, specification
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.places import Place, Role
from tracking.records import TrialState
from tracking.report.grids import grids_of
from tracking.report.report import to_html, to_json, to_markdown, to_text

LATENCY = {"cost": "latency", "samples": 50}
GATES = {"method": "weight_gates", "settings": LATENCY, "allocation": "method", "name": "gates"}
FREE = {**GATES, "method": "free_gates", "name": "free"}
SEARCHED = {"method": "weight_gates", "settings": LATENCY, "name": "searched"}


def sweep(*arms: Any, **changes: Any) -> SweepSpec:
    return specification(arms=["l1", *(arms or (GATES,))], **changes)


def result_of(wanted: Wanted) -> dict[str, Any]:
    return simulate(wanted.trial, silent)


class TestAgenda:
    def test_a_predictor_is_wanted_first_once_the_weights_are_known(self) -> None:
        play = Play.of(sweep())
        play.baseline()
        first, *others = play.take()
        assert first.place == Place(Role.PREDICTOR, "gates", "", 0)
        assert first.is_exclusive
        assert (first.trial.kind, first.trial.weights) == ("predictor", None)
        assert first.trial.method_settings == {"samples": 50, "batch_size": None}
        assert first.trial.device == DEVICE
        assert {wanted.place.arm for wanted in of_role(others, "search")} == {"l1"}
        assert not of_role(others, "confirm")

    def test_neither_seed_nor_epochs_matter_to_it(self) -> None:
        found = []
        for changes in ({}, {"recipe": {"epochs": 7}, "search": {"trials": 4, "seed": 9}}):
            play = Play.of(sweep(**changes))
            play.baseline()
            found.append(play.take()[0].trial.uid)
        assert found[0] == found[1]

    @pytest.mark.parametrize("changes", [{"recipe": {"epochs": 2, "precision": "bfloat16"}}])
    def test_the_number_type_does(self, changes: dict[str, Any]) -> None:
        plays = [Play.of(sweep()), Play.of(sweep(**changes))]
        for play in plays:
            play.baseline()
        one, other = (play.take()[0].trial.uid for play in plays)
        assert one != other

    def test_trials_name_the_predictor_they_train_against(self) -> None:
        play = Play.of(sweep(GATES, SEARCHED))
        play.baseline()
        predictors = of_role(play.take(), "predictor")
        assert [wanted.place.arm for wanted in predictors] == ["gates", "searched"]
        assert predictors[0].trial.uid == predictors[1].trial.uid  # measured once
        content = result_of(predictors[0])["predictor"]
        for wanted in predictors:
            play.end(wanted)
        play.through()
        for wanted in play.given:
            mine = wanted.place.role in {"search", "confirm"} and wanted.place.arm != "l1"
            assert wanted.trial.predictor == (content if mine else None)
        assert {"gates", "searched"} < {place.arm for place in play.places("confirm")}

    def test_arms_that_need_none_have_none(self) -> None:
        play = Play.of(specification(arms=["l1", {**GATES, "settings": {}}]))
        play.through()
        assert not play.places("predictor")
        assert all("predictor" not in wanted.trial.model_dump() for wanted in play.given)

    def test_a_predictor_that_fails_costs_its_arms_and_no_other(self) -> None:
        play = Play.of(sweep(GATES, SEARCHED, FREE), fails(lambda place: place.role == "predictor"))
        play.through()
        assert {place.arm for place in play.places("confirm")} == {"l1"}
        assert {place.arm for place in play.places("search")} == {"l1"}
        assert play.places("latency") == [Place(Role.LATENCY, "l1", "macs-50%", 0)]

    def test_it_is_counted(self) -> None:
        lines = [line for line in trial_matrix(sweep()).cells if line.role == "predictor"]
        assert [(line.arm, line.trials, line.epochs) for line in lines] == [("gates", 1, 0)]

    def test_it_is_wanted_when_a_search_may_come_to_latency(self) -> None:
        costs = {"cost": {"choices": ["macs", "latency"]}, "samples": 60}
        arm = ArmSettings.model_validate({"method": "weight_gates", "settings": costs})
        settings = predictor_settings(arm)
        assert settings is not None
        assert settings.samples == 60


def compared(bench: Bench) -> Comparison:
    return compare(bench.ledger, bench.ledger.sweep(bench.name))


class TestDriver:
    def test_it_runs_alone_and_before_its_arms(self, tmp_path: Path) -> None:
        bench, backend = Bench(tmp_path), SeededBackend(slots=3, seed=1)
        assert bench.drive(sweep(), backend).over
        kinds = [spec.kind for spec in backend.started]
        assert kinds[:2] == ["baseline", "predictor"]
        assert backend.alone == [kind in {"latency", "predictor"} for kind in kinds]
        (entry,) = bench.entries(role="predictor")
        assert entry.place == Place(Role.PREDICTOR, "gates", "", 0)
        assert bench.trial(entry).state is TrialState.COMPLETED

    def test_another_sweep_of_the_ledger_finds_it(self, tmp_path: Path) -> None:
        Bench(tmp_path, "one").drive(sweep(controls=OFF))
        other = Bench(tmp_path, "other")
        other.drive(sweep(controls=OFF, recipe={"epochs": 5}))
        (trial,) = other.trials_of(role="predictor")
        assert trial.reused_from is not None

    def test_a_sweep_that_was_stopped_goes_on_with_the_predictor_it_has(
        self, tmp_path: Path
    ) -> None:
        bench = Bench(tmp_path)
        bench.drive(sweep(controls=OFF), stop_when=lambda log: len(log.trials) >= 3)
        backend = SeededBackend()
        assert bench.drive(sweep(controls=OFF), backend).over
        assert "predictor" not in [spec.kind for spec in backend.started]
        assert len(bench.entries(role="predictor")) == 1
        whole = Bench(tmp_path / "whole")
        whole.drive(sweep(controls=OFF))
        assert bench.content() == whole.content()

    def test_a_failed_one_is_run_again_with_what_waited_for_it(self, tmp_path: Path) -> None:
        bench, broken = Bench(tmp_path), True

        def run(spec: Any, report: Any) -> dict[str, Any]:
            if spec.kind == "predictor" and broken:
                raise RuntimeError("the machine is on fire")
            return simulate(spec, report)

        assert bench.drive(sweep(controls=OFF), SeededBackend(runner=run)).over
        assert not bench.entries(role="confirm", arm="gates")
        comparison = compared(bench)
        assert not any("gates" in line for line in comparison.missing)
        assert [f.role for f in comparison.failures] == ["predictor"]
        assert comparison.predictors == ()
        broken = False
        assert bench.drive(sweep(controls=OFF), SeededBackend(runner=run), retry=True).over
        assert len(bench.entries(role="confirm", arm="gates")) == 2


class TestReport:
    @pytest.fixture
    def comparison(self, tmp_path: Path) -> Comparison:
        bench = Bench(tmp_path)
        bench.drive(sweep(GATES, FREE))
        return compared(bench)

    def test_the_predictor_is_reported_once_with_its_arms(self, comparison: Comparison) -> None:
        (found,) = comparison.predictors
        assert found.arms == ("free", "gates")
        assert (found.samples, found.correlated.r2, found.full_width_error) == (50, 0.9, 0.05)
        for text in (to_text(comparison), to_markdown(comparison), to_html(comparison)):
            assert "Latency predictor of free, gates" in text
            assert "0.950" in text
        assert '"spearman": 0.95' in to_json(comparison)

    def test_its_time_counts_as_cost_of_its_arms(self, comparison: Comparison) -> None:
        rows = {row.name: row for row in comparison.tables[0].rows}
        for name in ("gates", "free"):
            row = rows[name]
            assert row.predictor_seconds == 1.0
            assert row.seconds is not None
            assert row.total_seconds == row.seconds + 1.0
        assert rows["l1"].predictor_seconds is None
        assert rows["uniform_l1"].predictor_seconds is None
        (effort,) = [g for g in grids_of(comparison.tables[0]) if g.title == "Effort"]
        assert "Predictor" in effort.columns

    def test_a_sweep_without_one_has_no_such_column(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path)
        bench.drive(specification(controls=OFF))
        (effort,) = [g for g in grids_of(compared(bench).tables[0]) if g.title == "Effort"]
        assert "Predictor" not in effort.columns
        assert "Latency predictor" not in to_html(compared(bench))
