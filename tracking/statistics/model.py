"""One model over the rows of a table: whether two of them differ, and what could have been shown.

Each row has a spread of its own over the seeds, drawn toward the pooled one as far as the rows bear
out that their spreads are alike (empirical Bayes, after Smyth, "Linear models and empirical Bayes
methods", 2004), but for rows that vary far more than most: those are left out of it and keep their
own (as in Phipson et al., "Robust hyperparameter estimation", 2016; here they are told by the
median). The test is Welch's t by those variances. That the leader was picked by looking is
corrected by Tukey's studentized range: of equal rows the highest differs from some other exactly
when their range is large. How far to trust the pooled spread was chosen by simulation, see
``docs/statistics.md``.

Seeds are not paired: where seeds push all rows alike, that is on the safe side.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, digamma, fdtrc, polygamma, stdtr, stdtrit

from tracking.statistics.ranges import range_tail

SIGNIFICANCE: Final = 0.05  #: A corrected p-value from here up leaves rows undecided.
POWER: Final = 0.8  #: Of the smallest difference that could have been shown.
MARGIN: Final = 0.5  #: Points: rows proven to be closer than this tie.
MOST_SEEDS: Final = 1000  #: Beyond it, seeds are not what is missing.
_OWN: Final = 0.1  #: Rows whose spread is as unlikely as this under the pooled one keep their own.
_FEWEST: Final = 4  #: Rows from which on some can be said to vary more than most.
_OUTLYING: Final = 0.05  #: Expected rows left out of the pooled spread where all are alike.
_DOUBT: Final = 2.0  #: Standard errors by which spreads are taken to differ beyond what is seen.
_FLOOR: Final = 1e-4  #: Share of the pooled variance that no row is believed to fall below.

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """What is known of one row: its mean, and the variance of a single seed of it."""

    n: int
    mean: float
    variance: float
    df: float  #: Degrees of freedom of the variance, those lent by other rows included.


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One row held against another; in points of accuracy."""

    seeds: tuple[int, int]  #: Of the first row and of the second.
    difference: float  #: First mean minus second.
    low: float  #: 95 % confidence interval of the difference, not corrected for picking.
    high: float
    p: float  #: Two-sided, before correction.
    error: float  #: Standard error of the difference.
    df: float
    images: bool  #: The sampling error of the test images is part of the error.


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """What the seeds at hand could have shown, and how many would show what was seen."""

    smallest: float  #: Points: a true difference as large is shown in 80 % of sweeps.
    seeds: int | None  #: Per row, to show the difference seen as often; None: no number would.


def moderated(values: Sequence[Sequence[float]]) -> list[Spread | None]:
    """Return what is known of each row; None for a row with fewer than two values."""
    usable = [row for row in values if len(row) > 1]
    if not usable:
        return [None] * len(values)
    counts = np.array([len(row) for row in usable])
    own = np.array([np.var(row, ddof=1) for row in usable])
    variance, df = moderate(own, counts - 1.0)
    found = iter(zip(variance.tolist(), df.tolist(), strict=True))
    return [_spread(row, *next(found)) if len(row) > 1 else None for row in values]


def _spread(values: Sequence[float], variance: float, df: float) -> Spread:
    n = len(values)
    return Spread(n=n, mean=math.fsum(values) / n, variance=variance, df=df)


