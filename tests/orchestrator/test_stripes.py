"""Arms that prune stripes beside arms that prune filters: each on its own groups, at one cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.structure.stripe_conv import StripeConv
from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.survey import survey
from orchestrator.errors import SpecError
from orchestrator.loop.backend import InlineBackend
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.sweeps import OFF, Bench, specification
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.places import Role
from tracking.records import TrialRecord, TrialState
from workers.node.node import Node
from workers.rebuild import export_trial, load_pruned
from workers.settings import TrialSpec
from workers.trial import run_trial

ARMS = ["l1", "stripe_wise"]
SPATIAL = {"conv2", "conv3", "conv4"}
NATIVE = {
    "method": "stripe_wise",
    "name": "native",
    "settings": {"mode": "native", "alpha": 1e-5, "delta": {"low": 0.99, "high": 1.0}},
    "allocation": "method",
}


def side_by_side(**changes: Any) -> SweepSpec:
    controls = {**OFF, "random": True, "scratch": True}
    return specification(**{"arms": ARMS, "controls": controls, **changes})


class TestSurvey:
    def test_each_arm_has_the_groups_of_what_it_prunes(self) -> None:
        surveyed = survey(side_by_side())
        assert surveyed.stripes is not None
        assert surveyed.of("filters").layout.widths == {"conv2": 64, "conv3": 64, "conv4": 128}
        assert surveyed.of("stripes").layout.widths == {"conv2": 576, "conv3": 576, "conv4": 1152}

    def test_protected_layers_are_protected_from_both(self) -> None:
        layers = {"protect": ["conv3"], "protect_stem": False}
        surveyed = survey(side_by_side(layers=layers, targets={"macs_reduction": [0.3]}))
        names = [set(prunable.layout.widths) for prunable in surveyed.every_unit]
        assert names == [{"conv1", "conv2", "conv4"}] * 2

    def test_stripes_are_looked_for_only_where_an_arm_prunes_them(self) -> None:
        assert survey(specification()).stripes is None

    def test_a_network_without_spatial_convolutions_is_refused_at_the_arm(self) -> None:
        protect = {"protect": sorted(SPATIAL)}
        spec = side_by_side(layers={**protect, "protect_stem": True}, arms=["stripe_wise"])
        with pytest.raises(SpecError, match="no layer of DigitsNet may be pruned"):
            survey(spec)

    def test_trials_say_what_is_pruned_and_others_are_named_as_before(self) -> None:
        spec = side_by_side(checkpoint=None)
        agenda = Agenda(spec, survey(spec), "a machine")
        agenda.begin([], [])
        baseline = agenda.next(10)[0]
        agenda.ended(baseline.place, baseline.trial.uid, TrialState.COMPLETED, {"weights": "w"})
        trials = {(w.place.role, w.place.arm): w.trial for w in agenda.next(100)}
        assert trials[Role.SEARCH, "stripe_wise"].unit == "stripes"
        assert trials[Role.SEARCH, "l1"].unit == trials[Role.CONTROL, "random"].unit == "filters"
        assert "unit" not in trials[Role.SEARCH, "l1"].model_dump(mode="json")
        assert trials[Role.SEARCH, "stripe_wise"].layers == spec.layers


class TestSpecification:
    def test_the_native_mode_cannot_meet_a_target(self) -> None:
        with pytest.raises(SpecError, match="'native' has settings that say what goes"):
            side_by_side(arms=["l1", NATIVE])

    def test_the_native_mode_leaves_the_ratios_to_the_method(self) -> None:
        arm = {**NATIVE, "allocation": "search"}
        with pytest.raises(SpecError, match="give it allocation: method"):
            side_by_side(arms=[arm], targets=None)

    def test_the_native_mode_needs_something_to_search(self) -> None:
        arm = {**NATIVE, "settings": {"mode": "native"}}
        with pytest.raises(SpecError, match="one of these settings a range"):
            side_by_side(arms=[arm], targets=None)

    def test_the_layer_policy_of_stripes_is_not_for_sweeps(self) -> None:
        with pytest.raises(SpecError, match=r"layers\.policy"):
            specification(layers={"policy": "stripes"})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder, threads = tmp_path_factory.mktemp("node"), torch.get_num_threads()
    torch.set_num_threads(1)
    yield Node(
        device=torch.device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
    )
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def run(spec: SweepSpec, node: Node, folder: Path) -> Bench:
    bench = Bench(folder)
    backend = InlineBackend(lambda trial, report: run_trial(trial, node, report))
    driven = bench.drive(spec, backend, on=survey(spec))
    assert driven.over
    causes = [trial.cause for trial in bench.trials() if trial.state is TrialState.FAILED]
    assert not causes
    return bench


def result(trial: TrialRecord) -> dict[str, Any]:
    assert trial.result is not None
    return trial.result


@pytest.fixture(scope="module")
def bench(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A sweep of three arms at one target."""
    allocated = {"method": "stripe_wise", "allocation": "method"}
    spec = side_by_side(arms=[*ARMS, allocated], search={"trials": 2, "ratios_per": "stage"})
    return run(spec, node, tmp_path_factory.mktemp("sweep"))


