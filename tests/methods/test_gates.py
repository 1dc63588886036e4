import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import LayerPolicy, PruningPlan, find_layout, shrink
from methods.testing import (
    CLASSES,
    EXAMPLES,
    INPUT_SHAPE,
    Example,
    TinySession,
    permute_filters,
)
from methods.testing.example_networks import residual_projection
from methods.weight_gates.gates import (
    Estimator,
    GateRule,
    Gates,
    GroupGates,
    gated_layers,
    slope,
    standardised,
    step,
)
from tests.methods.helpers import logits

ALL = {
    **EXAMPLES,
    "scattered": Example(build=residual_projection, policy=LayerPolicy(kind="scatter")),
}


def gates_of(example: Example, rule: GateRule | None = None) -> tuple[nn.Module, Gates]:
    network = example.network()
    return network, Gates(network, example.layout(), rule or GateRule())


@torch.no_grad()
def scramble(gates: Gates, seed: int = 0) -> None:
    """Give the gates directions and offsets at which about half of them are closed."""
    generator = torch.Generator().manual_seed(seed)
    for direction in gates.directions:
        direction.copy_(torch.randn(direction.shape, generator=generator) * 0.3)
    for offset in gates.offsets:
        offset.zero_()


class TestStep:
    def test_a_step_is_0_or_1_and_open_at_0(self) -> None:
        values = torch.tensor([-2.0, -1e-6, 0.0, 1e-6, 2.0])
        assert step(values).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]

    def test_the_polynomial_is_the_published_one(self) -> None:
        values = torch.tensor([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])
        assert slope(values, "polynomial").tolist() == [0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0]

    @pytest.mark.parametrize("estimator", ["polynomial", "ste", "sigmoid"])
    def test_every_slope_is_non_negative_and_integrates_to_1(self, estimator: Estimator) -> None:
        values = torch.linspace(-3.0, 3.0, 60_001, dtype=torch.float64)
        slopes = slope(values, estimator)
        assert (slopes >= 0.0).all()
        assert float(torch.trapezoid(slopes, values)) == pytest.approx(1.0, abs=1e-3)

    @pytest.mark.parametrize("estimator", ["polynomial", "ste", "sigmoid"])
    def test_backward_goes_by_the_slope(self, estimator: Estimator) -> None:
        values = torch.linspace(-1.0, 1.0, 9).requires_grad_()
        (step(values, estimator) * 3.0).sum().backward()  # type: ignore[no-untyped-call]
        assert values.grad is not None
        torch.testing.assert_close(values.grad, 3.0 * slope(values.detach(), estimator))


class TestGroupGates:
    def gates(self, width: int = 16, **changes: object) -> tuple[nn.Module, GroupGates]:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 4, 1),
        )
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        return network, GroupGates(network, layout.groups[0], GateRule(**changes))  # type: ignore[arg-type]

    def opened(self, gates: GroupGates) -> Tensor:
        return gates.gates(gates.logits())

    def test_all_begin_open_and_equal(self) -> None:
        _, gates = self.gates()
        assert gates.logits().tolist() == [0.25] * 16
        assert self.opened(gates).tolist() == [1.0] * 16

    def test_at_the_default_start_every_gate_pulls_on_the_offset(self) -> None:
        _, gates = self.gates()
        self.opened(gates).sum().backward()  # type: ignore[no-untyped-call]
        grad = gates.offset.grad
        assert grad is not None
        assert grad.tolist() == [16.0]

    def test_from_a_start_outside_the_support_nothing_learns(self) -> None:
        _, gates = self.gates(start=1.0)
        (self.opened(gates) * torch.randn(16)).sum().backward()  # type: ignore[no-untyped-call]
        for parameter in (*gates.directions, gates.offset):
            assert parameter.grad is not None
            assert not parameter.grad.any()

    def test_rows_are_centred_and_about_of_length_1(self) -> None:
        rows = standardised(torch.randn(64, 27, generator=torch.Generator().manual_seed(0)) * 3 + 2)
        assert rows.mean(dim=0).abs().max() < 1e-6
        assert rows.norm(dim=1).square().mean() == pytest.approx(1.0, abs=1e-4)

    def test_identical_filters_have_identical_logits(self) -> None:
        network, gates = self.gates()
        with torch.no_grad():
            network.get_parameter("0.weight")[5] = network.get_parameter("0.weight")[2]
            for seed in range(5):
                torch.manual_seed(seed)
                gates.directions[0].normal_()
                logits = gates.logits()
                assert logits[5] == logits[2]
                assert len(set(logits.tolist())) > 8

    def test_free_gates_do_not_look_at_the_filters(self) -> None:
        network, gates = self.gates(weight_dependent=False)
        with torch.no_grad():
            gates.directions[0].copy_(torch.linspace(-1, 1, 16))
            before = gates.logits().clone()
            network.get_parameter("0.weight").normal_()
        assert torch.equal(gates.logits(), before)
        assert [direction.shape for direction in gates.directions] == [(16,)]
        expected = torch.linspace(-1, 1, 16) + 0.25
        torch.testing.assert_close(before, expected)

    def test_the_largest_logits_of_a_group_cannot_close(self) -> None:
        _, gates = self.gates(floor=0.25, weight_dependent=False)
        with torch.no_grad():
            gates.directions[0].copy_(-torch.arange(16.0))
            gates.offset.fill_(-10.0)
        assert self.opened(gates).tolist() == [1.0] * 4 + [0.0] * 12

    def test_one_filter_stays_without_a_floor(self) -> None:
        _, gates = self.gates(floor=0.0, start=-0.4)
        assert self.opened(gates).sum() == 1.0

    @pytest.mark.parametrize("detached", [True, False])
    def test_gradients_reach_the_weights_only_when_asked(self, detached: bool) -> None:
        network, gates = self.gates(detached=detached)
        torch.manual_seed(0)
        with torch.no_grad():
            gates.directions[0].normal_()
        (self.opened(gates) * torch.randn(16)).sum().backward()  # type: ignore[no-untyped-call]
        assert (network.get_parameter("0.weight").grad is None) == detached


