"""The soft pruning family by its names; the curves themselves are in ``test_schedule``."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim

from methods import (
    LayerPolicy,
    PruningPlan,
    Schedule,
    SettingsError,
    create,
    masked_difference,
    removed_count,
    shrink,
    stated_ratio,
)
from methods.hooks import Hooks, Step
from methods.schedule import PRESETS
from methods.structure.layout import Group, Layout
from methods.structure.surgery import soften_filters
from methods.testing import CLASSES, EXAMPLES, Example, TinySession
from methods.testing.example_networks import residual_pad
from tests.methods.helpers import logits, norm_of, same_ratio
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.node.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.training.loop import learning_rate
from workers.trial import run_trial

FAMILY = ("hfp", "sfp", "asfp", "srfp", "asrfp", "ghfp")
SOFT = ("sfp", "asfp", "srfp", "asrfp")
NETWORKS = {
    **EXAMPLES,
    "scatter": Example(build=residual_pad, policy=LayerPolicy(kind="scatter", protect_stem=False)),
}
Settings = Mapping[str, Any]


class Diary(TinySession):
    """Training that keeps the weights of every epoch, before and after the schedule's turn."""

    def __init__(self, layout: Layout, schedule: Settings | str, *, epochs: int = 5) -> None:
        super().__init__(layout, classes=CLASSES, epochs=epochs, schedule=schedule)
        self.trained: list[dict[str, Tensor]] = []  #: After the epoch's steps.
        self.pruned: list[dict[str, Tensor]] = []  #: After what the schedule then did.
        self.stepped: list[dict[str, Tensor]] = []  #: After each step.

    def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
        def write_step(step: Step) -> None:
            if hooks.after_step:
                hooks.after_step(step)
            self.stepped.append(copy.deepcopy(network.state_dict()))

        def write_epoch(network: nn.Module, optimizer: optim.Optimizer, epoch: int) -> None:
            self.trained.append(copy.deepcopy(network.state_dict()))
            if hooks.after_epoch:
                hooks.after_epoch(network, optimizer, epoch)
            self.pruned.append(copy.deepcopy(network.state_dict()))

        super().train_with(
            network, epochs, replace(hooks, after_step=write_step, after_epoch=write_epoch)
        )


def run(
    schedule: Settings | str,
    *,
    name: str = "plain",
    method: str = "l2",
    ratio: float = 0.5,
    epochs: int = 5,
) -> tuple[nn.Module, PruningPlan, Diary]:
    """Let a schedule choose on an example network, in all epochs unless it says otherwise."""
    network, layout = NETWORKS[name].network(), NETWORKS[name].layout()
    asked = {"name": schedule} if isinstance(schedule, str) else schedule
    diary = Diary(layout, {"selection": 1.0, **asked}, epochs=epochs)
    return network, create(method).select(network, same_ratio(layout, ratio), diary), diary


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def zero_weights(state: Mapping[str, Tensor], group: Group) -> set[int]:
    """Return the filters whose weights are exactly zero."""
    norms = state[f"{group.name}.weight"].flatten(1).abs().sum(dim=1)
    return set((norms == 0.0).nonzero().flatten().tolist())


