import pickle
import re

import numpy as np
import pytest
from pydantic import ValidationError

from search_spaces import (
    DuplicateGroupError,
    EmptySpaceError,
    ProposalError,
    RatioLimitsError,
    RatioSpace,
    SpaceSettings,
    UnknownGroupError,
)
from tests.search_spaces.networks import NamedGroup, resnet56

GROUPS = [
    NamedGroup(name="layer1.0.conv1", width=16, stage="stage16"),
    NamedGroup(name="layer1.1.conv1", width=16, stage="stage16"),
    NamedGroup(name="layer2.0.conv1", width=10, stage="stage32"),
]


def test_each_group_is_a_dimension() -> None:
    space = RatioSpace(GROUPS)
    assert space.dimensions == space.groups == tuple(group.name for group in GROUPS)


def test_groups_of_a_stage_share_one_dimension() -> None:
    space = RatioSpace(GROUPS, SpaceSettings(per="stage"))
    assert space.dimensions == ("stage16", "stage32")
    assert space.by_group({"stage16": 0.25, "stage32": 0.75}).tolist() == [0.25, 0.25, 0.75]


def test_the_last_matching_pattern_sets_the_limits() -> None:
    settings = SpaceSettings(
        max_ratio=0.5, limits={"layer1.*": (0.0, 0.25), "layer1.1.*": (0.125, 0.75)}
    )
    space = RatioSpace(GROUPS, settings)
    assert space.floors.tolist() == [0.0, 0.125, 0.0]
    assert space.caps.tolist() == [0.25, 0.75, 0.5]
    assert space.min_kept.tolist() == [12, 4, 5]
    assert space.max_kept.tolist() == [16, 14, 10]


def test_the_minimum_share_kept_wins_over_every_pattern() -> None:
    space = RatioSpace(GROUPS, SpaceSettings(limits={"*": (0.0, 0.9)}, min_kept_share=0.5))
    assert space.min_kept.tolist() == [8, 8, 5]


def test_every_group_keeps_a_filter() -> None:
    space = RatioSpace(GROUPS, SpaceSettings(max_ratio=0.999))
    assert space.min_kept.tolist() == [1, 1, 1]


def test_where_no_count_lies_between_the_limits_the_cap_wins() -> None:
    groups = [NamedGroup(name="a", width=3, stage="s")]
    space = RatioSpace(groups, SpaceSettings(min_ratio=0.4, max_ratio=0.5))
    assert (space.min_kept.tolist(), space.max_kept.tolist()) == ([2], [2])


def test_a_pattern_without_a_group_names_the_nearest() -> None:
    with pytest.raises(UnknownGroupError, match=re.escape("did you mean 'layer2.0.conv1'?")):
        RatioSpace(GROUPS, SpaceSettings(limits={"layer2.0.conv2": (0.0, 0.5)}))


def test_contradicting_limits_name_the_group() -> None:
    settings = SpaceSettings(limits={"layer2.*": (0.6, 0.8)}, min_kept_share=0.5)
    with pytest.raises(RatioLimitsError, match=r"'layer2.0.conv1' must lose at least 0.6"):
        RatioSpace(GROUPS, settings)


def test_limits_in_the_wrong_order_stop_at_the_door() -> None:
    with pytest.raises(ValidationError, match=r"the minimum 0\.5 is above the maximum 0\.4"):
        SpaceSettings(limits={"*": (0.5, 0.4)})


def test_no_group_is_an_error() -> None:
    with pytest.raises(EmptySpaceError, match="at least one prunable group"):
        RatioSpace([])


def test_two_groups_of_one_name_are_an_error() -> None:
    with pytest.raises(DuplicateGroupError, match=r"layer1\.0\.conv1"):
        RatioSpace([GROUPS[0], GROUPS[0]])


@pytest.mark.parametrize(
    ("proposal", "problem"),
    [
        ({"stage16": 0.5}, "'stage32' of the proposal is missing"),
        ({"stage16": 0.5, "stage32": 1.5}, "is 1.5"),
        ({"stage16": 0.5, "stage32": float("nan")}, "is nan"),
        ({"stage16": 0.5, "stage32": 0.5, "stage8": 0.5}, "'stage8' of the proposal is not one"),
    ],
)
def test_a_proposal_that_does_not_fit_is_refused(proposal: dict[str, float], problem: str) -> None:
    space = RatioSpace(GROUPS, SpaceSettings(per="stage"))
    with pytest.raises(ProposalError, match=re.escape(problem)):
        space.by_group(proposal)


def test_ratios_give_back_the_filters_removed() -> None:
    groups, _ = resnet56()
    space = RatioSpace(groups)
    for removed in range(16):
        kept = space.widths - removed
        back = [
            int(np.floor(ratio * width + 1e-6))
            for ratio, width in zip(space.ratios(kept).values(), space.widths, strict=True)
        ]
        assert back == [removed] * len(groups)


def test_a_grid_steps_over_multiples_and_the_dense_width() -> None:
    groups = [NamedGroup(name="a", width=20, stage="s")]
    grid = RatioSpace(groups, SpaceSettings(max_ratio=0.7, round_to=8)).grid()
    counts = [np.array([20])]
    while (below := grid.below(counts[-1])) != counts[-1]:
        counts.append(below)
    assert [int(c[0]) for c in counts] == [20, 16, 8]
    assert [int(grid.above(c)[0]) for c in counts] == [20, 20, 16]


def test_snapping_goes_to_the_nearest_multiple_or_stays_dense() -> None:
    groups = [NamedGroup(name="a", width=20, stage="s")]
    grid = RatioSpace(groups, SpaceSettings(max_ratio=0.7, round_to=8)).grid()
    removed = [0.0, 1.9, 2.1, 7.0, 9.0, 14.0]
    assert [int(grid.snap(np.array([r]))[0]) for r in removed] == [20, 20, 16, 16, 8, 8]


def test_a_group_too_narrow_for_the_rounding_is_pruned_unrounded() -> None:
    groups = [NamedGroup(name="a", width=6, stage="s")]
    grid = RatioSpace(groups, SpaceSettings(round_to=8)).grid()
    assert grid.snap(np.array([3.0])).tolist() == [3]


def test_errors_survive_the_trip_between_processes() -> None:
    for error in (
        UnknownGroupError("a", ("b",)),
        RatioLimitsError("a", 0.6, 0.5),
        DuplicateGroupError("a"),
        ProposalError("a", "is missing"),
        EmptySpaceError(),
    ):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
