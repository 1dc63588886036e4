import math
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import CostTarget, Hooks, LayerPolicy, MethodError, Step, find_layout
from methods.base import Session
from tracking.artifacts import ArtifactStore
from workers.data import DataSet, load
from workers.errors import BudgetError, TestSplitReadError
from workers.files import SharedFiles
from workers.models import build_model
from workers.networks.checkpoints import weights_hash
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.training.loop import DivergedError, learning_rate
from workers.training.seeds import derive_seed, seed_everything
from workers.training.session import PruningSession, TrainingSession

CPU = torch.device("cpu")
DATA = DataSettings(train_images=120, test_images=40, validation_fraction=0.25)
MODEL = ModelSettings(name="digits_net")
Reports = list[tuple[int, dict[str, float]]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return load(DATA, CPU, tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small only lose by sharing
    seed_everything(0, CPU)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model(MODEL, 10, 1)


class Sessions:
    """Makes sessions over one data set that share their files."""

    def __init__(self, data: DataSet, folder: Path) -> None:
        self.data = data
        self.files = SharedFiles(artifacts=ArtifactStore(folder), cache_dir=folder)
        self.reports: Reports = []

    def spec(self, recipe: Recipe, **changes: object) -> TrialSpec:
        base = TrialSpec(
            kind="prune",
            model=MODEL,
            data=DATA,
            data_hash=self.data.info.data_hash,
            recipe=recipe,
            seed=1,
            weights=weights_hash(network().state_dict()),
            method="scop",  # which trains for its statistics
        )
        return base.model_copy(update=changes)

    def new(self, recipe: Recipe, **changes: object) -> TrainingSession:
        return TrainingSession(
            self.spec(recipe, **changes),
            self.data.for_trial(),
            CPU,
            self.files,
            lambda step, values: self.reports.append((step, values)),
        )


@pytest.fixture
def sessions(digits: DataSet, tmp_path: Path) -> Sessions:
    return Sessions(digits, tmp_path)


RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)  # 90 images: 3 steps per epoch


class TestBudget:
    def test_epochs_images_and_seconds_are_charged_to_the_act(self, sessions: Sessions) -> None:
        session, net = sessions.new(RECIPE), network()
        with session.meter.act("select"):
            session.train(net, 1)
        with session.meter.act("recover"):
            session.train(net, 2)
        assert session.epochs_spent("select") == 1.0
        assert session.epochs_spent("recover") == 2.0
        assert session.meter.images == {"select": 90, "recover": 180}
        assert session.meter.seconds["select"] > 0
        assert session.epochs_left == 0

    def test_going_over_the_budget_is_refused_before_anything_is_trained(
        self, sessions: Sessions
    ) -> None:
        session, net = sessions.new(RECIPE), network()
        session.train(net, 2)
        before = weights_hash(net.state_dict())
        with pytest.raises(BudgetError, match=r"2 epochs .* and 1 of the trial's 3 are left"):
            session.train(net, 2)
        assert weights_hash(net.state_dict()) == before
        assert session.epochs_left == 1

    def test_a_call_that_a_hook_ends_is_charged_exactly(self, sessions: Sessions) -> None:
        session, net = sessions.new(RECIPE), network()
        with session.meter.act("select"):
            session.train(net, 2, after_step=lambda step: step.progress >= 4 / 6)
        assert session.steps_left == 5
        assert session.epochs_spent("select") == pytest.approx(4 / 3)
        assert session.epochs_left == 1
        session.train_with(net, session.steps_left / session.steps_per_epoch, Hooks())
        assert session.steps_left == 0

    def test_measuring_is_not_charged_as_training(self, sessions: Sessions) -> None:
        session, net = sessions.new(RECIPE), network()
        with session.meter.act("select"):
            session.validate(net)
        assert session.meter.images["select"] == 0
        assert session.meter.seconds["measure"] > session.meter.seconds["select"]

    def test_images_a_method_looks_at_are_charged(self, sessions: Sessions) -> None:
        session = sessions.new(RECIPE)
        with session.meter.act("select"):
            sizes = [len(images) for images, _ in session.batches(50, 32)]
        assert sizes == [32, 18]
        assert session.meter.images["select"] == 50


class TestTestSplit:
    def test_is_refused_to_trials_of_a_search(self, sessions: Sessions) -> None:
        session, net = sessions.new(RECIPE, reads_test=False), network()
        with pytest.raises(TestSplitReadError, match="a trial of a search not at all"):
            session.test(net)

    def test_is_read_once(self, sessions: Sessions) -> None:
        session, net = sessions.new(RECIPE), network()
        found, correct = session.test(net)
        assert found.images == len(correct)
        with pytest.raises(TestSplitReadError, match="once, at its end"):
            session.test(net)


class TestTraining:
    def test_loss_falls_and_every_epoch_is_reported(self, sessions: Sessions) -> None:
        session, net = sessions.new(RECIPE), network()
        session.train(net, 1)
        session.train(net, 2)
        assert [step for step, _ in sessions.reports] == [1, 2, 3]
        values = [values for _, values in sessions.reports]
        assert set(values[0]) == {"train_loss", "val_accuracy", "val_loss", "learning_rate"}
        assert values[-1]["train_loss"] < values[0]["train_loss"]
        assert session.best["prepare"] == max(v["val_accuracy"] for v in values)

    def test_steps_grow_even_when_calls_end_within_one_epoch(self, sessions: Sessions) -> None:
        session, net = sessions.new(RECIPE), network()
        for _ in range(3):
            session.train(net, 1, after_step=lambda _: True)
        assert [step for step, _ in sessions.reports] == [1, 2, 3]

    def test_several_calls_continue_one_learning_rate_curve(self, sessions: Sessions) -> None:
        rates: list[float] = []

        def note(step: Step) -> None:
            rates.append(step.optimizer.param_groups[0]["lr"])

        session, net = sessions.new(RECIPE), network()
        session.train(net, 1, after_backward=note)
        session.train(net, 2, after_backward=note)
        expected = [0.05 * 0.5 * (1 + math.cos(math.pi * (i + 0.5) / 9)) for i in range(9)]
        assert rates == pytest.approx(expected)

    def test_hooks_see_the_step_at_their_moment(self, sessions: Sessions) -> None:
        seen: list[tuple[str, int, float]] = []
        weights: list[Tensor] = []

        def after_backward(step: Step) -> None:
            assert next(step.network.parameters()).grad is not None
            assert len(step.images) == len(step.labels)
            weights.append(next(step.network.parameters()).detach().clone())
            seen.append(("backward", step.epoch, step.progress))

        def after_step(step: Step) -> None:
            assert not torch.equal(weights[-1], next(step.network.parameters()))
            seen.append(("step", step.epoch, step.progress))

        def after_epoch(_net: nn.Module, _opt: torch.optim.Optimizer, epoch: int) -> None:
            seen.append(("epoch", epoch, float(len(sessions.reports))))

        session = sessions.new(RECIPE)
        session.train(
            network(),
            2,
            after_backward=after_backward,
            after_step=after_step,
            after_epoch=after_epoch,
        )
        steps = [("backward", "step")[i % 2] for i in range(6)]
        assert [name for name, _, _ in seen] == [*steps, "epoch"] * 2
        assert seen[5] == ("step", 0, 0.5)
        assert seen[6] == ("epoch", 0, 0.0)  # before the epoch is evaluated and reported
        assert seen[-2] == ("step", 1, 1.0)

    def test_a_loss_term_is_minimised_too(self, sessions: Sessions) -> None:
        def size(net: nn.Module) -> Tensor:
            return torch.stack([p.square().sum() for p in net.parameters()]).sum()

        plain, pressed = network(), network()
        sessions.new(RECIPE).train(plain, 2)
        sessions.new(RECIPE).train(pressed, 2, loss_term=size)
        assert size(pressed) < 0.5 * size(plain)

    def test_a_loss_that_is_not_finite_names_epoch_and_rate(self, sessions: Sessions) -> None:
        with pytest.raises(DivergedError, match=r"training loss .* epoch 1\.00, at learning rate"):
            sessions.new(RECIPE).train(
                network(), 1, loss_term=lambda net: next(net.parameters()).sum() * math.nan
            )

    def test_bfloat16_leaves_float32_weights_in_their_usual_layout(
        self, sessions: Sessions
    ) -> None:
        net = network()
        sessions.new(RECIPE.model_copy(update={"precision": "bfloat16"})).train(net, 1)
        assert all(p.dtype == torch.float32 and p.is_contiguous() for p in net.parameters())
        assert math.isfinite(sessions.reports[-1][1]["train_loss"])

    def test_the_same_seed_gives_the_same_weights_bit_for_bit(self, sessions: Sessions) -> None:
        recipe = RECIPE.model_copy(update={"augmentation": "shift_flip"})
        hashes: list[str] = []
        for seed in (1, 1, 2):
            net = network()
            torch.rand(seed + len(hashes))  # whatever ran before must not matter
            sessions.new(recipe, seed=seed).train(net, 2)
            hashes.append(weights_hash(net.state_dict()))
        assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("changes", [{}, {"nesterov": True}, {"optimizer": "adamw"}])
def test_reach_is_how_far_a_constant_gradient_moves_a_parameter(
    sessions: Sessions, changes: dict[str, Any]
) -> None:
    plain = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01, "weight_decay": 0.0}
    recipe = Recipe.model_validate({**plain, **changes})
    session, trained = sessions.new(recipe), network()
    session.train(trained, 2)
    bias = next(p for name, p in trained.named_parameters() if name.endswith("bias"))
    before, expected = bias.detach().clone(), session.reach(10)
    session.train(trained, 10, after_backward=lambda _: ones(bias))
    moved = before - bias.detach()
    torch.testing.assert_close(moved, torch.full_like(moved, expected), rtol=1e-3, atol=0.0)


