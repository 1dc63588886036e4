import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from methods import CostTarget, Layout, MethodError, create, removed_count, shrink
from methods.hooks import Hooks, Step
from methods.structure.cost import Axis
from methods.testing import CLASSES, EXAMPLES, PruningMethodContract, TinySession
from methods.weight_gates.method import WeightGates
from tests.methods.helpers import same_ratio


class TestWeightGates(PruningMethodContract):
    method = WeightGates()


class TestFreeGates(PruningMethodContract):
    method = WeightGates(weight_dependent=False)

    def test_they_have_a_name_of_their_own(self) -> None:
        assert create("free_gates") == self.method


class Watched(TinySession):
    """Keeps what the gates' phase did: one entry a call of ``train``."""

    calls: list[int]

    def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
        self.calls = [*getattr(self, "calls", []), epochs]
        super().train_with(network, epochs, hooks)


def trial(
    name: str = "plain",
    *,
    reduction: float | None = 0.5,
    axis: Axis = "macs",
    epochs: int = 8,
) -> tuple[nn.Module, Watched]:
    layout = EXAMPLES[name].layout()
    target = CostTarget(axis=axis, reduction=reduction) if reduction else None
    return EXAMPLES[name].network(), Watched(layout, classes=CLASSES, epochs=epochs, target=target)


def share_kept(layout: Layout, kept: Mapping[str, tuple[int, ...]], axis: Axis) -> float:
    counts = np.array([len(kept[name]) for name in layout.cost.groups])
    return layout.cost.cost(axis, counts) / layout.cost.dense(axis)


class TestTargets:
    @pytest.mark.parametrize("axis", ["macs", "params"])
    @pytest.mark.parametrize("name", ["plain", "residual_stream", "bottleneck", "residual_pad"])
    def test_the_cost_lands_on_the_target(self, name: str, axis: Axis) -> None:
        network, session = trial(name, axis=axis, reduction=0.3)
        plan = WeightGates().select(network, {}, session)
        assert share_kept(session.layout, plan.kept, axis) == pytest.approx(0.7, abs=0.011)
        shrink(network, plan, session.layout)
        assert network(session.images).isfinite().all()

    def test_the_phase_ends_at_the_target_and_leaves_the_rest_to_recovery(self) -> None:
        network, session = trial(epochs=10)
        WeightGates(share=0.5, learning_rate=0.05).select(network, {}, session)
        assert session.calls == [5]
        assert 1 < session.notes["gate_steps"] < 5 * 4
        assert session.epochs_left > 5
        assert session.notes["cost_at_freeze"] <= 0.5
        assert session.notes["gate_alpha"] == 1.0
        assert 0.0 <= session.notes["gates_outside_support"] <= 1.0

    def test_a_phase_never_takes_more_than_its_share(self) -> None:
        network, session = trial(epochs=10)
        WeightGates(share=0.2, learning_rate=1e-6).select(network, {}, session)
        assert session.epochs_left == 8
        assert session.notes["cost_at_freeze"] == 1.0
        assert session.notes["gate_alpha"] == 8.0  # after 4, 6 and 7 of 8 steps

    def test_a_target_met_at_once_makes_it_begin_again_more_gently(self) -> None:
        network, session = trial(epochs=40, reduction=0.2)
        WeightGates(share=0.8, learning_rate=0.3).select(network, {}, session)
        assert len(session.calls) > 1
        assert session.notes["gate_alpha"] < 1.0
        assert session.notes["gate_steps"] > 1

    def test_an_impossible_target_is_refused_before_training(self) -> None:
        network, session = trial(reduction=0.99999)
        with pytest.raises(MethodError, match=r"one filter per group removes"):
            WeightGates().select(network, {}, session)
        assert session.epochs_trained == 0

    def test_without_an_epoch_there_is_nothing_to_learn_in(self) -> None:
        network, session = trial(epochs=0)
        with pytest.raises(MethodError, match="learns for an epoch at least"):
            WeightGates().select(network, {}, session)

    def test_more_pressure_never_leaves_more(self) -> None:
        left = []
        for alpha in (0.03, 1.0, 30.0):
            network, session = trial("plain", reduction=0.97)
            method = WeightGates(alpha=alpha, share=0.5, learning_rate=0.02)
            method.select(network, {}, session)
            left.append(session.notes["cost_at_freeze"])
        assert left[1] <= left[0] + 0.02
        assert left[2] <= left[1] + 0.02
        assert left[2] < left[0]

    def test_ratios_of_its_own_meet_the_target(self) -> None:
        network, session = trial()
        assert session.target is not None
        ratios = WeightGates().allocate(network, session.target, session)
        assert ratios.keys() == session.layout.widths.keys()


class TestRatios:
    def test_given_ratios_are_kept_to_the_filter(self) -> None:
        network, session = trial(reduction=None)
        ratios = {**same_ratio(session.layout, 0.25), session.layout.groups[0].name: 0.5}
        plan = WeightGates().select(network, ratios, session)
        expected = {
            group.name: removed_count(group.name, group.width, ratios[group.name])
            for group in session.layout.groups
        }
        assert {name: len(plan.dropped(name)) for name in plan.kept} == expected

    def test_the_largest_logits_stay(self) -> None:
        network, session = trial(reduction=None)
        method = WeightGates(weight_rate=0.0)
        twin = copy.deepcopy(network)
        plan = method.select(network, same_ratio(session.layout, 0.5), session)
        target = CostTarget(
            axis="macs", reduction=1 - share_kept(session.layout, plan.kept, "macs")
        )
        logits = method._learn(twin, target, trial(reduction=None)[1])
        for name, kept in plan.kept.items():
            assert set(kept) == set(logits[name].topk(len(kept)).indices.tolist())

    def test_nothing_is_trained_when_nothing_goes(self) -> None:
        network, session = trial(reduction=None)
        plan = WeightGates().select(network, same_ratio(session.layout, 0.0), session)
        assert session.epochs_trained == 0
        assert not any(plan.ratios.values())


def test_weights_learn_at_their_share_of_the_rate() -> None:
    moved = []
    for rate in (0.0, 0.1, 1.0):
        network, session = trial()
        before = copy.deepcopy(network)
        WeightGates(weight_rate=rate, learning_rate=1e-6, share=0.1).select(network, {}, session)
        pairs = zip(network.parameters(), before.parameters(), strict=True)
        moved.append(sum(float((new - old).detach().norm()) for new, old in pairs))
    assert moved[0] == 0.0
    assert 0.0 < moved[1] < 0.5 * moved[2]


class Rates(TinySession):
    """Looks at the learning rate that every step leaves behind."""

    def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
        self.seen: list[float] = []

        def look(step: Step) -> bool | None:
            ends = hooks.after_step(step) if hooks.after_step else None
            self.seen.append(step.optimizer.param_groups[0]["lr"])
            return ends

        super().train_with(network, epochs, replace(hooks, after_step=look))


def test_the_recipe_gets_its_learning_rate_back() -> None:
    network, session = (
        EXAMPLES["plain"].network(),
        Rates(EXAMPLES["plain"].layout(), classes=CLASSES),
    )
    WeightGates().select(network, same_ratio(session.layout, 0.5), session)
    assert set(session.seen) == {0.05}


def test_one_gate_in_the_residual_stream_serves_all_its_producers() -> None:
    network, session = trial("residual_stream", reduction=0.4)
    plan = WeightGates().select(network, {}, session)
    assert any(len(group.producers) > 1 for group in session.layout.groups)
    shrink(network, plan, session.layout)
    with torch.no_grad():
        assert network.eval()(session.images).isfinite().all()
