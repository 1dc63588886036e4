import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods import PlanError, PruningPlan, PruningRatioError, removed_count

ratios = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
widths = st.integers(min_value=1, max_value=4096)


@st.composite
def plans(draw: st.DrawFn) -> PruningPlan:
    groups = draw(st.dictionaries(st.text(min_size=1), st.integers(1, 40), max_size=4))
    return PruningPlan(
        policy=draw(st.sampled_from(["inside_blocks", "coupled"])),
        widths=groups,
        kept={
            group: tuple(sorted(draw(st.sets(st.integers(0, width - 1), min_size=1))))
            for group, width in groups.items()
        },
    )


@given(width=widths, ratio=ratios)
def test_a_filter_is_always_kept_and_never_more_removed_than_asked(
    width: int, ratio: float
) -> None:
    removed = removed_count("conv", width, ratio)
    assert 0 <= removed <= width - 1
    assert removed <= ratio * width + 1e-6
    assert removed == width - 1 or ratio * width - removed < 1.0


@given(width=widths, one=ratios, other=ratios)
def test_a_higher_ratio_never_removes_fewer(width: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert removed_count("conv", width, low) <= removed_count("conv", width, high)


@given(width=widths, data=st.data())
def test_the_ratio_of_a_count_removes_that_count(width: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, width - 1))
    assert removed_count("conv", width, count / width) == count
    assert removed_count("conv", width, 1 - (width - count) / width) == count


def test_a_rounding_error_loses_no_filter() -> None:
    assert math.floor((1 - 0.9) * 10) == 0
    assert removed_count("conv", 10, 1 - 0.9) == 1


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, math.nan])
def test_a_ratio_outside_its_range_is_named(ratio: float) -> None:
    with pytest.raises(PruningRatioError, match=r"'conv7' has pruning ratio"):
        removed_count("conv7", 8, ratio)


@given(plan=plans())
def test_a_plan_survives_json(plan: PruningPlan) -> None:
    assert PruningPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(plan=plans())
def test_the_ratios_of_a_plan_give_its_counts(plan: PruningPlan) -> None:
    for group, ratio in plan.ratios.items():
        assert removed_count(group, plan.widths[group], ratio) == len(plan.dropped(group))


@given(plan=plans())
def test_kept_and_dropped_make_up_the_group(plan: PruningPlan) -> None:
    for group, kept in plan.kept.items():
        assert sorted([*kept, *plan.dropped(group)]) == list(range(plan.widths[group]))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"a": ()}, "keeps no filter of 'a'"),
        ({"a": (1, 0)}, "must ascend"),
        ({"a": (0, 0)}, "must ascend"),
        ({"a": (-1,)}, "within 0..3"),
        ({"a": (4,)}, "within 0..3"),
        ({"b": (0,)}, r"\['a', 'b'\]"),
    ],
)
def test_an_impossible_plan_is_refused(kept: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PruningPlan(policy="inside_blocks", widths={"a": 4}, kept=kept)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"format": 1},
        {"format": 1, "policy": "inside_blocks", "widths": 3, "kept": {}},
        {"format": 1, "policy": "inside_blocks", "widths": {"a": 4}, "kept": {"a": "x"}},
        {"format": 1, "policy": "inside_blocks", "widths": {"a": 4}, "kept": {"a": None}},
    ],
)
def test_what_is_not_a_plan_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="not a pruning plan"):
        PruningPlan.from_json(data)


def test_a_plan_of_another_format_is_refused() -> None:
    with pytest.raises(PlanError, match="reads format 1"):
        PruningPlan.from_json({"format": 2})
