"""Criteria that choose their ratios: one ranking of all filters, cut where the cost is met."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods import CostTarget, Layout, MethodError, PruningMethod, count_cost, create, shrink
from methods.criteria.allocation import CLOSE, across_layers
from methods.testing import TinySession
from tests.methods.helpers import norm_of
from workers.models import build_model
from workers.networks.shapes import layout_of
from workers.settings import LayerSettings, ModelSettings

SHAPE = (3, 16, 16)
CRITERIA = ("l1", "l2", "fpgm", "bn_scale", "taylor", "random")
RELATIVE = ("l1", "l2", "fpgm")
FEW = {"taylor": {"images": 32}}


def resnet() -> nn.Module:
    """Return ResNet-20 with scales that differ."""
    torch.manual_seed(0)
    network = build_model(ModelSettings(name="cifar_resnet20"), 10, 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5)
    return network


@pytest.fixture(name="layout", scope="module")
def _layout() -> Layout:
    return layout_of(resnet(), SHAPE, LayerSettings())


def criterion(name: str) -> PruningMethod:
    return create(name, FEW.get(name, {}))


def session_of(layout: Layout, target: CostTarget, schedule: str = "one_shot") -> TinySession:
    return TinySession(layout, classes=10, target=target, schedule=schedule, epochs=2, images=32)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("axis", ["macs", "params"])
@pytest.mark.parametrize("reduction", [0.3, 0.7])
def test_the_target_is_met(layout: Layout, name: str, axis: str, reduction: float) -> None:
    target = CostTarget(axis="macs" if axis == "macs" else "params", reduction=reduction)
    network = resnet()
    plan = criterion(name).select(network, {}, session_of(layout, target))
    dense = count_cost(network, SHAPE)
    shrink(network, plan, layout)
    left = getattr(count_cost(network, SHAPE), axis) / getattr(dense, axis)
    assert left == pytest.approx(1 - reduction, abs=CLOSE)


@pytest.mark.parametrize("name", ["bn_scale", "taylor"])
def test_one_threshold_parts_all_filters_of_the_network(layout: Layout, name: str) -> None:
    target = CostTarget(axis="macs", reduction=0.4)
    network, session = resnet(), session_of(layout, target)
    scores = criterion(name).scores(network, session)
    plan = criterion(name).select(network, {}, session)
    expected = first_to_go(layout, target, scores)
    assert {group: set(plan.dropped(group)) for group in plan.kept} == expected
    assert len({round(ratio, 3) for ratio in plan.ratios.values()}) > 4  # no uniform cut


def first_to_go(
    layout: Layout, target: CostTarget, scores: dict[str, Tensor] | object
) -> dict[str, set[int]]:
    """Take the lowest scores of all, one by one, until the cost is nearest to the target."""
    assert isinstance(scores, dict)
    flat = sorted(
        (float(value), name, index)
        for name, values in scores.items()
        for index, value in enumerate(values)
    )
    wanted = (1 - target.reduction) * layout.cost.dense(target.axis)
    gone: dict[str, set[int]] = {name: set() for name in layout.widths}
    gaps, taken = [], []
    for _, name, index in flat:
        gone[name].add(index)
        taken.append((name, index))
        kept = [layout.widths[name] - len(gone[name]) for name in layout.cost.groups]
        gaps.append(abs(layout.cost.cost(target.axis, np.array(kept, dtype=np.int64)) - wanted))
    found: dict[str, set[int]] = {name: set() for name in layout.widths}
    for name, index in taken[: int(np.argmin(gaps)) + 1]:
        found[name].add(index)
    return found


@pytest.mark.parametrize("name", [*RELATIVE, "bn_scale"])
def test_scores_that_grow_with_a_layer_are_relative_to_it(layout: Layout, name: str) -> None:
    target = CostTarget(axis="macs", reduction=0.4)
    plain, scaled = resnet(), resnet()
    group = layout.groups[3]
    with torch.no_grad():
        scaled.get_parameter(f"{group.name}.weight").mul_(7.0)
        norm_of(scaled, group).weight.mul_(7.0)
    ratios = [
        criterion(name).allocate(network, target, session_of(layout, target))[group.name]
        for network in (plain, scaled)
    ]
    if name in RELATIVE:
        assert ratios[0] == pytest.approx(ratios[1])
    else:
        assert ratios[1] < ratios[0]


def test_every_layer_keeps_a_filter(layout: Layout) -> None:
    network = resnet()
    for group in layout.groups[:3]:
        nn.init.zeros_(norm_of(network, group).weight)
    target = CostTarget(axis="macs", reduction=0.5)
    plan = create("bn_scale").select(network, {}, session_of(layout, target))
    assert [len(plan.kept[group.name]) for group in layout.groups[:3]] == [1, 1, 1]


def test_more_than_one_filter_per_layer_leaves_is_refused(layout: Layout) -> None:
    scores = {name: torch.rand(width) for name, width in layout.widths.items()}
    with pytest.raises(MethodError, match="one filter per group removes"):
        across_layers(layout, CostTarget(axis="macs", reduction=0.999), scores)


@pytest.mark.parametrize("schedule", ["iterative", "ghfp"])
def test_a_schedule_takes_the_ratios_that_were_allocated(layout: Layout, schedule: str) -> None:
    target = CostTarget(axis="macs", reduction=0.4)
    at_once = create("l1").select(resnet(), {}, session_of(layout, target))
    bit_by_bit = create("l1").select(resnet(), {}, session_of(layout, target, schedule))
    assert bit_by_bit.ratios == pytest.approx(at_once.ratios)