@pytest.mark.slow
class TestSweep:
    def test_both_land_at_the_target(self, bench: Bench) -> None:
        for arm in (*ARMS, "stripe_wise-allocated"):
            for trial in bench.trials_of(role="confirm", arm=arm):
                found = result(trial)
                assert found["macs"] == pytest.approx(0.5 * found["base_macs"], rel=0.01)
                assert found["masked_difference"] < 1e-5

    def test_they_are_compared_in_one_table(self, bench: Bench) -> None:
        comparison = compare(bench.ledger, bench.ledger.sweep(bench.name))
        (table,) = comparison.tables
        assert {*ARMS, "random"} <= {row.name for row in table.rows}
        assert not [text for text in comparison.warnings if "layer policy" in text]

    def test_selection_and_recovery_share_the_epochs(self, bench: Bench) -> None:
        (first, *_) = bench.trials_of(role="confirm", arm="stripe_wise")
        found = result(first)
        assert (found["epochs_select"], found["epochs_recover"]) == (1, 1)
        assert found["notes"]["stripes removed"] > 0

    def test_latency_is_that_of_the_broken_network(self, bench: Bench) -> None:
        (trial,) = bench.trials_of(role="latency", arm="stripe_wise")
        assert trial.spec["unit"] == "stripes"
        (confirmed, *_) = bench.trials_of(role="confirm", arm="stripe_wise")
        assert result(trial)["macs"] == result(confirmed)["macs"]

    def test_the_winner_is_trained_from_scratch_in_its_shape(self, bench: Bench) -> None:
        scratch = [e for e in bench.entries(role="control") if e.place.arm.startswith("scratch")]
        assert scratch
        for entry in scratch:
            assert result(bench.trial(entry))["macs_reduction"] == pytest.approx(0.5, abs=0.01)

    def test_an_exported_network_is_a_stripe_convolution_again(
        self, bench: Bench, node: Node, tmp_path: Path
    ) -> None:
        (trial, *_) = bench.trials_of(role="confirm", arm="stripe_wise")
        folder = export_trial(
            TrialSpec.model_validate(trial.spec), result(trial), node.artifacts, tmp_path / "net"
        )
        network = load_pruned(folder)
        assert {n for n, m in network.named_modules() if isinstance(m, StripeConv)} == SPATIAL
        assert network(torch.zeros(3, 1, 8, 8)).isfinite().all()


@pytest.mark.slow
def test_a_front_searches_the_native_settings(node: Node, tmp_path: Path) -> None:
    spec = side_by_side(
        arms=[NATIVE],
        targets=None,
        controls=OFF,
        search={"trials": 3},
        recipe={"epochs": 2, "learning_rate": 0.1, "batch_size": 16},
    )
    bench = run(spec, node, tmp_path)
    trials = bench.trials_of(role="search", arm="native")
    assert len({trial.spec["method_settings"]["delta"] for trial in trials}) == 3
    assert len({result(trial)["macs"] for trial in trials}) > 1
    assert bench.trials_of(role="confirm", arm="native")