class TestNames:
    @pytest.mark.parametrize(
        ("name", "share", "softness", "hardness"),
        [
            ("hfp", "constant", 0.0, "all"),
            ("sfp", "constant", 0.0, "none"),
            ("asfp", "exponential", 0.0, "none"),
            ("srfp", "constant", 1.0, "none"),
            ("asrfp", "exponential", 1.0, "none"),
            ("ghfp", "exponential", 1.0, "cubic"),
        ],
    )
    def test_each_stands_for_its_three_curves(
        self, name: str, share: str, softness: float, hardness: str
    ) -> None:
        schedule = Schedule.create(name)
        assert (schedule.share, schedule.softness, schedule.hardness) == (share, softness, hardness)
        assert (schedule.selection, schedule.knee, schedule.softness_end) == (0.5, 1 / 8, 1e-5)

    def test_any_of_them_is_made_gradually_hard(self) -> None:
        assert Schedule.create({"name": "sfp", "hardness": "cubic"}).hard_share(49, 100) == 0.875

    def test_half_of_the_epochs_is_left_to_the_small_network(self) -> None:
        for name in FAMILY:
            assert [Schedule.create(name).epochs(n) for n in (0, 1, 2, 5, 10, 200)] == [
                *(0, 1, 1, 2, 5, 100)
            ]

    @pytest.mark.parametrize("name", FAMILY)
    def test_recovery_has_a_real_share_of_the_learning_rate(self, name: str) -> None:
        recipe = Recipe(epochs=200)
        chosen = Schedule.create(name).epochs(200)
        rates = [learning_rate(recipe, epoch + 0.5) for epoch in range(200)]
        assert sum(rates[chosen:]) / sum(rates) == pytest.approx(0.5 - 1 / math.pi, abs=1e-3)
        assert sum(rates[180:]) / sum(rates) < 0.002  # what a tenth of the epochs would have

    @pytest.mark.parametrize("name", [name for name in PRESETS if name != "one_shot"])
    def test_a_schedule_that_trains_needs_epochs(self, name: str) -> None:
        with pytest.raises(SettingsError, match="or use one_shot"):
            Schedule.create({"name": name, "selection": 0.0})

    @pytest.mark.parametrize(
        ("t", "hardness", "softness", "kept"),
        [
            (0, 0.029701, 1.0, 1.0),
            (9, 0.271, 0.3548134, 0.7474269),
            (49, 0.875, 0.00354813, 0.6017458),
        ],
    )
    def test_ghfp_follows_the_released_log(
        self, t: int, hardness: float, softness: float, kept: float
    ) -> None:
        schedule = Schedule.create("ghfp")
        assert schedule.hard_share(t, 100) == pytest.approx(hardness, abs=1e-6)
        assert schedule.soft_factor(t, 100) == pytest.approx(softness, rel=1e-5)
        assert 1 - 0.4 * schedule.selected_share(t, 100) == pytest.approx(kept, abs=1e-7)

    @pytest.mark.parametrize("name", FAMILY)
    def test_the_curves_have_ended_before_the_last_tenth_of_the_selection(self, name: str) -> None:
        schedule = Schedule.create(name)
        for t in range(90, 100):
            assert schedule.selected_share(t, 100) == 1.0
            assert schedule.soft_factor(t, 100) == 0.0
        assert schedule.hard_share(90, 100) == (0.0 if name in SOFT else 1.0)
        assert schedule.counts(99, 100, 16, 7 / 16) == (7, 7)


@given(
    name=st.sampled_from(FAMILY),
    hardness=st.none() | st.sampled_from(["none", "all", "cubic", "step"]),
    turns=st.integers(1, 60),
    width=st.integers(1, 600),
    ratio=st.floats(0.0, 1.0, exclude_max=True),
)
def test_counts_only_grow_and_the_hard_are_among_the_selected(
    name: str, hardness: str | None, turns: int, width: int, ratio: float
) -> None:
    schedule = Schedule.create({"name": name, **({"hardness": hardness} if hardness else {})})
    counts = [schedule.counts(t, turns, width, ratio) for t in range(-1, turns)]
    wanted = removed_count("conv", width, ratio)
    assert all(0 <= hard <= selected <= wanted for selected, hard in counts)
    assert all(a <= c and b <= d for (a, b), (c, d) in pairwise(counts))
    assert counts[-1] == (wanted, wanted)


@pytest.mark.parametrize("epochs", [10, 50, 200])
@pytest.mark.parametrize("ratio", [0.3, 0.4, 0.5, 0.7])
@pytest.mark.parametrize("width", [16, 32, 64, 128, 256, 512])
def test_counts_are_rounded_down_once_as_in_the_released_code(
    width: int, ratio: float, epochs: int
) -> None:
    schedule = Schedule.create("ghfp")
    for t in range(epochs):
        done = (t + 1) / epochs
        ended = done > 0.9
        share = 1.0 if ended else 1.0 - math.exp(-math.log(4.0) * 8 * t / epochs)
        hard = 1.0 if ended else 1.0 - (1.0 - done) ** 3
        assert schedule.counts(t, epochs, width, ratio) == (
            math.floor(width * ratio * share + 1e-6),
            math.floor(width * ratio * share * hard + 1e-6),
        )


@pytest.mark.parametrize("epochs", [10, 50, 200])
@pytest.mark.parametrize("width", range(2, 65))
def test_the_last_filter_goes_with_the_others(width: int, epochs: int) -> None:
    """As a sweep states ratios, all are selected long before the curve ends at exactly 1."""
    schedule = Schedule.create("asfp")
    for count in range(1, width):
        ratio = stated_ratio("conv", width, count / width, gradual=schedule.is_gradual)
        assert removed_count("conv", width, ratio) == count
        selected = [schedule.counts(t, epochs, width, ratio)[0] for t in range(epochs)]
        assert selected.index(count) <= math.ceil(
            math.log(2 * count + 1) / math.log(4) * epochs / 8
        )


def test_ratios_are_whole_counts_where_filters_go_together() -> None:
    gradual = {name: Schedule.create(name).is_gradual for name in PRESETS}
    assert {name for name, found in gradual.items() if found} == {
        *("iterative", "asfp", "asrfp", "ghfp")
    }
    assert stated_ratio("conv", 16, 0.3, gradual=False) == 4 / 16
    assert stated_ratio("conv", 16, 0.3, gradual=True) == 4.5 / 16
    assert stated_ratio("conv", 16, 0.01, gradual=True) == 0.0


