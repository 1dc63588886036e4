"""How often the comparison's test claims a difference that is not there, and finds one that is.

Simulates sweeps of normal accuracies, picks the leader by looking as a table does, and writes
``docs/results/statistics.md``. Beside it stands what was used before: paired t-tests by seed,
corrected by step-down minP. Run it with ``python -m benchmarks.statistics FILE``.
"""

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from tracking.statistics.model import corrected, difference_of, moderated

Floats = NDArray[np.float64]
Test = Callable[[Floats], dict[int, float]]  #: ``[arms, seeds]`` to corrected p, by arm.

SEEDS: Final = (3, 5, 10)
ARMS: Final = (3, 10, 29)
SIGNIFICANCE: Final = 0.05
SPREADS: Final = (
    "equal",
    "one arm ten times",
    "half of the arms five times",
    "a fifth of the arms fifteen times",
    "log-normal, sigma 1",
)
SEED: Final = 20261127
NOISY: Final = (SPREADS[0], SPREADS[1], SPREADS[3])  #: Spreads under which differences are sought.
FAR: Final = 50.0
BEHIND: Final = (2.0, 4.0, 8.0)  #: Standard deviations that one arm lies behind all others.


def spreads(kind: str, arms: int) -> Floats:
    """Return the standard deviation of each arm."""
    found = np.ones(arms)
    if kind == SPREADS[1]:
        found[0] = 10.0
    elif kind == SPREADS[2]:
        found[: arms // 2] = 5.0
    elif kind == SPREADS[3]:
        found[: max(1, arms // 5)] = 15.0
    elif kind == SPREADS[4]:
        found = np.exp(np.random.default_rng(SEED).standard_normal(arms))
    return found


def now(values: Floats) -> dict[int, float]:
    """Return what the comparison says: corrected p of every arm but the leader."""
    found = moderated(values.tolist())
    lead = int(values.mean(axis=1).argmax())
    first = found[lead]
    assert first is not None
    tests = {
        arm: difference_of(first, other)
        for arm, other in enumerate(found)
        if other is not None and arm != lead
    }
    return corrected(tests, best_of=len(values), among_themselves=True)


def before(values: Floats) -> dict[int, float]:
    """Return the same by paired t-tests and step-down minP."""
    arms, seeds = values.shape
    lead = int(values.mean(axis=1).argmax())
    p = paired(values[lead] - np.delete(values, lead, axis=0))
    names = [arm for arm in range(arms) if arm != lead]
    found: dict[int, float] = {}
    largest = 0.0
    for rank, place in enumerate(np.argsort(p)):
        rows = arms - rank
        smallest = smallest_by_chance(rows, seeds)
        chance = (1 + np.searchsorted(smallest, p[place], side="right")) / (1 + len(smallest))
        largest = max(largest, float(p[place] if rows == 2 else chance))
        if largest >= SIGNIFICANCE:
            break
        found[names[place]] = largest
    return {**dict.fromkeys(names, 1.0), **found}


def paired(differences: Floats) -> Floats:
    """Return the p-values of paired t-tests, ``[..., seeds]`` to ``[...]``."""
    seeds = differences.shape[-1]
    t = differences.mean(axis=-1) / np.maximum(differences.std(axis=-1, ddof=1), 1e-12)
    return np.asarray(2.0 * stdtr(seeds - 1, -np.abs(t) * np.sqrt(seeds)))


@lru_cache(maxsize=256)
def smallest_by_chance(rows: int, seeds: int) -> Floats:
    """Return, sorted, the smallest p of the best of equal rows in each of 5,000 sweeps."""
    values = np.random.default_rng(0).standard_normal((5000, rows, seeds))
    best = values.mean(axis=2).argmax(axis=1)
    lead = values[np.arange(len(values)), best][:, None]
    p = paired(lead - values)
    p[np.arange(len(values)), best] = 1.0
    return np.sort(p.min(axis=1))


def false_rate(test: Test, kind: str, arms: int, seeds: int, sweeps: int) -> float:
    """Return the share of sweeps of equal methods in which some arm is told from the leader."""
    generator = np.random.default_rng([SEED, arms, seeds])
    values = generator.standard_normal((sweeps, arms, seeds)) * spreads(kind, arms)[:, None]
    return sum(min(test(sweep).values()) < SIGNIFICANCE for sweep in values) / sweeps


def power(
    test: Test, behind: float, arms: int, seeds: int, sweeps: int, kind: str = SPREADS[0]
) -> float:
    """Return how often one arm, so many standard deviations behind most others, is found.

    Arms that spread more than most lie far behind it, as they do in sweeps.
    """
    spread = spreads(kind, arms)[:, None]
    values = np.random.default_rng([SEED, arms, seeds]).standard_normal((sweeps, arms, seeds))
    values = values * spread - np.where(spread > 1.0, FAR, 0.0)
    values[:, -1] -= behind
    return sum(test(sweep).get(arms - 1, 1.0) < SIGNIFICANCE for sweep in values) / sweeps


def lines(sweeps: int, power_sweeps: int) -> Iterator[str]:
    """Write the page."""
    errors = [
        100 * (share * (1 - share) / n) ** 0.5 for share, n in ((0.05, sweeps), (0.5, power_sweeps))
    ]
    yield "# How far the verdicts can be trusted\n"
    yield "Made by `python -m benchmarks.statistics docs/results/statistics.md`.\n"
    yield "## Differences claimed between equal methods\n"
    yield (
        "Share of simulated sweeps, in percent, in which at least one arm is called worse than "
        f"the leader though all are equal. {sweeps:,} sweeps a cell; standard "
        f"error {errors[0]:.1f} at 5 %. "
        "Paired: step-down minP over paired t-tests, which the comparison used before.\n"
    )
    yield "| Spread | Arms | Seeds | Now | Paired |\n|:---|---:|---:|---:|---:|"
    for kind in SPREADS:
        for arms in ARMS:
            for seeds in SEEDS:
                rates = [100 * false_rate(t, kind, arms, seeds, sweeps) for t in (now, before)]
                yield f"| {kind} | {arms} | {seeds} | {rates[0]:.1f} | {rates[1]:.1f} |"
    yield "\n## Differences found\n"
    yield (
        "Share of sweeps, in percent, in which one arm that lies behind most others is found; "
        f"distance in deviations of one run. Arms that spread more than most lie {FAR:g} of these "
        f"behind. {power_sweeps} sweeps a cell; standard error at most {errors[1]:.1f}.\n"
    )
    yield "| Spread | Behind | Arms | Seeds | Now | Paired |\n|:---|---:|---:|---:|---:|---:|"
    for kind, behind, arms, seeds in product(NOISY, BEHIND, ARMS, SEEDS):
        found = [100 * power(t, behind, arms, seeds, power_sweeps, kind) for t in (now, before)]
        yield f"| {kind} | {behind:g} | {arms} | {seeds} | {found[0]:.0f} | {found[1]:.0f} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(lines(1000, 200)) + "\n", encoding="utf-8")
