import copy

import pytest
import torch
from torch import nn

from methods import (
    LayerPolicy,
    PlanError,
    PruningPlan,
    create,
    find_layout,
    masked,
    masked_difference,
    shrink,
)
from methods.structure.layout import Layout
from methods.structure.surgery import filter_parameters, scale_filters
from methods.testing import CLASSES, EXAMPLES, TinySession, permute_filters
from tests.methods.helpers import logits, norm_of, same_ratio
from workers.models.cifar_resnet import CifarResNet


def half(layout: Layout) -> PruningPlan:
    """Keep every other filter."""
    return PruningPlan(
        policy=layout.policy.kind,
        widths=layout.widths,
        kept={name: tuple(range(0, width, 2)) for name, width in layout.widths.items()},
    )


def images(layout: Layout) -> torch.Tensor:
    return TinySession(layout, classes=CLASSES).images[:16]


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_reordering_filters_changes_nothing_the_network_computes(name: str) -> None:
    network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
    before = logits(network, images(layout))
    for group in layout.groups:
        permute_filters(network, group, torch.arange(group.width).flip(0))
    torch.testing.assert_close(logits(network, images(layout)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_zeroing_filters_without_their_norms_is_not_removing_them(name: str) -> None:
    network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
    plan = half(layout)
    zeroed = copy.deepcopy(network)
    for group in layout.groups:
        for producer in group.producers:
            with torch.no_grad():
                zeroed.get_parameter(f"{producer}.weight")[plan.dropped(group.name)] = 0.0
    small = copy.deepcopy(network)
    shrink(small, plan, layout)
    expected = logits(small, images(layout))
    assert (logits(zeroed, images(layout)) - expected).abs().max() > 1e-3
    torch.testing.assert_close(
        logits(masked(network, plan, layout), images(layout)), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_planted_zero_filter_goes_first_and_nobody_notices(name: str) -> None:
    network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
    for group in layout.groups:
        scale_filters(network, group, [group.width - 2])
    ratios = {group.name: 1.01 / group.width for group in layout.groups}
    plan = create("l1").select(network, ratios, TinySession(layout, classes=CLASSES))
    assert all(plan.dropped(group.name) == [group.width - 2] for group in layout.groups)
    before = logits(network, images(layout))
    shrink(network, plan, layout)
    torch.testing.assert_close(logits(network, images(layout)), before, rtol=1e-5, atol=1e-5)


def test_shrinking_keeps_the_weights_of_the_filters_that_stay() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    dense = copy.deepcopy(network)
    shrink(network, half(layout), layout)
    first, second = layout.groups[:2]
    assert torch.equal(
        network.get_parameter(f"{second.name}.weight"),
        dense.get_parameter(f"{second.name}.weight")[::2, ::2],
    )
    assert torch.equal(norm_of(network, first).running_var, norm_of(dense, first).running_var[::2])  # type: ignore[arg-type, index]


def test_masking_and_comparing_leave_the_network_alone() -> None:
    network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()
    before = copy.deepcopy(network.state_dict())
    masked_difference(network, half(layout), layout, images(layout))
    assert network.training
    assert all(torch.equal(before[n], v) for n, v in network.state_dict().items())


def test_a_wrong_surgery_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()

    def shifted(small: nn.Module, plan: PruningPlan, layout: Layout) -> None:
        others = {group: tuple(i + 1 for i in kept) for group, kept in plan.kept.items()}
        wrong = PruningPlan(policy=plan.policy, widths=plan.widths, kept=others)
        shrink(small, wrong, layout)

    monkeypatch.setattr("methods.structure.surgery.shrink", shifted)
    assert masked_difference(network, half(layout), layout, images(layout)) > 1e-3


@pytest.mark.parametrize("name", ["inverted_residual", "residual_stream"])
def test_the_parameters_of_filters_are_all_that_emits_them(name: str) -> None:
    network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
    for group in layout.groups:
        found = {id(part.parameter) for part in filter_parameters(network, group)}
        emitting = {
            id(p) for m in group.outputs for p in network.get_submodule(m.layer).parameters()
        }
        assert found == emitting


def test_a_filter_scaled_to_half_emits_half() -> None:
    network, layout = EXAMPLES["plain"].network().eval(), EXAMPLES["plain"].layout()
    group = layout.groups[0]
    weight, norm = network.get_parameter(f"{group.name}.weight"), norm_of(network, group)
    before = weight[3].clone(), norm.weight[3].clone(), norm.bias[3].clone(), weight[2].clone()
    scale_filters(network, group, [3], 0.5)
    assert torch.equal(weight[3], before[0] / 2)
    assert torch.equal(norm.weight[3], before[1] / 2)
    assert torch.equal(norm.bias[3], before[2] / 2)
    assert torch.equal(weight[2], before[3])


def test_a_plan_for_another_network_is_refused() -> None:
    layout = find_layout(CifarResNet(20), (3, 32, 32), LayerPolicy())
    network = EXAMPLES["plain"].network()
    with pytest.raises(PlanError, match="another network or layer policy"):
        shrink(network, half(layout), EXAMPLES["plain"].layout())


def test_a_plan_for_another_policy_is_refused() -> None:
    layout = EXAMPLES["residual_projection"].layout()
    plan = half(layout)
    other = PruningPlan(policy="coupled", widths=plan.widths, kept=plan.kept)
    with pytest.raises(PlanError, match="'coupled', not 'inside_blocks'"):
        shrink(EXAMPLES["residual_projection"].network(), other, layout)


def test_gradients_of_the_wide_network_are_forgotten() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    network(images(layout)).sum().backward()
    shrink(network, half(layout), layout)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_two_networks_shrunk_in_one_process_do_not_disturb_each_other() -> None:
    layouts = [EXAMPLES[name].layout() for name in ("plain", "bottleneck")]
    networks = [EXAMPLES[name].network() for name in ("plain", "bottleneck")]
    session = TinySession(layouts[0], classes=CLASSES)
    alone = copy.deepcopy(networks[0])
    plan = create("l1").select(alone, same_ratio(layouts[0], 0.5), session)
    shrink(alone, plan, layouts[0])
    shrink(networks[1], half(layouts[1]), layouts[1])
    shrink(networks[0], plan, layouts[0])
    assert torch.equal(logits(networks[0], session.images), logits(alone, session.images))