class Turns(Schedule):
    """Notes when it was asked."""

    def soft_factor(self, t: int, turns: int) -> float:
        TAKEN.append((t, turns))
        return super().soft_factor(t, turns)


TAKEN: list[tuple[int, int]] = []


@pytest.mark.parametrize(
    ("epochs", "turns"), [(1, 10), (2, 10), (3, 12), (5, 10), (9, 18), (10, 10), (12, 12)]
)
def test_a_short_selection_has_turns_within_epochs(epochs: int, turns: int) -> None:
    layout = EXAMPLES["plain"].layout()
    session = TinySession(layout, classes=CLASSES, epochs=epochs, images=160)
    session.schedule = Turns(**{**PRESETS["asrfp"], "selection": 1.0})
    TAKEN.clear()
    create("l2").select(EXAMPLES["plain"].network(), same_ratio(layout, 0.5), session)
    taken = [t for t, _ in TAKEN][:: len(layout.groups)]
    assert {total for _, total in TAKEN} == {turns}
    assert taken == [*range(-1, turns)]


def test_with_fewer_steps_than_turns_each_step_takes_the_newest() -> None:
    layout = EXAMPLES["plain"].layout()
    session = TinySession(layout, classes=CLASSES, epochs=1)  # of four steps
    session.schedule = Turns(**{**PRESETS["asrfp"], "selection": 1.0})
    TAKEN.clear()
    create("l2").select(EXAMPLES["plain"].network(), same_ratio(layout, 0.5), session)
    assert [t for t, _ in TAKEN][:: len(layout.groups)] == [-1, 1, 4, 6, 9]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            pytest.param({"name": n, "hardness": "step", "harden_at": 1.0}, n, id=f"soft {n}")
            for n in SOFT
        ),
        pytest.param({"name": "sfp", "hardness": "step", "harden_at": 0.0}, "hfp", id="hard sfp"),
        pytest.param({"name": "ghfp", "hardness": "none"}, "asrfp", id="never hard ghfp"),
        pytest.param(
            {"name": "asrfp", "hardness": "all"}, {"name": "asfp", "hardness": "all"}, id="all hard"
        ),
        pytest.param({"name": "srfp", "softness": 0.0}, "sfp", id="srfp at 0"),
        pytest.param({"name": "asfp", "share": "constant"}, "sfp", id="asfp at once"),
    ],
)
def test_schedules_that_mean_the_same_train_the_same(
    one: Settings | str, other: Settings | str
) -> None:
    (first, plan, _), (second, same_plan, _) = run(one), run(other)
    assert plan == same_plan
    assert equal(first.state_dict(), second.state_dict())


def test_schedules_that_differ_train_differently() -> None:
    ends = [run(name, epochs=8)[0].state_dict() for name in FAMILY]
    for i, one in enumerate(ends):
        assert not any(equal(one, other) for other in ends[:i])


class FullyKept(Schedule):
    """Softness 1 throughout: what is selected stays as it is."""

    def soft_factor(self, t: int, turns: int) -> float:
        return 1.0


@pytest.mark.parametrize("name", SOFT)
def test_at_softness_1_training_is_plain_until_the_last_mask(name: str) -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    diary = Diary(layout, name)
    diary.schedule = FullyKept(**{**PRESETS[name], "selection": 1.0})
    create("l2").select(network, same_ratio(layout, 0.5), diary)
    dense = Diary(layout, name)
    dense.train(EXAMPLES["plain"].network(), 5)
    assert equal(diary.trained[-1], dense.trained[-1])
    assert not equal(diary.pruned[-1], dense.pruned[-1])


@pytest.mark.parametrize("name", FAMILY)
def test_at_ratio_0_training_is_plain_to_the_end(name: str) -> None:
    network, plan, diary = run(name, ratio=0.0)
    dense = EXAMPLES["plain"].network()
    TinySession(diary.layout, classes=CLASSES, epochs=5).train(dense, 5)
    assert equal(network.state_dict(), dense.state_dict())
    assert all(not plan.dropped(group) for group in plan.kept)


