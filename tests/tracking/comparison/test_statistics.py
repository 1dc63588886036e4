"""Numbers here were worked out by hand; SciPy's own tests are the second opinion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tracking.comparison.statistics import (
    PAIRED_T,
    SIGN_FLIP,
    _smallest_by_chance,
    compare_pairs,
    corrected,
    summarise,
)

CHANCE = 0.012  #: Two standard errors of a rate of 5 % in 1,500 simulated sweeps.


def test_three_seeds_give_mean_spread_and_a_t_interval() -> None:
    # Deviations -1, 0, 1: s = sqrt(2 / 2); t(0.975, 2) = 4.302653; 4.302653 / sqrt(3) = 2.484138
    summary = summarise([90.0, 91.0, 92.0])
    assert (summary.n, summary.mean, summary.std) == (3, 91.0, 1.0)
    assert summary.low == pytest.approx(91.0 - 2.484138, abs=1e-6)
    assert summary.half_width == pytest.approx(2.484138, abs=1e-6)


def test_one_seed_has_no_spread_and_no_interval() -> None:
    summary = summarise([90.5])
    assert (summary.n, summary.mean) == (1, 90.5)
    assert (summary.std, summary.low, summary.high, summary.half_width) == (None,) * 4


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_and_not_a_number_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        summarise(values)


def test_rows_are_paired_by_seed_and_not_by_position() -> None:
    # Differences by seed: 1, 2, 3, so t = 2 / (1 / sqrt(3)) = 3.4641 with 2 degrees of freedom;
    # two-sided p = 1 - t / sqrt(t^2 + 2) = 1 - sqrt(12 / 14) = 0.0741799
    test = compare_pairs({1: 91.0, 2: 92.0, 3: 93.0}, {3: 90.0, 2: 90.0, 1: 90.0})
    assert test is not None
    assert (test.test, test.seeds, test.difference) == (PAIRED_T, 3, 2.0)
    assert test.p == pytest.approx(0.0741799, abs=1e-7)


def test_seeds_only_one_side_has_are_left_out() -> None:
    test = compare_pairs({1: 91.0, 2: 92.0, 9: 10.0}, {1: 90.0, 2: 90.0, 7: 99.0})
    assert test is not None
    assert (test.seeds, test.difference) == (2, 1.5)


def test_fewer_than_two_shared_seeds_cannot_be_tested() -> None:
    assert compare_pairs({1: 91.0, 2: 92.0}, {2: 90.0, 3: 90.0}) is None
    assert compare_pairs({}, {}) is None


def test_identical_rows_are_certainly_not_different() -> None:
    test = compare_pairs({1: 91.0, 2: 92.0}, {1: 91.0, 2: 92.0})
    assert test is not None
    assert (test.p, test.difference) == (1.0, 0.0)


@pytest.mark.parametrize(("seeds", "p"), [(2, 0.5), (3, 0.25), (6, 0.03125)])
def test_equal_differences_are_weighed_by_their_number_and_not_called_certain(
    seeds: int, p: float
) -> None:
    first = {seed: 90.0 + seed + 0.1 for seed in range(seeds)}  # 0.1 apart up to rounding
    test = compare_pairs(first, {seed: 90.0 + seed for seed in range(seeds)})
    assert test is not None
    assert (test.test, test.p) == (SIGN_FLIP, p)


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=8
    ).filter(lambda pairs: len({a - b for a, b in pairs}) > 1)
)
def test_the_p_value_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first = {seed: a / 100 for seed, (a, _) in enumerate(pairs)}
    second = {seed: b / 100 for seed, (_, b) in enumerate(pairs)}
    test = compare_pairs(first, second)
    expected = stats.ttest_rel(list(first.values()), list(second.values()))
    assert test is not None
    assert test.p == pytest.approx(float(expected.pvalue), rel=1e-6, abs=1e-12)


def _alone(p_values: dict[str, float], seeds: int = 5) -> dict[str, float]:
    best_of = len(p_values) + 1
    return corrected(p_values, seeds=seeds, best_of=best_of, among_themselves=True)


def test_of_two_rows_none_was_picked_and_nothing_is_corrected() -> None:
    assert _alone({"b": 0.03}) == {"b": 0.03}
    alone = corrected({"control": 0.04}, seeds=3, best_of=1, among_themselves=False)
    assert alone == {"control": 0.04}
    assert _alone({}, seeds=0) == {}


def test_the_more_rows_the_best_is_picked_from_the_larger_the_correction() -> None:
    corrections = [
        _alone({"a": 0.001, **{str(i): 1.0 for i in range(rows - 2)}})["a"]
        for rows in (2, 3, 5, 9, 17, 25)
    ]
    assert corrections == sorted(corrections)
    assert corrections[-1] > 20 * corrections[0]
    # never as large as for every pair of rows, nor as small as for the pairs that are shown
    for rows, p in zip((3, 5, 9, 17, 25), corrections[1:], strict=True):
        assert 0.9 * (rows - 1) * 0.001 < p < rows * (rows - 1) / 2 * 0.001


def test_corrections_never_go_down_and_clear_losers_do_not_shield_the_others() -> None:
    found = _alone({"d": 0.9, "b": 0.02, "a": 1e-9, "c": 0.022})
    assert list(found) == ["a", "b", "c", "d"]
    assert list(found.values()) == sorted(found.values())
    assert found["b"] == pytest.approx(_alone({"b": 0.02, "c": 0.5, "d": 0.9})["b"])
    assert found["d"] == 0.9


def test_a_control_is_held_against_the_best_of_several() -> None:
    def against(best_of: int) -> float:
        return corrected({"x": 0.01}, seeds=5, best_of=best_of, among_themselves=False)["x"]

    assert 0.01 == against(1) < against(3) < against(12) < 0.5


def test_the_same_numbers_give_the_same_correction_every_time() -> None:
    first = _alone({"a": 0.004, "b": 0.3})
    _smallest_by_chance.cache_clear()
    assert _alone({"a": 0.004, "b": 0.3}) == first


def _false_alarms(values: NDArray[np.float64], equal: NDArray[np.bool_], seeds: int) -> float:
    """Return how often the row with the highest mean is told from one that is as good.

    Args:
        values: ``[sweeps, arms, seeds]``.
        equal: Of each arm, whether it is as good as the best.
    """
    alarms = 0
    for sweep in values:
        arms = [dict(enumerate(row.tolist())) for row in sweep]
        best = int(sweep.mean(axis=1).argmax())
        p_values = {}
        for other in set(range(len(arms))) - {best}:
            test = compare_pairs(arms[best], arms[other])
            assert test is not None
            p_values[other] = test.p
        found = corrected(p_values, seeds=seeds, best_of=len(arms), among_themselves=True)
        alarms += any(p < 0.05 and equal[other] for other, p in found.items())
    return alarms / len(values)


@pytest.mark.parametrize(("arms", "seeds"), [(3, 3), (5, 4), (12, 5)])
def test_equal_methods_are_told_apart_in_at_most_five_percent_of_sweeps(
    arms: int, seeds: int
) -> None:
    """Picks the best by looking, as a table does; some sweeps share their seeds' luck."""
    generator = np.random.default_rng(7)
    values = generator.normal(size=(2000, arms, seeds)) + generator.normal(size=(2000, 1, seeds))
    assert _false_alarms(values, np.ones(arms, dtype=bool), seeds) <= 0.05 + CHANCE


