import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import methods
import workers.training.session
import workers.trial
from methods import (
    PruningMethod,
    PruningPlan,
    Ratios,
    Session,
    UnknownMethodError,
)
from methods.base import prune_lowest
from tracking.answers import unpack_answers
from tracking.artifacts import ArtifactNotFoundError, ArtifactStore
from workers.data import describe
from workers.errors import ArtifactCorruptError, BudgetError, WeightsMismatchError
from workers.models import build_model
from workers.networks.checkpoints import from_safetensors, weights_hash
from workers.networks.shapes import layout_of, shrink_fresh
from workers.node.node import DeviceError, Node, resolve_device, weights_path
from workers.settings import DataSettings, LayerSettings, ModelSettings, Recipe, TrialSpec
from workers.training.loop import DivergedError
from workers.training.measure import Evaluation, evaluate_each, recalibrate_batch_norm
from workers.trial import (
    DataChangedError,
    MaskedDifferenceError,
    TrialSpecError,
    run_trial,
)

DATA = DataSettings(train_images=200, test_images=60, validation_fraction=0.2)
RATIOS = {"conv2": 0.5, "conv3": 0.25, "conv4": 0.5}
#: Differ between two runs of one trial: by the clock, and by what the machine has cached.
BY_THE_CLOCK = {
    "seconds_select",
    "seconds_recover",
    "seconds_statistics",
    "seconds_total",
    "statistics_computed",
    "statistics_reused",
}


