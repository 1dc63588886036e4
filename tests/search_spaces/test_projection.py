import re
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.structure.cost import Axis, CostModel, CostTarget
from search_spaces import (
    CostModelMismatchError,
    RatioSpace,
    SpaceSettings,
    TargetInfeasibleError,
    free_ratios,
    project,
)
from search_spaces.grid import Counts
from tests.search_spaces.networks import NamedGroup, chain, residual, resnet56, vgg16

NETWORKS = {"resnet56": resnet56(), "vgg16": vgg16()}
HALF = CostTarget(axis="macs", reduction=0.5)


def kept_counts(space: RatioSpace, ratios: dict[str, float]) -> Counts:
    removed = [
        int(np.floor(ratios[group] * width + 1e-6))
        for group, width in zip(space.groups, space.widths, strict=True)
    ]
    return space.widths - np.array(removed, dtype=np.int64)


@st.composite
def problems(
    draw: st.DrawFn,
) -> tuple[RatioSpace, CostModel, CostTarget, dict[str, float]]:
    groups, model = NETWORKS[draw(st.sampled_from(sorted(NETWORKS)))]
    settings = SpaceSettings(
        per=draw(st.sampled_from(["group", "stage"])),
        min_ratio=draw(st.sampled_from([0.0, 0.1])),
        round_to=draw(st.sampled_from([1, 4, 8])),
    )
    space = RatioSpace(groups, settings)
    axis: Axis = draw(st.sampled_from(["macs", "params"]))
    target = CostTarget(axis=axis, reduction=draw(st.floats(0.25, 0.8)))
    numbers = st.lists(
        st.floats(0.0, 1.0), min_size=len(space.dimensions), max_size=len(space.dimensions)
    )
    return space, model, target, dict(zip(space.dimensions, draw(numbers), strict=True))


@settings(deadline=None)
@given(problems())
def test_every_proposal_meets_the_target_within_its_limits(
    problem: tuple[RatioSpace, CostModel, CostTarget, dict[str, float]],
) -> None:
    space, model, target, proposal = problem
    projected = project(proposal, space, model, target)
    kept = kept_counts(space, dict(projected.ratios))
    wanted = model.dense(target.axis) * (1 - target.reduction)
    assert projected.within_tolerance
    assert abs(projected.gap) <= 0.01
    assert projected.cost == model.cost(target.axis, kept)
    assert projected.gap == pytest.approx((projected.cost - wanted) / wanted)
    assert (space.min_kept <= kept).all()
    assert (kept <= space.max_kept).all()


@settings(deadline=None)
@given(st.lists(st.floats(0.05, 1.0), min_size=27, max_size=27), st.floats(0.2, 0.6))
def test_a_group_proposed_more_loses_no_smaller_share(
    numbers: list[float], reduction: float
) -> None:
    groups, model = NETWORKS["resnet56"]
    space = RatioSpace(groups)
    target = CostTarget(axis="macs", reduction=reduction)
    proposal = dict(zip(space.dimensions, numbers, strict=True))
    ratios = project(proposal, space, model, target).ratios
    for first, second in pairwise(groups):
        if first.width != second.width:
            continue
        small, large = sorted((first.name, second.name), key=proposal.__getitem__)
        assert ratios[large] >= ratios[small] - 1 / first.width - 1e-9


@settings(deadline=None)
@given(st.floats(0.2, 0.6), st.floats(0.05, 0.2))
def test_a_harder_target_leaves_fewer_filters(reduction: float, more: float) -> None:
    groups, model = NETWORKS["vgg16"]
    space = RatioSpace(groups)
    proposal = {name: 0.3 + 0.05 * i for i, name in enumerate(space.dimensions)}
    easy, hard = (
        project(proposal, space, model, CostTarget(axis="macs", reduction=share))
        for share in (reduction, reduction + more)
    )
    assert hard.cost < easy.cost
    assert all(
        hard.ratios[g] >= easy.ratios[g] - 1 / w
        for g, w in zip(space.groups, space.widths, strict=True)
    )


@pytest.mark.parametrize("network", sorted(NETWORKS))
@pytest.mark.parametrize("number", [0.0, 0.5, 1.0])
def test_a_uniform_proposal_gives_near_uniform_ratios(network: str, number: float) -> None:
    groups, model = NETWORKS[network]
    space = RatioSpace(groups)
    ratios = project(dict.fromkeys(space.dimensions, number), space, model, HALF).ratios
    middle = np.median(list(ratios.values()))
    for group in groups:
        assert abs(ratios[group.name] - middle) <= 1.5 / min(g.width for g in groups)


def test_only_relative_sizes_of_a_proposal_matter() -> None:
    groups, model = NETWORKS["resnet56"]
    space = RatioSpace(groups)
    proposal = {name: 0.5 + 0.01 * i for i, name in enumerate(space.dimensions)}
    halved = {name: number / 2 for name, number in proposal.items()}
    assert project(proposal, space, model, HALF) == project(halved, space, model, HALF)