@pytest.mark.parametrize("spreads", [(0.2, 0.2, 0.2, 1, 3), (10, 1, 1, 1, 1), (1, 1, 1, 1, 10)])
def test_nor_more_often_where_some_methods_spread_more(spreads: tuple[float, ...]) -> None:
    generator = np.random.default_rng(8)
    values = generator.normal(size=(1500, 5, 4)) * np.array(spreads)[None, :, None]
    assert _false_alarms(values, np.ones(5, dtype=bool), 4) <= 0.05 + CHANCE


@pytest.mark.parametrize("behind", [0.5, 2.0, 20.0])
def test_nor_where_others_are_really_worse(behind: float) -> None:
    generator = np.random.default_rng(9)
    values = generator.normal(size=(1500, 6, 4))
    values[:, 3:] -= behind
    equal = np.arange(6) < 3
    assert _false_alarms(values, equal, 4) <= 0.05 + CHANCE


def test_what_is_really_worse_is_found_among_two_dozen_arms_with_five_seeds() -> None:
    """A method six standard deviations behind; of every pair of 24 rows it would be one of 276."""
    generator = np.random.default_rng(10)
    found = 0
    for _ in range(40):
        values = generator.normal(size=(24, 5))
        values[0] += 6.0
        arms = [dict(enumerate(row.tolist())) for row in values]
        p_values = {}
        for other in range(1, 24):
            test = compare_pairs(arms[0], arms[other])
            assert test is not None
            p_values[other] = test.p
        p = corrected(p_values, seeds=5, best_of=24, among_themselves=True)
        found += sum(value < 0.05 for value in p.values())
    assert found / (40 * 23) > 0.6
