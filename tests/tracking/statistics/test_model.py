import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.statistics import SPREADS, before, false_rate, now, power
from tracking.statistics.model import (
    Spread,
    corrected,
    difference_of,
    images_variance,
    is_tie,
    moderate,
    reach_of,
)
from tracking.statistics.ranges import range_tail
from tracking.statistics.summary import summarise

#: Means and deviations of five seeds as published, at 30 % fewer MACs on CIFAR-10 images.
PUBLISHED = (
    "73.70 1.53, 71.66 1.66, 70.54 1.80, 70.46 3.63, 69.24 2.64, 68.94 2.30, "
    "68.94 2.30, 68.94 2.30, 68.94 2.30, 68.46 3.34, 67.76 5.32, 67.54 3.97, "
    "66.56 3.87, 65.84 2.91, 65.72 3.61, 64.94 8.50, 64.70 3.59, 64.42 9.64, "
    "64.32 6.08, 64.24 3.92, 64.12 1.64, 64.12 5.22, 61.88 2.03, 61.74 6.35, "
    "58.60 4.99, 58.16 4.99, 58.08 5.01, 57.20 3.05, 32.12 13.33"
)


def row(mean: float, deviation: float, n: int = 5, df: float | None = None) -> Spread:
    return Spread(n=n, mean=mean, variance=deviation**2, df=df or n - 1.0)


class TestSummary:
    def test_mean_spread_and_interval(self) -> None:
        summary = summarise([90.0, 91.0, 92.0])
        assert (summary.n, summary.mean, summary.std) == (3, 91.0, 1.0)
        assert summary.high == pytest.approx(91 + 4.302653 / math.sqrt(3), abs=1e-5)

    def test_one_value_has_no_spread(self) -> None:
        assert summarise([90.5]).low is None

    @pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
    def test_what_is_no_number_is_refused(self, values: list[float]) -> None:
        with pytest.raises(ValueError, match="finite"):
            summarise(values)

    @pytest.mark.parametrize("values", [[99.0, 100.0, 98.0], [0.0, 1.0, 0.0]])
    def test_intervals_stay_inside_what_an_accuracy_can_be(self, values: list[float]) -> None:
        for images in (None, 100):
            found = summarise(values, images)
            assert found.low is not None
            assert found.high is not None
            assert 0 <= found.low <= found.mean <= found.high <= 100

    def test_all_right_is_not_certain_of_few_images(self) -> None:
        low = summarise([100.0, 100.0, 100.0], 100).low
        assert low is not None
        assert 90 < low < 98


@pytest.mark.parametrize(("rows", "df"), [(3, 2), (3, 20), (10, 4), (29, 112)])
def test_the_studentized_range_is_as_scipy_has_it(rows: int, df: int) -> None:
    at = np.array([2.0, 4.0, 6.0])
    found = range_tail(at, rows, np.full(3, float(df)))
    assert found == pytest.approx(stats.studentized_range.sf(at, rows, df), abs=1e-4)


def test_of_two_rows_none_was_picked_and_the_test_is_welchs() -> None:
    test = difference_of(row(90.0, 1.0), row(88.0, 2.0))
    expected = stats.ttest_ind_from_stats(90, 1, 5, 88, 2, 5, equal_var=False)
    assert test.df <= 8
    assert test.p == pytest.approx(expected.pvalue, rel=0.25)
    assert corrected({"b": test}, best_of=2, among_themselves=True) == {"b": test.p}


def test_equal_runs_without_any_spread_are_not_made_certain() -> None:
    apart = difference_of(row(91.0, 0.0, n=3), row(90.0, 0.0, n=3))
    assert apart.p == pytest.approx(0.1)
    assert difference_of(row(91.0, 0.0, n=3), row(91.0, 0.0, n=3)).p == 1.0


def test_alike_spreads_lend_one_another_and_an_unlike_one_keeps_most_of_its_own() -> None:
    own = np.array([1.0, 1.2, 0.9, 1.1, 0.8, 1.0, 0.9, 1.1, 1.0, 400.0])
    variance, df = moderate(own, np.full(10, 4.0))
    assert variance[-1] > 300.0
    assert df[-1] < 6.0
    alike, more = moderate(own[:-1], np.full(9, 4.0))
    assert np.ptp(alike) < 0.5 * np.ptp(own[:-1])
    assert (more > 4.0).all()


