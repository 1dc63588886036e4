"""From a proposal to ratios that meet the cost target, so that trials compare at equal cost."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from methods.structure.cost import Axis, CostTarget
from search_spaces.errors import CostModelMismatchError, TargetInfeasibleError
from search_spaces.grid import CountGrid, Counts, Reals
from search_spaces.space import RatioSpace

SMALLEST_SHARE = 1e-6
"""Proposed numbers below are raised to it: a group at 0 is pruned once the others are at their cap,
and a proposal of zeros is uniform."""

SCALE_PRECISION = 1e-7
"""Relative width of the bracket at which the bisection stops."""

EXACT_CANDIDATES = 16
"""Pairs of steps whose cost is computed exactly, out of those predicted to be nearest."""


class Costs(Protocol):
    """What widths cost: a network's cost model, or a latency model."""

    groups: tuple[str, ...]
    widths: tuple[int, ...]

    def cost(self, axis: Axis, kept: Counts) -> float:
        """Return the cost of the filters kept, in the order of ``groups``."""
        ...

    def dense(self, axis: Axis) -> float:
        """Return the cost of the unpruned network."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Projected:
    """Ratios near a cost target, and how near."""

    ratios: Mapping[str, float]  #: Share of filters removed, by group; exact, removed / width.
    cost: float  #: MACs, parameters or milliseconds, on the target's axis.
    gap: float  #: (cost - target cost) / target cost.
    within_tolerance: bool


def project(
    proposal: Mapping[str, float],
    space: RatioSpace,
    cost_model: Costs,
    target: CostTarget,
    tolerance: float = 0.01,
) -> Projected:
    """Turn a proposal into ratios that meet ``target``; only relative sizes of it matter.

    One scale factor is bisected on the exact cost model, with ratios clipped to their limits; then
    single filters are put back or removed until the cost is within tolerance. Channel rounding
    gives way in as few groups as the tolerance demands.

    Args:
        proposal: Number in [0, 1] for each dimension of ``space``.
        space: Groups and limits.
        cost_model: Cost of every width; its groups are those of ``space``.
        target: Axis and the share of the dense cost to remove.
        tolerance: Allowed ``|gap|``. Networks so small that no count of filters comes this near
            give the nearest found, with ``within_tolerance`` false.

    Raises:
        ProposalError: ``proposal`` does not fit ``space``.
        CostModelMismatchError: ``cost_model`` and ``space`` have different groups or widths.
        TargetInfeasibleError: The limits of ``space`` keep the cost away from ``target``.
    """
    shares = np.maximum(space.by_group(proposal), SMALLEST_SHARE)
    goal = _Goal(space, cost_model, target, tolerance)
    goal.check_reachable(space)
    grid = space.grid()
    kept = _scale_to(goal, space, shares, grid)
    kept = _repair(goal, grid, kept)
    if space.settings.round_to > 1 and not goal.is_met(kept):
        kept = _repair(goal, space.grid(rounded=False), kept)
    return Projected(
        ratios=space.ratios(kept),
        cost=goal.cost(kept),
        gap=goal.gap(kept),
        within_tolerance=goal.is_met(kept),
    )


def reachable(space: RatioSpace, cost_model: Costs, axis: Axis) -> tuple[float, float]:
    """Return the least and the largest share of the dense cost that the limits let go.

    Raises:
        CostModelMismatchError: ``cost_model`` and ``space`` have different groups or widths.
    """
    return _Goal(space, cost_model, CostTarget(axis=axis, reduction=0.5), 0.0).reachable(space)


def free_ratios(proposal: Mapping[str, float], space: RatioSpace) -> dict[str, float]:
    """Turn a proposal into ratios where no cost is asked for: 0 is a group's floor, 1 its cap.

    Raises:
        ProposalError: ``proposal`` does not fit ``space``.
    """
    ratios = space.floors + space.by_group(proposal) * (space.caps - space.floors)
    return space.ratios(space.grid().snap(ratios * space.widths))


class _Goal:
    """The cost to meet, and the cost of kept counts in the order of the space."""

    def __init__(
        self, space: RatioSpace, model: Costs, target: CostTarget, tolerance: float
    ) -> None:
        ours = dict(zip(space.groups, space.widths.tolist(), strict=True))
        theirs = dict(zip(model.groups, model.widths, strict=True))
        for group in ours | theirs:
            if ours.get(group) != theirs.get(group):
                raise CostModelMismatchError(group, (ours.get(group), theirs.get(group)))
        self._order = np.array([space.groups.index(group) for group in model.groups])
        self._model, self._target = model, target
        self._dense = model.dense(target.axis)
        self.wanted = self._dense * (1.0 - target.reduction)
        self.tolerance = tolerance

    def cost(self, kept: Counts) -> float:
        return self._model.cost(self._target.axis, kept[self._order])

    def gap(self, kept: Counts) -> float:
        return (self.cost(kept) - self.wanted) / self.wanted

    def is_met(self, kept: Counts) -> bool:
        return abs(self.gap(kept)) <= self.tolerance

    def check_reachable(self, space: RatioSpace) -> None:
        if self.gap(space.min_kept) <= self.tolerance and self.gap(space.max_kept) >= (
            -self.tolerance
        ):
            return
        found = self.reachable(space)
        raise TargetInfeasibleError(self._target.axis, self._target.reduction, found)

    def reachable(self, space: RatioSpace) -> tuple[float, float]:
        least, most = (
            1.0 - self.cost(kept) / self._dense for kept in (space.max_kept, space.min_kept)
        )
        return least, most


def _scale_to(goal: _Goal, space: RatioSpace, shares: Reals, grid: CountGrid) -> Counts:
    """Return the counts nearest to the goal along ``clip(scale * shares, floors, caps)``."""

    def removed(scale: float) -> Reals:
        return (scale * shares).clip(space.floors, space.caps) * space.widths

    low = 0.5 / float((shares * space.widths).max())  # removes nothing beyond the floors
    high = float((space.caps / shares).max())
    costly, cheap = grid.snap(removed(low)), grid.snap(removed(high))
    if low >= high or goal.cost(costly) <= goal.wanted:
        return costly
    if goal.cost(cheap) >= goal.wanted:
        return cheap
    while high > low * (1.0 + SCALE_PRECISION) and not _are_next(grid, costly, cheap):
        middle = (low * high) ** 0.5  # scales span orders of magnitude
        kept = grid.snap(removed(middle))
        if goal.cost(kept) > goal.wanted:
            low, costly = middle, kept
        else:
            high, cheap = middle, kept
    return _fill(goal, grid, costly, cheap, removed(high) % 1.0)


def _are_next(grid: CountGrid, costly: Counts, cheap: Counts) -> bool:
    """Say whether at most one step of one group lies between two counts."""
    if np.count_nonzero(costly != cheap) > 1:
        return False
    return bool((grid.below(costly) <= cheap).all())


def _fill(goal: _Goal, grid: CountGrid, costly: Counts, cheap: Counts, fractions: Reals) -> Counts:
    """Go from ``costly`` towards ``cheap`` filter by filter, and stop where the goal is nearest.

    Groups with the largest fraction of a filter left over go first.
    """
    path = [costly]
    for group in np.argsort(-fractions, kind="stable"):
        while (kept := path[-1])[group] > cheap[group]:
            path.append(_moved(kept, int(group), int(grid.below(kept)[group])))
    first_below = bisect_left(path, -goal.wanted, key=lambda kept: -goal.cost(kept))
    around = path[max(first_below - 1, 0) : first_below + 1]
    return min(around, key=lambda kept: abs(goal.gap(kept)))


def _repair(goal: _Goal, grid: CountGrid, kept: Counts) -> Counts:
    """Step single groups, then pairs of groups, until the goal is met or nothing comes nearer."""
    while not goal.is_met(kept):
        steps = _steps(grid, kept)
        gaps = np.array([goal.gap(kept + step) for step in steps])
        nearest = np.abs(gaps).argsort(kind="stable")[:1]
        candidates: list[Counts] = [kept, *(kept + steps[nearest])]
        if not goal.is_met(candidates[-1]):
            candidates += [kept + pair for pair in _pairs(steps, gaps, goal.gap(kept))]
        best: Counts = min(candidates, key=lambda counts: abs(goal.gap(counts)))
        if best is kept:
            return kept
        kept = best
    return kept


def _steps(grid: CountGrid, kept: Counts) -> Counts:
    """Return every step of one group to a neighbouring count, ``[steps, groups]``."""
    down, up = np.diag(grid.below(kept) - kept), np.diag(grid.above(kept) - kept)
    steps = np.concatenate([down, up])
    possible: Counts = steps[steps.any(axis=1)]
    return possible


def _pairs(steps: Counts, gaps: Reals, gap: float) -> Counts:
    """Return the pairs of steps that should come nearest if costs simply added up."""
    first, second = np.triu_indices(len(steps), k=1)
    apart = (steps[first] * steps[second] == 0).all(axis=1)
    first, second = first[apart], second[apart]
    nearest = np.abs(gaps[first] + gaps[second] - gap).argsort(kind="stable")[:EXACT_CANDIDATES]
    pairs: Counts = steps[first[nearest]] + steps[second[nearest]]
    return pairs


def _moved(kept: Counts, group: int, count: int) -> Counts:
    moved = kept.copy()
    moved[group] = count
    return moved