def ones(parameter: nn.Parameter) -> None:
    parameter.grad = torch.ones_like(parameter)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_note_is_a_finite_number(sessions: Sessions, value: float) -> None:
    session = sessions.new(RECIPE)
    with pytest.raises(ValueError, match="'gates_open' must be a finite number"):
        session.note("gates_open", value)
    assert session.notes == {}


class TestLearningRate:
    def test_warm_up_rises_to_the_full_rate_and_cosine_ends_at_zero(self) -> None:
        recipe = Recipe(epochs=10, warmup_epochs=2.0, learning_rate=1.0)
        assert [learning_rate(recipe, e) for e in (0.0, 1.0, 2.0)] == [0.0, 0.5, 1.0]
        assert learning_rate(recipe, 6.0) == pytest.approx(0.5)
        assert learning_rate(recipe, 10.0) == pytest.approx(0.0)

    def test_steps_fall_at_shares_of_the_budget(self) -> None:
        recipe = Recipe(epochs=10, schedule="step", learning_rate=1.0, milestones=(0.5, 0.8))
        rates = [learning_rate(recipe, e) for e in (0.0, 4.99, 5.0, 8.0)]
        assert rates == pytest.approx([1.0, 1.0, 0.1, 0.01])

    def test_constant_stays(self) -> None:
        recipe = Recipe(epochs=10, schedule="constant", learning_rate=0.3)
        assert {learning_rate(recipe, e) for e in (0.0, 5.0, 10.0)} == {0.3}