def moderate(own: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Draw variances toward their mean; return them and their degrees of freedom.

    Args:
        own: Variance of each row, ``[rows]``.
        df: Its degrees of freedom, ``[rows]``.
    """
    alike = ~_outlying(own, df)
    lent, pooled = _prior(own[alike], df[alike])
    if pooled == 0.0 or lent == 0.0:
        return own, df
    variance = (lent * pooled + df * own) / (lent + df)
    apart = ~alike | (fdtrc(df, max(lent, 1.0), own / pooled) < _OWN)
    total = np.minimum(lent + df, df[alike].sum())
    return np.where(apart, own, variance), np.where(apart, df, total)


def _outlying(own: Floats, df: Floats) -> NDArray[np.bool_]:
    """Say which rows vary far more than most, by the median: many alike do not hide each other."""
    rows = len(own)
    usual = float(np.median(own * df / chdtri(df, 0.5)))
    if rows < _FEWEST or usual == 0.0:
        return np.zeros(rows, dtype=np.bool_)
    # A median knows the spread about half as well as a mean of all rows.
    chance = fdtrc(df, df.sum() / 2.0, own / usual)
    return np.asarray(chance * rows < _OUTLYING)


def _prior(own: Floats, df: Floats) -> tuple[float, float]:
    """Return the degrees of freedom that rows lend each other, and their pooled variance."""
    rows = len(own)
    pooled = float((own * df).sum() / df.sum())
    if rows == 1 or pooled == 0.0:
        return 0.0, pooled
    logs = np.log(np.maximum(own, _FLOOR * pooled)) - digamma(df / 2) + np.log(df / 2)
    noise = float(polygamma(1, df / 2).mean())
    tails = float(polygamma(3, df / 2).mean())
    doubt = math.sqrt(tails / rows + 2.0 * noise**2 / (rows - 1))
    unlike = float(logs.var(ddof=1)) - noise + _DOUBT * doubt
    return 2.0 * _inverse_trigamma(max(unlike, 1e-4)), pooled


def difference_of(first: Spread, second: Spread, images: float | None = None) -> Difference:
    """Hold one row against another.

    Args:
        first: The row that the second is subtracted from.
        second: The other one.
        images: Variance of the difference by the sampling of test images; None: not known.
    """
    parts = (first.variance / first.n, second.variance / second.n)
    total = sum(parts) + (images or 0.0)
    shift, error = first.mean - second.mean, math.sqrt(total)
    df = _df(parts, (first.df, second.df), total)
    if error > 0.0:
        p = 2.0 * float(stdtr(df, -abs(shift) / error))
    else:  # equal runs: of the ways to hand them out, two are as extreme
        n = first.n + second.n
        p = 1.0 if abs(shift) < 1e-9 else 2.0 / math.comb(n, first.n)
    half = float(stdtrit(df, 0.975)) * error
    return Difference(
        seeds=(first.n, second.n),
        difference=shift,
        low=max(-100.0, shift - half),
        high=min(100.0, shift + half),
        p=min(p, 1.0),
        error=error,
        df=df,
        images=images is not None,
    )


def corrected(
    tests: Mapping[Key, Difference], *, best_of: int, among_themselves: bool
) -> dict[Key, float]:
    """Correct the p-values of one row, picked because its mean was highest, against others.

    Step-down: a row that is told apart is no longer counted among the equal ones, so that clear
    losers do not shield the others.

    Args:
        tests: The picked row against each other one.
        best_of: How many rows the picked one was the best of, itself included.
        among_themselves: The others are the rows it was picked from; otherwise they stand beside.
    """
    found: dict[Key, float] = {}
    largest = 0.0
    for rank, (key, test) in enumerate(sorted(tests.items(), key=lambda item: item[1].p)):
        left = len(tests) - rank
        rows, pairs = (
            (left + 1, left * (left + 1) // 2)
            if among_themselves
            else (best_of + left, best_of * left)
        )
        largest = found[key] = max(largest, test.p, _chance(test, rows, pairs))
    return found


def _chance(test: Difference, rows: int, pairs: int) -> float:
    """Return how often equal rows lie as far apart; what holds for any test bounds it."""
    if pairs <= 1:
        return test.p
    bound = min(1.0, pairs * test.p)
    if test.error == 0.0:
        return bound
    distance = np.array([math.sqrt(2.0) * abs(test.difference) / test.error])
    return min(bound, float(range_tail(distance, rows, np.array([test.df]))[0]))


def reach_of(first: Spread, second: Spread, images: float | None, rows: int) -> Reach | None:
    """Say what could have been shown between two of ``rows`` rows; None without any spread."""
    if first.variance + second.variance == 0.0:
        return None
    seen = abs(first.mean - second.mean)
    here = _smallest(first, second, images, rows, (first.n, second.n))
    if seen == 0.0 or _smallest(first, second, images, rows, (MOST_SEEDS,) * 2) > seen:
        return Reach(smallest=here, seeds=None)
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        if _smallest(first, second, images, rows, (middle, middle)) > seen:
            low = middle + 1
        else:
            high = middle
    return Reach(smallest=here, seeds=low)


def is_tie(test: Difference, margin: float) -> bool:
    """Say whether two one-sided tests at 5 % both show the difference to be below ``margin``."""
    half = float(stdtrit(test.df, 1.0 - SIGNIFICANCE)) * test.error
    return test.error > 0.0 and abs(test.difference) + half < margin


def _smallest(
    first: Spread, second: Spread, images: float | None, rows: int, seeds: tuple[int, int]
) -> float:
    parts = (first.variance / seeds[0], second.variance / seeds[1])
    total = sum(parts) + (images or 0.0)
    dfs = tuple(max(1.0, row.df + n - row.n) for row, n in zip((first, second), seeds, strict=True))
    df = _df(parts, dfs, total)
    return float((_critical(rows, df) + float(stdtrit(df, POWER))) * math.sqrt(total))


def _critical(rows: int, df: float) -> float:
    """Return the t from which two of ``rows`` rows are told apart."""
    if rows <= 2:
        return float(stdtrit(df, 1.0 - SIGNIFICANCE / 2))
    inverse, critical = _critical_by_df(rows)
    return float(np.interp(1.0 / df, inverse, critical))


@lru_cache(maxsize=64)
def _critical_by_df(rows: int) -> tuple[Floats, Floats]:
    """Return, by the reciprocal of the degrees of freedom, the t that rows are told apart from."""
    inverse = np.concatenate([[1e-6], np.linspace(0.01, 1.0, 40)])
    distances = np.geomspace(1.0, 400.0, 300)
    critical = [
        np.interp(-SIGNIFICANCE, -range_tail(distances, rows, np.full(300, 1.0 / each)), distances)
        for each in inverse
    ]
    return inverse, np.array(critical) / math.sqrt(2.0)


def _df(parts: Sequence[float], dfs: Sequence[float], total: float) -> float:
    """Approximate the degrees of freedom (Satterthwaite), never above what the better row has."""
    shares = sum(part**2 / df for part, df in zip(parts, dfs, strict=True))
    if shares == 0.0:
        return max(dfs)
    seeds_only = sum(parts) ** 2 / shares
    return float(min(seeds_only, max(dfs)) * (total / sum(parts)) ** 2)


def _inverse_trigamma(value: float) -> float:
    """Solve ``trigamma(x) = value`` by Newton's method on its reciprocal, which is convex."""
    x = 0.5 + 1.0 / value
    for _ in range(50):
        now = float(polygamma(1, x))
        step = now * (1.0 - now / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def images_variance(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the variance of a difference of means by the sampling of images, in points squared.

    What an image and a seed do together is in the spread over seeds already, so it is taken out.

    Args:
        first: Which images each seed of a row got right, ``[seeds, images]``.
        second: The same for the other row and the same images.
    """
    images = first.shape[1]
    between = float((first.mean(axis=0) - second.mean(axis=0)).var(ddof=1)) / images
    both = math.fsum(_together(answers) for answers in (first, second))
    return float(1e4 * max(0.0, between - both))


def _together(answers: NDArray[np.bool_]) -> float:
    """Return the variance of a row's mean by what single images do in single seeds."""
    seeds, images = answers.shape
    if seeds < 2:
        return 0.0
    values = answers.astype(np.float64)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    degrees = (seeds - 1) * (images - 1)
    return float(np.sum(rest * rest)) / float(degrees * seeds * images)
