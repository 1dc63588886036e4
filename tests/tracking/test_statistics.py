"""Numbers here were worked out by hand; SciPy's own tests are the second opinion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tracking.statistics import (
    PAIRED_T,
    SIGN_FLIP,
    compare_pairs,
    holm,
    summarise,
)


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


def test_holm_multiplies_by_what_is_left_and_never_goes_down() -> None:
    # 0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.022 x 2 = 0.044, lifted to 0.06; 0.9 x 1
    corrected = holm({"d": 0.9, "b": 0.02, "a": 0.01, "c": 0.022})
    assert corrected == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.9})


def test_holm_stays_a_probability_and_takes_an_empty_family() -> None:
    assert holm({1: 0.6, 2: 0.7}) == {1: 1.0, 2: 1.0}
    assert holm({}) == {}


def test_equal_methods_are_told_apart_in_at_most_five_percent_of_comparisons() -> None:
    """Picks the best of five equal arms by looking, as a table does, and tests it."""
    generator = np.random.default_rng(7)
    false_alarms = 0
    comparisons = 400
    for _ in range(comparisons):
        values = generator.normal(size=(5, 4))
        arms = [dict(enumerate(row.tolist())) for row in values]
        best = int(values.mean(axis=1).argmax())
        raw = {}
        for i in range(5):
            for j in range(i):
                test = compare_pairs(arms[i], arms[j])
                assert test is not None
                raw[i, j] = test.p
        corrected = holm(raw)
        false_alarms += any(p < 0.05 for pair, p in corrected.items() if best in pair)
    assert false_alarms / comparisons <= 0.05