def test_a_group_proposed_at_zero_keeps_its_filters_until_the_others_are_at_their_cap() -> None:
    groups, model = residual([(64, 64, 64)] * 4)
    space = RatioSpace(groups, SpaceSettings(max_ratio=0.75))
    names = space.dimensions
    proposal = {names[0]: 0.0, names[1]: 1.0, names[2]: 1.0, names[3]: 1.0}
    easy = project(proposal, space, model, CostTarget(axis="macs", reduction=0.4)).ratios
    hard = project(proposal, space, model, CostTarget(axis="macs", reduction=0.6)).ratios
    assert easy[names[0]] == 0.0
    assert hard[names[0]] > 0.0
    assert all(hard[name] == 0.75 for name in names[1:])


def test_rounded_counts_are_multiples() -> None:
    groups, model = NETWORKS["vgg16"]
    space = RatioSpace(groups, SpaceSettings(round_to=8))
    projected = project(dict.fromkeys(space.dimensions, 0.5), space, model, HALF)
    kept = kept_counts(space, dict(projected.ratios))
    assert projected.within_tolerance
    assert (kept % 8 == 0).all()


def test_rounding_gives_way_to_the_tolerance() -> None:
    groups, model = chain([32, 32, 32])
    space = RatioSpace(groups, SpaceSettings(round_to=16))
    projected = project(
        dict.fromkeys(space.dimensions, 0.5), space, model, CostTarget(axis="macs", reduction=0.4)
    )
    kept = kept_counts(space, dict(projected.ratios))
    assert projected.within_tolerance
    assert (kept % 16 != 0).any()


def test_a_tiny_network_gives_the_nearest_and_says_so() -> None:
    groups, model = residual([(2, 2, 4), (2, 2, 4)])
    space = RatioSpace(groups)
    projected = project(
        dict.fromkeys(space.dimensions, 0.5), space, model, CostTarget(axis="params", reduction=0.1)
    )
    assert not projected.within_tolerance
    assert projected.ratios == {groups[0].name: 0.0, groups[1].name: 0.0}
    assert projected.gap == pytest.approx(1 / 9)


def test_a_target_beyond_the_caps_says_what_is_reachable() -> None:
    groups, model = NETWORKS["vgg16"]
    space = RatioSpace(groups, SpaceSettings(max_ratio=0.25))
    with pytest.raises(
        TargetInfeasibleError, match=re.escape("removes 50.00% of the macs")
    ) as caught:
        project(dict.fromkeys(space.dimensions, 0.5), space, model, HALF)
    low, high = caught.value.reachable
    assert low == 0.0
    assert high == pytest.approx(1 - 0.75**2, abs=0.01)
    assert "Raise max_ratio" in str(caught.value)


def test_a_target_below_the_floors_says_so() -> None:
    groups, model = NETWORKS["vgg16"]
    space = RatioSpace(groups, SpaceSettings(min_ratio=0.5))
    with pytest.raises(TargetInfeasibleError, match="Lower min_ratio"):
        project(dict.fromkeys(space.dimensions, 0.5), space, model, HALF)


def test_a_cost_model_of_another_network_is_refused() -> None:
    space = RatioSpace(NETWORKS["vgg16"][0])
    with pytest.raises(CostModelMismatchError, match="Build both from the same layout"):
        project(dict.fromkeys(space.dimensions, 0.5), space, NETWORKS["resnet56"][1], HALF)


def test_the_order_of_the_cost_model_does_not_matter() -> None:
    groups, model = NETWORKS["resnet56"]
    space, backwards = RatioSpace(groups), RatioSpace(groups[::-1])
    proposal = {name: 0.3 + 0.02 * i for i, name in enumerate(space.dimensions)}
    there, back = (project(proposal, s, model, HALF) for s in (space, backwards))
    assert back.within_tolerance
    assert all(
        abs(back.ratios[g.name] - there.ratios[g.name]) <= 1 / g.width + 1e-9 for g in groups
    )


def test_without_a_target_numbers_span_floor_to_cap() -> None:
    groups = [NamedGroup(name=name, width=100, stage="s") for name in ("a", "b", "c")]
    space = RatioSpace(groups, SpaceSettings(min_ratio=0.2, max_ratio=0.8))
    assert free_ratios({"a": 0.0, "b": 0.5, "c": 1.0}, space) == {"a": 0.2, "b": 0.5, "c": 0.8}


def test_a_projection_of_fifty_groups_takes_milliseconds() -> None:
    groups, model = residual([(64, 64, 1024)] * 25 + [(128, 128, 256)] * 25)
    space = RatioSpace(groups)
    random = np.random.default_rng(0)
    times = []
    for _ in range(30):
        proposal = {name: float(random.random()) for name in space.dimensions}
        begun = time.process_time()
        project(proposal, space, model, HALF)
        times.append(time.process_time() - begun)
    assert sorted(times)[len(times) // 2] < 0.01  # 1 to 2 ms on an idle core