def test_a_tie_needs_the_whole_interval_within_the_margin() -> None:
    near = difference_of(row(91.0, 0.2), row(90.9, 0.2))
    assert is_tie(near, 0.5)
    assert not is_tie(near, 0.1)
    assert not is_tie(difference_of(row(91.0, 5.0), row(91.0, 5.0)), 0.5)


def test_as_many_seeds_as_are_said_to_be_needed_would_show_the_difference() -> None:
    first, second = row(91.0, 2.0), row(89.0, 2.0)
    reach = reach_of(first, second, None, 3)
    assert reach is not None
    assert reach.seeds is not None
    assert reach.smallest > 2.0
    values = np.random.default_rng(1).standard_normal((400, 3, reach.seeds)) * 2.0
    values[:, 1:] -= 2.0
    found = [now(sweep).get(1, 1.0) < 0.05 for sweep in values]
    assert 0.65 < np.mean(found) <= 0.95


def test_no_number_of_seeds_makes_up_for_too_few_images() -> None:
    reach = reach_of(row(91.0, 0.5), row(90.5, 0.5), 1.0, 2)
    assert reach is not None
    assert reach.seeds is None


def test_images_count_once_beside_the_seeds() -> None:
    generator = np.random.default_rng(2)
    hard = generator.random(400)
    alike = generator.random((5, 400)) > hard
    assert images_variance(alike, alike) == 0.0
    # rows whose answers differ by image, not by seed: a mean difference of +-1 an image
    first = np.repeat(generator.random((1, 400)) > 0.5, 5, axis=0)
    second = np.repeat(generator.random((1, 400)) > 0.5, 5, axis=0)
    expected = 1e4 * np.var(first[0].astype(float) - second[0], ddof=1) / 400
    assert images_variance(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("kind", SPREADS)
@pytest.mark.parametrize(("arms", "seeds"), [(3, 3), (10, 5)])
def test_equal_methods_are_told_apart_in_at_most_five_percent_of_sweeps(
    kind: str, arms: int, seeds: int
) -> None:
    assert false_rate(now, kind, arms, seeds, 500) <= 0.05 + 0.02  # two standard errors


def test_the_published_leaderboard_is_told_apart_as_one_pooled_variance_would() -> None:
    rows = [tuple(map(float, pair.split())) for pair in PUBLISHED.split(", ")]
    pooled = math.sqrt(np.mean([deviation**2 for _, deviation in rows]))
    lead, *rest = (row(mean, pooled, df=112.0) for mean, _ in rows)
    tests = {place: difference_of(lead, other) for place, other in enumerate(rest)}
    p = corrected(tests, best_of=29, among_themselves=True)
    assert sum(value < 0.05 for value in p.values()) == 7


def test_arms_that_spread_far_more_than_most_do_not_hide_what_others_differ_by() -> None:
    alone = power(now, 4.0, 29, 5, 40)
    assert power(now, 4.0, 29, 5, 40, "a fifth of the arms fifteen times") > 0.8 * alone


def test_a_gap_of_forty_one_points_is_found_far_more_often_than_by_paired_tests() -> None:
    rows = np.array([list(map(float, pair.split())) for pair in PUBLISHED.split(", ")])
    drawn = np.random.default_rng(3).standard_normal((200, 29, 5)) * rows[:, 1, None]
    drawn += rows[:, 0, None]
    assert np.mean([now(sweep)[28] < 0.05 for sweep in drawn]) > 0.5
    assert np.mean([before(sweep)[28] < 0.05 for sweep in drawn[:30]]) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPREADS)
@pytest.mark.parametrize("arms", [3, 10, 29])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_false_difference_rate_holds_at_every_size(kind: str, arms: int, seeds: int) -> None:
    assert false_rate(now, kind, arms, seeds, 1500) <= 0.05 + 0.0113  # two standard errors