def nothing(_step: int, _values: dict[str, float]) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Bench:
    """A node with a trained baseline, and the specifications of trials on it."""

    node: Node
    baseline: dict[str, Any]
    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def spec(self, **changes: object) -> TrialSpec:
        base = TrialSpec(
            kind="prune",
            model=ModelSettings(name="digits_net"),
            data=DATA,
            data_hash=describe(DATA).data_hash,
            recipe=Recipe(epochs=2, batch_size=32, learning_rate=0.02),
            seed=3,
            weights=self.baseline.get("weights"),
            method="filter_norm",
            ratios=RATIOS,
        )
        return TrialSpec.model_validate({**base.model_dump(), **changes})

    def run(self, **changes: object) -> dict[str, Any]:
        self.reports.clear()
        return run_trial(
            self.spec(**changes), self.node, lambda *report: self.reports.append(report)
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small only lose by sharing
    folder = tmp_path_factory.mktemp("bench")
    node = Node(
        device=resolve_device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
    )
    recipe = {"epochs": 6, "batch_size": 32, "learning_rate": 0.05}
    baseline = Bench(node, {}).run(kind="baseline", recipe=recipe, method=None, ratios={})
    yield Bench(node, baseline)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


class TestProxy:
    RECIPE: ClassVar[dict[str, Any]] = {
        "epochs": 0,
        "batch_size": 32,
        "learning_rate": 0.02,
        "recalibration_images": 100,
    }

    def test_it_sees_what_a_trial_would_start_its_recovery_from(self, bench: Bench) -> None:
        proxy = bench.run(kind="proxy", recipe=self.RECIPE)
        trial = bench.run(recipe={**self.RECIPE, "epochs": 1})
        assert proxy["val_accuracy"] == trial["val_accuracy_before"]
        assert proxy["kept"] == trial["kept"]
        assert proxy["macs"] == trial["macs"] < proxy["base_macs"]
        assert proxy["val_images"] == 40

    def test_it_is_judged_on_as_many_images_as_it_says(self, bench: Bench) -> None:
        assert bench.run(kind="proxy", recipe=self.RECIPE, judge_images=25)["val_images"] == 25

    def test_it_reads_no_test_image_trains_nothing_and_keeps_no_weights(self, bench: Bench) -> None:
        proxy = bench.run(kind="proxy", recipe=self.RECIPE)
        assert not {key for key in proxy if "test" in key}
        assert bench.reports == []
        assert proxy["samples_seen"] == 100
        assert not {"weights", "artifacts"} & proxy.keys()

    def test_the_same_proposal_is_worth_the_same(self, bench: Bench) -> None:
        one, two = (bench.run(kind="proxy", recipe=self.RECIPE) for _ in range(2))
        assert {k: v for k, v in one.items() if k not in BY_THE_CLOCK} == {
            k: v for k, v in two.items() if k not in BY_THE_CLOCK
        }

    def test_reduced_precision_is_near(self, bench: Bench) -> None:
        exact = bench.run(kind="proxy", recipe=self.RECIPE)
        rounded = bench.run(kind="proxy", recipe={**self.RECIPE, "precision": "bfloat16"})
        assert abs(exact["val_accuracy"] - rounded["val_accuracy"]) <= 100 * 2 / 40

    def test_other_trials_keep_their_names(self, bench: Bench) -> None:
        assert "judge_images" not in bench.spec().model_dump()


class TestBaseline:
    def test_learns_the_digits_and_stores_what_it_learned(self, bench: Bench) -> None:
        result = bench.baseline
        assert result["test_accuracy"] > 70
        assert result["val_accuracy_before"] < 40
        assert result["val_accuracy_best"] >= result["val_accuracy"]
        assert (result["macs"], result["params"]) == (result["base_macs"], result["base_params"])
        assert result["plan"] is None
        assert result["kept"] == {}
        weights = from_safetensors(bench.node.artifacts.read_bytes(result["artifacts"]["weights"]))
        assert weights_hash(weights) == result["weights"]

    def test_given_weights_and_no_epochs_it_is_measured_as_it_is(self, bench: Bench) -> None:
        result = bench.run(kind="baseline", recipe={"epochs": 0}, method=None, ratios={})
        assert result["weights"] == bench.baseline["weights"]
        assert result["test_accuracy"] == bench.baseline["test_accuracy"]
        assert result["val_accuracy_before"] == bench.baseline["val_accuracy"]
        assert bench.reports == []


@pytest.fixture(scope="module")
def result(bench: Bench) -> dict[str, Any]:
    return bench.run()


class TestPrune:
    def test_cost_is_counted_on_the_shrunk_network(
        self, bench: Bench, result: dict[str, Any], tmp_path: Path
    ) -> None:
        assert result["kept"] == {"conv2": 32, "conv3": 48, "conv4": 64}
        by_hand = 64 * 9 * 32 + 16 * 9 * (32 * 32 + 32 * 48) + 4 * 9 * 48 * 64 + 64 * 10
        assert result["macs"] == by_hand
        assert result["base_macs"] == bench.baseline["macs"]
        assert result["macs_reduction"] == 1 - by_hand / bench.baseline["macs"]
        weights = from_safetensors(bench.node.artifacts.read_bytes(result["artifacts"]["weights"]))
        assert weights["conv3.weight"].shape == (48, 32, 3, 3)

    def test_masked_and_shrunk_network_agree_and_the_record_says_how_well(
        self, result: dict[str, Any]
    ) -> None:
        assert 0 <= result["masked_difference"] < 1e-5

    def test_all_epochs_not_spent_on_selecting_go_to_recovery(self, result: dict[str, Any]) -> None:
        assert (result["epochs_select"], result["epochs_recover"]) == (0, 2)
        assert result["samples_seen"] == 2 * 160 + 160  # and all images for batch norms
        assert result["seconds_select"] > 0
        assert result["seconds_total"] > result["seconds_recover"] > 0

    def test_recovery_helps(self, result: dict[str, Any]) -> None:
        assert result["val_accuracy"] > result["val_accuracy_before"]
        assert result["test_accuracy"] > 50

    def test_the_record_can_be_stored_as_json(self, bench: Bench, result: dict[str, Any]) -> None:
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        plan = json.loads(bench.node.artifacts.read_bytes(result["artifacts"]["plan"]))
        assert plan == result["plan"]
        assert result["artifacts"]["plan"] == f"trials/{bench.spec().uid}/plan.json"

    def test_the_record_says_from_what_and_where(
        self, bench: Bench, result: dict[str, Any]
    ) -> None:
        assert result["base_weights"] == bench.baseline["weights"]
        assert result["data_hash"] == bench.baseline["data_hash"]
        assert result["recipe_hash"] != bench.baseline["recipe_hash"]
        assert result["policy_hash"] == bench.baseline["policy_hash"]
        environment = result["environment"]
        assert environment["packages"]["torch"] == torch.__version__
        assert {"python", "commit", "dirty", "device_name", "threads"} <= environment.keys()

    def test_the_same_specification_gives_the_same_numbers_bit_for_bit(
        self, bench: Bench, result: dict[str, Any]
    ) -> None:
        torch.rand(7)  # whatever ran before must not matter
        again = bench.run()
        assert {k: v for k, v in again.items() if k not in BY_THE_CLOCK} == {
            k: v for k, v in result.items() if k not in BY_THE_CLOCK
        }

    def test_another_seed_gives_other_weights(self, bench: Bench, result: dict[str, Any]) -> None:
        assert bench.run(seed=4)["weights"] != result["weights"]

    def test_a_trial_writes_weights_plan_and_layout_and_nothing_else(self, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path / "artifacts")
        node = Node(device=torch.device("cpu"), cache_dir=tmp_path / "cache", artifacts=store)
        base = Bench(node, {}).run(kind="baseline", recipe={"epochs": 0}, method=None, ratios={})
        result = Bench(node, base).run(recipe={"epochs": 0})
        written = {
            p.relative_to(tmp_path / "artifacts").as_posix()
            for p in (tmp_path / "artifacts").rglob("*")
            if p.is_file()
        }
        (layout,) = (path for path in written if path.startswith("layouts/"))
        expected = {weights_path(base["weights"]), *result["artifacts"].values()}
        assert written - {layout} == expected

    def test_ratio_zero_without_training_is_the_baseline(self, bench: Bench) -> None:
        result = bench.run(ratios={}, recipe={"epochs": 0, "recalibration_images": 0})
        assert result["test_accuracy"] == bench.baseline["test_accuracy"]
        assert result["macs_reduction"] == 0.0
        assert result["weights"] == bench.baseline["weights"]

    def test_a_schedule_is_charged_for_its_epochs(self, bench: Bench) -> None:
        result = bench.run(schedule={"name": "iterative", "selection": 0.5, "rounds": 2})
        assert (result["epochs_select"], result["epochs_recover"]) == (1, 1)
        assert [step for step, _ in bench.reports] == [1, 2]
        assert result["val_accuracy_best"] == bench.reports[1][1]["val_accuracy"]

    def test_recalibration_is_charged_and_changes_batch_norm_statistics_only(
        self, bench: Bench
    ) -> None:
        plain = bench.run(recipe={"epochs": 0, "recalibration_images": 0})
        recalibrated = bench.run(recipe={"epochs": 0, "recalibration_images": 100})
        assert recalibrated["samples_seen"] == plain["samples_seen"] + 100
        assert recalibrated["val_loss"] < plain["val_loss"]
        before, after = (
            from_safetensors(bench.node.artifacts.read_bytes(found["artifacts"]["weights"]))
            for found in (plain, recalibrated)
        )
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name.split(".")[1] for name in changed} >= {"running_mean", "running_var"}
        assert not any(name.endswith(("weight", "bias")) for name in changed)