class TestRandomness:
    def test_a_generator_depends_on_seed_and_purpose_only(self, sessions: Sessions) -> None:
        one, same, other = sessions.new(RECIPE), sessions.new(RECIPE), sessions.new(RECIPE, seed=2)
        one.train(network(), 1)
        draw = torch.rand(4, generator=one.generator("random"))
        assert torch.equal(draw, torch.rand(4, generator=same.generator("random")))
        assert not torch.equal(draw, torch.rand(4, generator=same.generator("gates")))
        assert not torch.equal(draw, torch.rand(4, generator=other.generator("random")))

    def test_seeds_of_different_purposes_differ(self) -> None:
        assert len({derive_seed(s, p) for s in range(20) for p in ("a", "b", "c")}) == 60

    def test_batches_do_not_depend_on_ratios_or_on_what_ran_before(
        self, sessions: Sessions
    ) -> None:
        one, other = sessions.new(RECIPE), sessions.new(RECIPE, ratios={"features.3": 0.5})
        other.train(network(), 1)
        first, second = next(one.batches(16, 16)), next(other.batches(16, 16))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


class TestStatistics:
    @staticmethod
    def learn(session: TrainingSession, calls: list[int]) -> dict[str, Tensor]:
        """Statistics that cost training, as control groups and gates do."""

        def compute() -> dict[str, Tensor]:
            calls.append(1)
            twin = network()
            session.train(twin, 1)
            total = torch.zeros(1, 8, 8)
            for images, _ in session.batches(20):
                total += images.sum(dim=0)
            return {"layer.weights": next(twin.parameters()).transpose(0, -1), "total": total}

        return dict(session.statistics(network(), "learned", compute))

    def test_the_second_trial_reuses_them_and_is_charged_alike(self, sessions: Sessions) -> None:
        calls: list[int] = []
        first = sessions.new(RECIPE, ratios={"a": 0.1})
        second = sessions.new(
            RECIPE, ratios={"a": 0.7}, target=CostTarget(axis="macs", reduction=0.5)
        )
        with first.meter.act("select"):
            computed = self.learn(first, calls)
        with second.meter.act("select"):
            reused = self.learn(second, calls)
        assert len(calls) == 1
        assert computed.keys() == reused.keys()
        assert all(torch.equal(computed[name], reused[name]) for name in computed)
        assert (first.statistics_computed, first.statistics_reused) == (1, 0)
        assert (second.statistics_computed, second.statistics_reused) == (0, 1)
        assert second.epochs_spent("statistics") == first.epochs_spent("statistics") == 1.0
        assert second.meter.images == first.meter.images
        assert second.seconds_statistics == first.seconds_statistics > 0
        assert second.meter.seconds["statistics"] < first.meter.seconds["statistics"]
        assert second.steps_left == first.steps_left

    def test_training_goes_on_the_same_after_reuse(self, sessions: Sessions) -> None:
        hashes: list[str] = []
        for _ in range(2):
            session, net = sessions.new(RECIPE), network()
            self.learn(session, [])
            session.train(net, 2)
            hashes.append(weights_hash(net.state_dict()))
        assert hashes[0] == hashes[1]

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 2},
            {"data_hash": "other"},
            {"method_settings": {"share": 0.5}},
            {"recipe": RECIPE.model_copy(update={"learning_rate": 0.01})},
        ],
        ids=["seed", "data", "settings", "recipe"],
    )
    def test_anything_that_matters_makes_them_anew(
        self, sessions: Sessions, change: dict[str, object]
    ) -> None:
        calls: list[int] = []
        self.learn(sessions.new(RECIPE), calls)
        self.learn(sessions.new(**{"recipe": RECIPE, **change}), calls)  # type: ignore[arg-type]
        assert len(calls) == 2

    def test_a_method_that_does_not_train_shares_them_across_recipes(
        self, sessions: Sessions
    ) -> None:
        calls: list[int] = []

        def compute() -> dict[str, Tensor]:
            calls.append(1)
            return {"one": torch.ones(1)}

        for rate in (0.1, 0.2):
            recipe = RECIPE.model_copy(update={"learning_rate": rate})
            session = sessions.new(recipe, method="filter_norm")
            session.statistics(network(), "plain", compute)
        assert calls == [1]

    def test_a_method_that_trains_for_them_has_to_say_so(self, sessions: Sessions) -> None:
        with pytest.raises(MethodError, match=r"'filter_norm' trains .* says trains"):
            self.learn(sessions.new(RECIPE, method="filter_norm"), [])

    def test_a_trial_that_asks_twice_pays_once(self, sessions: Sessions) -> None:
        def mean(session: TrainingSession) -> dict[str, Tensor]:
            (batch,) = session.batches(20)
            return {"mean": batch[0].mean(dim=0)}

        for reused in (0, 1):
            session = sessions.new(RECIPE)
            with session.meter.act("select"):
                compute = partial(mean, session)
                one, other = (session.statistics(network(), "key", compute) for _ in range(2))
            assert torch.equal(one["mean"], other["mean"])
            assert session.meter.images == {"statistics": 20}
            assert (session.statistics_computed, session.statistics_reused) == (1 - reused, reused)

    def test_a_changed_network_shares_nothing(self, sessions: Sessions) -> None:
        def ones() -> dict[str, Tensor]:
            return {"x": torch.ones(1)}

        for _ in range(2):
            session, net = sessions.new(RECIPE), network()
            with torch.no_grad():
                next(net.parameters()).mul_(2)
            session.statistics(net, "key", ones)
            assert session.statistics_reused == 0
        session = sessions.new(RECIPE)
        session.statistics(network(), "key", ones)
        assert session.statistics_reused == 0


def test_a_pruning_session_is_what_methods_ask_for(sessions: Sessions) -> None:
    net = network()
    layout = find_layout(net, (1, 8, 8), LayerPolicy())
    spec = sessions.spec(
        RECIPE, target=CostTarget(axis="params", reduction=0.4), schedule={"name": "iterative"}
    )
    session: Session = PruningSession(
        spec, sessions.data, CPU, sessions.files, lambda *_: None, layout
    )
    assert session.layout is layout
    assert session.target is not None
    assert (session.target.axis, session.target.reduction) == ("params", 0.4)
    assert session.epochs_left == 3


@pytest.mark.parametrize(
    "error", [BudgetError(2, 1, 3), DivergedError("training", 1.5, 0.1)], ids=lambda e: type(e)
)
def test_errors_survive_the_trip_from_a_worker(error: Exception) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