@pytest.mark.parametrize("example", ALL.values(), ids=ALL)
class TestGates:
    def images(self, example: Example) -> Tensor:
        return TinySession(example.layout(), classes=CLASSES).images[:8]

    def test_open_gates_change_nothing(self, example: Example) -> None:
        network, gates = gates_of(example)
        images = self.images(example)
        expected = logits(network, images)
        with gates.attached():
            assert torch.equal(logits(network, images), expected)
        assert torch.equal(logits(network, images), expected)

    def test_open_gates_cost_what_the_dense_network_does(self, example: Example) -> None:
        _, gates = gates_of(example)
        cost = example.layout().cost
        assert tuple(gates.counts().tolist()) == cost.widths
        for axis in ("macs", "params"):
            assert float(cost.soft_cost(axis, gates.counts().detach())) == cost.dense(axis)

    def test_the_gated_network_is_the_narrowed_one(self, example: Example) -> None:
        network, gates = gates_of(example, GateRule(weight_dependent=False))
        layout, images = example.layout(), self.images(example)
        scramble(gates)
        with gates.attached():
            gated = logits(network, images)
        kept = {
            name: tuple(torch.nonzero(gate).flatten().tolist())
            for name, gate in gates._gates.items()
        }
        plan = PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)
        counts = gates.counts().long().tolist()
        assert counts == [len(kept[name]) for name in layout.cost.groups]
        assert counts != list(layout.cost.widths)
        shrink(network, plan, layout)
        for group in layout.groups:
            if not group.scattered:
                conv = network.get_submodule(group.name)
                assert conv.out_channels == len(kept[group.name])
        torch.testing.assert_close(logits(network, images), gated, rtol=0.0, atol=1e-4)

    def test_gates_change_places_with_their_filters(self, example: Example) -> None:
        network, gates = gates_of(example)
        scramble(gates)
        gates.refresh()
        before = gates.logits
        group = example.layout().groups[0]
        order = torch.randperm(group.width, generator=torch.Generator().manual_seed(1))
        permute_filters(network, group, order)
        gates.refresh()
        torch.testing.assert_close(gates.logits[group.name], before[group.name][order])

    def test_the_loss_teaches_gates_of_every_group(self, example: Example) -> None:
        network, gates = gates_of(example)
        labels = torch.arange(8) % CLASSES
        with gates.attached():
            loss = F.cross_entropy(network.train()(self.images(example)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        for direction in gates.directions:  # an offset scales a layer, which a norm takes out
            assert direction.grad is not None
            assert direction.grad.abs().max() > 1e-6

    def test_frozen_gates_stay_as_they_are_and_learn_nothing(self, example: Example) -> None:
        network, gates = gates_of(example)
        before = gates.counts()
        gates.freeze()
        scramble(gates)
        with gates.attached():
            network.train()(self.images(example)).sum().backward()
        assert torch.equal(gates.counts(), before)
        assert all(p.grad is None for p in (*gates.directions, *gates.offsets))

    def test_the_network_holds_nothing_of_the_gates(self, example: Example) -> None:
        network, gates = gates_of(example)
        keys = list(copy.deepcopy(network).state_dict())
        with gates.attached():
            assert list(network.state_dict()) == keys
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class TestSoftCost:
    cost = EXAMPLES["residual_stream"].layout().cost

    def test_it_is_the_cost_of_whole_counts(self) -> None:
        generator = np.random.default_rng(0)
        for _ in range(10):
            kept = np.array([generator.integers(1, width + 1) for width in self.cost.widths])
            for axis in ("macs", "params"):
                soft = self.cost.soft_cost(axis, torch.tensor(kept, dtype=torch.float64))
                assert float(soft) == self.cost.cost(axis, kept)

    def test_its_gradient_is_the_finite_difference_and_positive(self) -> None:
        kept = torch.tensor(self.cost.widths, dtype=torch.float64).mul(0.7).requires_grad_()
        self.cost.soft_cost("macs", kept).backward()  # type: ignore[no-untyped-call]
        assert kept.grad is not None
        for i, gradient in enumerate(kept.grad.tolist()):
            up, down = (
                kept.detach().index_add(0, torch.tensor([i]), torch.tensor([d]).double())
                for d in (0.5, -0.5)
            )
            difference = self.cost.soft_cost("macs", up) - self.cost.soft_cost("macs", down)
            assert gradient == pytest.approx(float(difference), rel=1e-9)
            assert gradient > 0.0


def test_behind_a_depthwise_layer_only_its_norm_teaches() -> None:
    example = EXAMPLES["inverted_residual"]
    network, group = example.network(), example.layout().groups[0]
    found = {gated.layer: gated.learns for gated in gated_layers(network, group)}
    conv, norm, depthwise, last = (member.layer for member in group.outputs)
    assert found == {norm: False, depthwise: False, last: True}
    assert group.producers == (conv,)
