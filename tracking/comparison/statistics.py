"""How sure a comparison can be: spread, intervals, and one test for "are these two different?".

The test is the paired t-test by seed, two-sided. With the three to five seeds a sweep can afford,
the exact sign-flip test cannot reach 0.05 (its smallest p-value is 2/2^n), so it only steps in
where the t-test has nothing to divide by: when all differences are equal.

The row that others are held against is picked by looking at the results, so it is the luckiest of
them. p-values are corrected for that by the step-down minP method (Westfall and Young,
"Resampling-Based Multiple Testing", 1993), its null distribution drawn from as many equal, normal
rows whose best is picked the same way. Correcting for the comparisons shown alone lets 6 to 10 % of
sweeps of equal methods end in a false difference instead of 5 %; correcting for every pair of rows
asks of five seeds and two dozen arms what no difference short of 5 standard deviations can give.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95  #: Of every interval shown.
SIGNIFICANCE = 0.05  #: A corrected p-value from here up is a tie.
PAIRED_T: Literal["paired t-test"] = "paired t-test"
SIGN_FLIP: Literal["exact sign-flip test"] = "exact sign-flip test"
SIMULATED = 20_000  #: Sweeps of equal methods that a correction is drawn from.
_AT_ONCE = 2_000
EQUAL_WITHIN = 1e-9  #: Differences that differ by less are equal: rounding, not spread.

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Several seeds in short, in the unit of the values."""

    n: int
    mean: float
    std: float | None  #: Sample standard deviation (n - 1); None where there is one value.
    low: float | None  #: 95 % confidence interval of the mean, by Student's t; None for one value.
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Half the width of the confidence interval."""
        return None if self.high is None else self.high - self.mean


def summarise(values: Sequence[float]) -> Summary:
    """Give mean, standard deviation and confidence interval of at least one finite value.

    Raises:
        ValueError: There is no value, or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"Cannot summarise {list(values)}; give one or more finite numbers.")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(n=1, mean=mean, std=None, low=None, high=None)
    std = _standard_deviation(values, mean)
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * std / math.sqrt(n)
    return Summary(n=n, mean=mean, std=std, low=mean - half, high=mean + half)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """Two rows compared seed by seed."""

    test: Literal["paired t-test", "exact sign-flip test"]
    seeds: int  #: Seeds both rows have.
    difference: float  #: Mean of first minus second.
    p: float  #: Two-sided, before correction.


def compare_pairs(first: Mapping[int, float], second: Mapping[int, float]) -> PairedTest | None:
    """Test whether two rows differ, over the seeds both have; None with fewer than two.

    Args:
        first: One value per seed.
        second: One value per seed; seeds only one side has are left out.
    """
    seeds = sorted(first.keys() & second.keys())
    n = len(seeds)
    if n < 2:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    mean = math.fsum(differences) / n
    if max(differences) - min(differences) > EQUAL_WITHIN * max(1.0, abs(mean)):
        t = mean / (_standard_deviation(differences, mean) / math.sqrt(n))
        p = 2.0 * float(stdtr(n - 1, -abs(t)))
        return PairedTest(test=PAIRED_T, seeds=n, difference=mean, p=min(p, 1.0))
    if abs(mean) <= EQUAL_WITHIN:
        return PairedTest(test=SIGN_FLIP, seeds=n, difference=0.0, p=1.0)
    # n equal differences: of the 2^n ways to flip their signs, two are as extreme.
    return PairedTest(test=SIGN_FLIP, seeds=n, difference=mean, p=2.0 / 2**n)


def corrected(
    p_values: Mapping[Key, float], *, seeds: int, best_of: int, among_themselves: bool
) -> dict[Key, float]:
    """Correct the p-values of one row, picked because its mean was highest, against others.

    A corrected p-value is the probability that methods which are all equal show a difference as
    clear as this one, when their best is picked the same way. Step-down: a row that is told apart
    is no longer counted among the equal ones, so that clear losers do not shield the others.

    Args:
        p_values: Of each other row, uncorrected.
        seeds: The most that any of the tests had.
        best_of: How many rows the picked one was the best of, itself included.
        among_themselves: The others are the rows it was picked from; otherwise they stand beside.

    Returns:
        The corrected p-values, each at least its raw value, up to the accuracy of the simulation.
    """
    found: dict[Key, float] = {}
    largest = 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        left = len(p_values) - rank
        rows, beside = (left + 1, 0) if among_themselves else (best_of, left)
        largest = found[key] = max(largest, p, _chance_of(p, rows, beside, seeds))
    return found


def _chance_of(p: float, rows: int, beside: int, seeds: int) -> float:
    """Return how often equal methods give a p-value as small as ``p``."""
    if rows + beside <= 2:  # nothing to pick from: the test is exact as it is
        return p
    smallest = _smallest_by_chance(rows, beside, seeds)
    share = float((1 + np.searchsorted(smallest, p, side="right")) / (1 + len(smallest)))
    pairs = rows * beside or rows * (rows - 1) // 2
    return min(share, p * pairs)  # what holds without any simulation (Bonferroni)


@lru_cache(maxsize=256)
def _smallest_by_chance(rows: int, beside: int, seeds: int) -> NDArray[np.float64]:
    """Return, sorted, the smallest p-value of the best of equal rows in each of many sweeps.

    The best of ``rows`` is tested against the others, or against ``beside`` more where there are.
    """
    generator = np.random.default_rng(0)  # so that a table does not change when it is made again
    smallest = np.empty(SIMULATED)
    for start in range(0, SIMULATED, _AT_ONCE):
        values = generator.standard_normal((_AT_ONCE, rows + beside, seeds))
        means = values.mean(axis=2)
        best = means[:, :rows].argmax(axis=1)[:, None]
        others = slice(rows, None) if beside else slice(None)
        picked = np.take_along_axis(values, best[:, :, None], axis=1)
        differences = picked - values[:, others]
        spread = differences.std(axis=2, ddof=1)
        shift = np.abs(differences.mean(axis=2))
        t = np.divide(shift, spread, out=np.zeros_like(shift), where=spread > 0).max(axis=1)
        smallest[start : start + _AT_ONCE] = 2.0 * stdtr(seeds - 1, -t * math.sqrt(seeds))
    smallest.sort()
    return smallest


def _standard_deviation(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