def test_softly_pruned_filters_are_zero_once_an_epoch_and_grow_in_between() -> None:
    _, _, diary = run("sfp")
    for group in diary.layout.groups:
        removed = removed_count(group.name, group.width, 0.5)
        assert [len(zero_weights(state, group)) for state in diary.pruned] == [removed] * 5
    grown = [zero_weights(state, group) for state in diary.trained for group in diary.layout.groups]
    masked = [g.width // 2 for _ in diary.trained for g in diary.layout.groups]
    assert sum(map(len, grown)) < sum(masked) / 2
    first, last = diary.pruned[0], diary.pruned[-1]
    assert any(zero_weights(first, g) != zero_weights(last, g) for g in diary.layout.groups)


@pytest.mark.parametrize("name", ["hfp", "ghfp"])
@pytest.mark.parametrize("network", ["plain", "scatter"])
def test_hard_filters_are_zero_after_every_step_and_never_come_back(
    name: str, network: str
) -> None:
    _, _, diary = run(name, name=network, epochs=6)
    for group in diary.layout.groups:
        sets = [gone(state, group) for state in diary.stepped]
        assert all(early <= late for early, late in pairwise(sets))
        if name == "hfp":
            assert {len(found) for found in sets} == {removed_count(group.name, group.width, 0.5)}
    assert any(gone(diary.stepped[-1], group) for group in diary.layout.groups)


def gone(state: Mapping[str, Tensor], group: Group) -> set[int]:
    """Return the filters that emit nothing: weights, scales and shifts are zero."""
    zero = torch.ones(group.width, dtype=torch.bool)
    for member in group.outputs:
        for kind in ("weight", "bias"):
            if (value := state.get(f"{member.layer}.{kind}")) is not None:
                zero &= (value[torch.tensor(member.channels)] == 0.0).flatten(1).all(dim=1)
    return set(zero.nonzero().flatten().tolist())


@pytest.mark.parametrize("method", ["l1", "l2", "fpgm", "bn_scale", "taylor"])
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("network", ["bottleneck", "scatter"])
def test_every_criterion_ends_with_what_shrinks_exactly(
    network: str, name: str, method: str
) -> None:
    trained, plan, diary = run(name, name=network, method=method, epochs=3)
    for group in diary.layout.groups:
        dropped = set(plan.dropped(group.name))
        assert len(dropped) == removed_count(group.name, group.width, 0.5)
        assert gone(trained.state_dict(), group) == dropped
        norm = norm_of(trained, group)
        assert not norm.weight[list(dropped)].any()
        assert not norm.bias[list(dropped)].any()
    assert masked_difference(trained, plan, diary.layout, diary.images[:8]) < 1e-5
    before = logits(trained, diary.images)
    shrink(trained, plan, diary.layout)
    torch.testing.assert_close(logits(trained, diary.images), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_without_their_norms_masked_filters_are_missed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights_alone(
        network: nn.Module, group: Group, filters: Sequence[int], factor: float
    ) -> None:
        soften_filters(network, group, filters, factor)

    monkeypatch.setattr("methods.schedule.scale_filters", weights_alone)
    monkeypatch.setattr("methods.schedule.SoftMasks.hold_weights", lambda *_: None)
    monkeypatch.setattr("methods.schedule.SoftMasks.hold_gradients", lambda *_: None)
    network, plan, diary = run(name)
    before = logits(network, diary.images)
    shrink(network, plan, diary.layout)
    assert (logits(network, diary.images) - before).abs().max() > 1e-2


DATA = DataSettings(train_images=64, test_images=32, validation_fraction=0.25)


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Iterator[Node]:
    artifacts = ArtifactStore(tmp_path / "artifacts")
    yield Node(device=torch.device("cpu"), cache_dir=tmp_path / "cache", artifacts=artifacts)
    torch.use_deterministic_algorithms(False)


def test_a_trial_gives_selection_its_share_of_the_epochs(node: Node) -> None:
    spec = TrialSpec(
        kind="baseline",
        model=ModelSettings(name="digits_net"),
        data=DATA,
        data_hash=describe(DATA).data_hash,
        recipe=Recipe(epochs=10, batch_size=24, learning_rate=0.05),
        seed=0,
    )
    weights = run_trial(spec, node, lambda *_: None)["weights"]
    spec = spec.model_copy(
        update={
            "kind": "prune",
            "weights": weights,
            "method": "filter_norm",
            "ratios": {"conv2": 0.5, "conv3": 0.25, "conv4": 0.5},
        }
    )
    spent = []
    for schedule in ({"name": "asrfp"}, {"name": "ghfp", "selection": 1.0}):
        pruned = spec.model_copy(update={"schedule": schedule})
        result = run_trial(pruned, node, lambda *_: None)
        spent.append((result["epochs_select"], result["epochs_recover"]))
        assert result["kept"] == {"conv2": 32, "conv3": 48, "conv4": 64}
        assert result["masked_difference"] < 1e-5
    assert spent == [(5.0, 5.0), (10.0, 0.0)]
    assert result["val_accuracy"] == result["val_accuracy_before"]
