"""Several seeds in short: mean, spread and an interval that stays inside what accuracies can be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95  #: Of every interval shown.


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Several seeds in short, in the unit of the values."""

    n: int
    mean: float
    std: float | None  #: Sample standard deviation (n - 1); None where there is one value.
    low: float | None  #: 95 % confidence interval of the mean, in [0, 100]; None for one value.
    high: float | None
    images: int | None = None  #: Test images whose sampling the interval covers; None: seeds alone.

    @property
    def half_width(self) -> float | None:
        """Half the width of the confidence interval."""
        return None if self.high is None else self.high - self.mean


def summarise(values: Sequence[float], images: int | None = None) -> Summary:
    """Give mean, standard deviation and confidence interval of at least one finite accuracy.

    The interval is cut at 0 and 100, beyond which no accuracy lies; that costs it no coverage.

    Args:
        values: Accuracies in percent, a seed each.
        images: How many images each was measured on, whose sampling then widens the interval, at
            100 % too (Agresti and Coull's variance); None: the seeds alone.

    Raises:
        ValueError: There is no value, or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"Cannot summarise {list(values)}; give one or more finite numbers.")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(n=1, mean=mean, std=None, low=None, high=None, images=images)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    sampling = _sampling(mean, images) if images else 0.0
    total = variance / n + sampling
    df = (n - 1) * (total * n / variance) ** 2 if variance else math.inf
    half = float(stdtrit(min(df, 1e9), 0.5 + CONFIDENCE / 2)) * math.sqrt(total)
    return Summary(
        n=n,
        mean=mean,
        std=math.sqrt(variance),
        low=min(mean, max(0.0, mean - half)),
        high=max(mean, min(100.0, mean + half)),
        images=images,
    )


def _sampling(mean: float, images: int) -> float:
    """Return the variance of an accuracy by the sampling of images, in points squared."""
    share = (mean / 100.0 * images + 2.0) / (images + 4.0)
    return 1e4 * share * (1.0 - share) / (images + 4.0)