class TestRecalibration:
    """By default, whatever is shrunk and whenever, and the dense control too."""

    def statistics(self, bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
        weights = from_safetensors(bench.node.artifacts.read_bytes(found["artifacts"]["weights"]))
        return {name: value for name, value in weights.items() if ".running_" in name}

    def by_hand(self, bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
        """Return the statistics that all training images give the trial's final network."""
        network = build_model(ModelSettings(name="digits_net"), 10, 1)
        if found["plan"]:
            plan = PruningPlan.from_json(found["plan"])
            shrink_fresh(network, plan, layout_of(network, (1, 8, 8), LayerSettings()))
        weights = bench.node.artifacts.read_bytes(found["artifacts"]["weights"])
        network.load_state_dict(from_safetensors(weights))
        data = bench.node.data(DATA)
        recalibrate_batch_norm(network, data.eval_batches(data.train, 160))
        return {k: v for k, v in network.state_dict().items() if ".running_" in k}

    @pytest.mark.parametrize("schedule", ["one_shot", "asfp", "ghfp", "sfp"])
    def test_follows_a_cut_after_the_last_epoch(self, bench: Bench, schedule: str) -> None:
        late = {"name": schedule} | ({} if schedule == "one_shot" else {"selection": 1.0})
        recipe = {"epochs": 0 if schedule == "one_shot" else 2, "batch_size": 160}
        found = bench.run(schedule=late, recipe=recipe)
        assert found["epochs_recover"] == 0
        assert found["val_accuracy_before"] == found["val_accuracy"]
        expected = self.by_hand(bench, found)
        for name, value in self.statistics(bench, found).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)

    def test_the_dense_control_starts_as_a_network_that_loses_nothing(self, bench: Bench) -> None:
        dense = bench.run(kind="dense", method=None, ratios={})
        nothing_lost = bench.run(ratios={})
        for key in ("val_accuracy_before", "val_accuracy", "weights", "samples_seen"):
            assert dense[key] == nothing_lost[key]


class TestTestSplit:
    def test_a_search_trial_holds_nothing_of_it_and_the_same_numbers_otherwise(
        self, bench: Bench, result: dict[str, Any]
    ) -> None:
        found = bench.run(reads_test=False)
        of_test = {"test_accuracy", "test_loss", "test_images", "test_chance", "test_correct"}
        assert result.keys() - found.keys() == of_test
        known = BY_THE_CLOCK | of_test | {"artifacts"}  # a plan lies under its trial's uid
        assert {k: v for k, v in found.items() if k not in known} == {
            k: v for k, v in result.items() if k not in known
        }

    def test_which_images_were_right_is_kept_in_test_order(
        self, bench: Bench, result: dict[str, Any]
    ) -> None:
        correct = unpack_answers(result["test_correct"], result["test_images"])
        assert 100 * correct.mean() == pytest.approx(result["test_accuracy"])
        network = build_model(ModelSettings(name="digits_net"), 10, 1)
        plan = PruningPlan.from_json(result["plan"])
        shrink_fresh(network, plan, layout_of(network, (1, 8, 8), LayerSettings()))
        weights = bench.node.artifacts.read_bytes(result["artifacts"]["weights"])
        network.load_state_dict(from_safetensors(weights))
        network.eval()
        data = bench.node.data(DATA).for_trial()
        images, labels = next(data.eval_batches(data.take_test(), 100))
        assert (network(images).argmax(dim=1) == labels).tolist() == correct.tolist()

    def test_identity_changes_for_search_trials_only(self, bench: Bench) -> None:
        spec = bench.spec()
        assert "reads_test" not in spec.model_dump(mode="json")
        assert bench.spec(reads_test=True).uid == spec.uid != bench.spec(reads_test=False).uid

    def test_the_validation_split_is_evaluated_once_an_epoch_and_once_before(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[int] = []

        def counted(*args: Any) -> tuple[Evaluation, torch.Tensor]:
            calls.append(1)
            return evaluate_each(*args)

        monkeypatch.setattr(workers.training.session, "evaluate_each", counted)
        found = bench.run(reads_test=False)
        assert len(calls) == 1 + 2
        assert found["val_accuracy"] == bench.reports[-1][1]["val_accuracy"]


class TestControls:
    def test_dense_is_fine_tuned_for_the_same_budget(self, bench: Bench) -> None:
        result = bench.run(kind="dense", method=None, ratios={})
        assert result["val_accuracy_before"] == bench.baseline["val_accuracy"]
        assert result["epochs_recover"] == 2
        assert result["macs"] == bench.baseline["macs"]
        assert result["weights"] != bench.baseline["weights"]

    def test_scratch_trains_the_shape_of_a_plan_from_fresh_weights(
        self, bench: Bench, result: dict[str, Any]
    ) -> None:
        scratch = bench.run(kind="scratch", weights=None, plan=result["plan"], method=None)
        assert scratch["macs"] == result["macs"]
        assert scratch["kept"] == result["kept"]
        assert scratch["base_weights"] is None
        assert scratch["val_accuracy_before"] < 40
        assert scratch["val_accuracy"] > scratch["val_accuracy_before"]
        other = bench.run(kind="scratch", weights=None, plan=result["plan"], method=None, seed=9)
        assert other["weights"] != scratch["weights"]

    def test_fresh_layers_that_read_fewer_channels_are_scaled_up(self) -> None:
        torch.manual_seed(0)
        network = build_model(ModelSettings(name="digits_net"), 10, 1)
        dense = {name: weight.clone() for name, weight in network.state_dict().items()}
        layout = layout_of(network, (1, 8, 8), LayerSettings())
        kept = {group.name: tuple(range(group.width // 4)) for group in layout.groups}
        plan = PruningPlan(policy="inside_blocks", widths=layout.widths, kept=kept)
        shrink_fresh(network, plan, layout)
        fresh = network.state_dict()
        assert torch.equal(fresh["conv2.weight"], dense["conv2.weight"][:16])
        assert torch.equal(fresh["conv3.weight"], dense["conv3.weight"][:16, :16] * 2)


class TestLatency:
    def test_times_the_plan_beside_the_dense_network(self, bench: Bench) -> None:
        plan = bench.run(recipe={"epochs": 0})["plan"]
        spec = bench.spec(kind="latency", plan=plan, method=None)
        result = run_trial(spec, replace(bench.node, is_shared=False), nothing)
        small, large = result["latency"]
        assert (small["batch_size"], large["batch_size"]) == (1, 32)
        assert small["repetitions"] >= 30
        assert result["shared_device"] is False
        assert result["macs"] < result["base_macs"]
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        assert "test_accuracy" not in result

    def test_the_device_counts_as_shared_unless_the_caller_knows(
        self, bench: Bench, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers.trial, "measure_latency", lambda *_, **__: [])
        timed = bench.run(kind="latency", plan=result["plan"], method=None)
        assert timed["shared_device"] is True


@dataclass(frozen=True, kw_only=True)
class Greedy(PruningMethod):
    """Asks for more epochs than there are."""

    name: ClassVar[str] = "greedy"

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        session.train(network, session.epochs_left + 1)
        raise AssertionError("over budget")


@dataclass(frozen=True, kw_only=True)
class Careless(PruningMethod):
    """Leaves something on the network that masking does not see."""

    name: ClassVar[str] = "careless"

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        network.get_submodule("bn2").register_forward_hook(
            lambda _m, _i, out: out + out.mean(1, True)
        )
        scores = {g.name: torch.arange(float(g.width)) for g in session.layout.groups}
        return prune_lowest(self, session.layout, scores, ratios)


class TestRefusals:
    def test_a_method_cannot_train_beyond_the_budget(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(methods, "create", lambda *_: Greedy())
        with pytest.raises(BudgetError, match="3 epochs of training were asked for"):
            bench.run()

    def test_a_network_that_shrinking_changes_fails(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(methods, "create", lambda *_: Careless())
        with pytest.raises(MaskedDifferenceError, match="differ by"):
            bench.run()

    def test_a_loss_that_explodes_is_named(self, bench: Bench) -> None:
        with pytest.raises(DivergedError, match="learning rate"):
            bench.run(recipe={"epochs": 2, "learning_rate": 1e6, "batch_size": 32})

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"weights": None}, "it starts from weights"),
            ({"method": None}, "no pruning method is named"),
            ({"kind": "dense", "weights": None}, "it starts from weights"),
            ({"kind": "scratch"}, "the shape of a plan"),
            ({"kind": "latency"}, "the shape of a plan"),
        ],
    )
    def test_a_specification_that_lacks_something_is_refused(
        self, bench: Bench, changes: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(TrialSpecError, match=problem):
            bench.run(**changes)

    def test_other_images_than_the_sweeps_are_refused(self, bench: Bench) -> None:
        with pytest.raises(DataChangedError, match="results would not compare"):
            bench.run(data_hash="0" * 32)

    def test_missing_weights_are_named(self, bench: Bench) -> None:
        with pytest.raises(ArtifactNotFoundError, match="weights/feed"):
            bench.run(weights="feed")

    def test_damaged_weights_are_refused(self, bench: Bench) -> None:
        good = bench.node.artifacts.read_bytes(weights_path(bench.baseline["weights"]))
        bench.node.artifacts.write_bytes(weights_path("beef"), good)
        with pytest.raises(ArtifactCorruptError, match="changed or damaged"):
            bench.run(weights="beef")

    def test_weights_of_another_network_are_refused(self, bench: Bench) -> None:
        pruned = bench.run(recipe={"epochs": 0})
        with pytest.raises(WeightsMismatchError, match="of another shape"):
            bench.run(weights=pruned["weights"])

    def test_an_unknown_method_is_refused(self, bench: Bench) -> None:
        with pytest.raises(UnknownMethodError):
            bench.run(method="filter_nrom")

    def test_what_the_report_raises_ends_the_trial(self, bench: Bench) -> None:
        def stop(_step: int, _values: dict[str, float]) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_trial(bench.spec(), bench.node, stop)

    @pytest.mark.parametrize("name", ["cuda:99", "tpu", "meta"])
    def test_a_device_that_is_not_there_is_refused(self, name: str) -> None:
        with pytest.raises(DeviceError, match="Choose 'auto'"):
            resolve_device(name)

    @pytest.mark.parametrize(
        "error",
        [
            TrialSpecError("prune", "no."),
            DataChangedError("digits", "a", "b"),
            MaskedDifferenceError(0.1, 1e-3),
            ArtifactCorruptError("weights/a", "b"),
            DeviceError("tpu", "no"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_errors_survive_the_trip_from_a_worker(self, error: Exception) -> None:
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


class TestNode:
    def test_data_and_weights_are_loaded_once_per_process(self, bench: Bench) -> None:
        assert bench.node.data(DATA) is bench.node.data(DATA)
        name = bench.baseline["weights"]
        assert bench.node.weights(name) is bench.node.weights(name)

    def test_a_trial_leaves_the_shared_weights_alone(self, bench: Bench) -> None:
        bench.run()
        shared = bench.node.weights(bench.baseline["weights"])
        assert weights_hash(shared) == bench.baseline["weights"]

    def test_the_test_split_is_handed_out_anew_to_each_trial(self, bench: Bench) -> None:
        first = bench.run(recipe={"epochs": 0})
        assert bench.run(recipe={"epochs": 0})["test_accuracy"] == first["test_accuracy"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trial_runs_on_the_gpu(bench: Bench, precision: str) -> None:
    bench = replace(bench, node=replace(bench.node, device=resolve_device("cuda")))
    result = bench.run(recipe={"epochs": 2, "batch_size": 32, "precision": precision})
    assert result["masked_difference"] < 1e-3
    assert result["environment"]["device"] == "cuda"
    assert result["val_accuracy"] > 50
    plan = {"kind": "latency", "plan": result["plan"], "method": None}
    assert bench.run(**plan)["latency"][1]["batch_size"] == 128
