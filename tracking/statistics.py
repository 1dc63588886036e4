"""How sure a comparison can be: spread, intervals, and one test for "are these two different?".

The test is the paired t-test by seed, two-sided. With the three to five seeds a sweep can afford,
the exact sign-flip test cannot reach 0.05 (its smallest p-value is 2/2^n), so it only steps in
where the t-test has nothing to divide by: when all differences are equal. p-values are corrected
with Holm's method over *every pair of rows that could have been compared*, not only over the pairs
shown: the best row is picked by looking at the results, and correcting for the shown pairs alone
lets 6 to 10 % of comparisons of equal methods end in a false difference instead of 5 %.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95  #: Of every interval shown.
SIGNIFICANCE = 0.05  #: A corrected p-value from here up is a tie.
PAIRED_T: Literal["paired t-test"] = "paired t-test"
SIGN_FLIP: Literal["exact sign-flip test"] = "exact sign-flip test"
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


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Correct a family of p-values for its size (Holm, 1979); each is at least its raw value."""
    corrected: dict[Key, float] = {}
    largest = 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        corrected[key] = largest
    return corrected


def _standard_deviation(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
