"""From one number that says how much stays to filters per group that meet a cost target."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from methods.errors import MethodError
from methods.structure.cost import CostModel, CostTarget, Counts
from methods.structure.groups import Layout
from methods.structure.plan import Ratios

CLOSE = 0.005  #: Distance from the target, as a share of the dense cost, that needs no repair.

_WIDEST = 690.0  # exp of it is a little below the largest float
_HALVINGS = 80  # leave 1e-21 of the range


def meet_target(
    model: CostModel, target: CostTarget, counts: Callable[[float], Counts]
) -> dict[str, float]:
    """Bisect the one scale at which ``counts`` costs what ``target`` asks for.

    Where several groups change at the same scale, filters come back one by one until the cost is
    nearest; if that is not close, one or two groups are stepped by a filter. A target above what
    the largest scale keeps is met by filters that ``counts`` never keeps.

    Args:
        model: Cost of every width.
        target: Axis and the share of the dense cost to remove.
        counts: Filters that stay at a scale in (0, inf), in the order of ``model.groups``: at
            least one each, and never fewer at a larger scale.

    Returns:
        Share of filters removed, by group.

    Raises:
        MethodError: The target removes more than pruning every group to one filter does.
    """
    goal = _Goal(model, target)
    widths = np.array(model.widths, dtype=np.int64)
    check_reachable(model, target)
    least, most = counts(math.exp(-_WIDEST)), counts(math.exp(_WIDEST))
    if goal.gap(least) > 0:
        cheap, costly = np.ones_like(widths), least
    elif goal.gap(most) <= 0:
        cheap, costly = most, widths
    else:
        cheap, costly = _bracket(goal, counts, least, most)
    kept = _repaired(goal, _nearest_between(goal, cheap, costly, widths), widths)
    removed = (widths - kept) / widths
    return dict(zip(model.groups, removed.tolist(), strict=True))


def across_layers(
    layout: Layout, target: CostTarget, scores: Mapping[str, Tensor], *, relative: bool = False
) -> Ratios:
    """Return the ratios at which one threshold for the whole network costs what is asked for.

    Equal scores go in the order of the groups; every group keeps a filter.

    Args:
        layout: Groups and cost model.
        target: Axis and the share of the dense cost to remove.
        scores: One per filter, by group, ``[filters]``; the lowest goes first.
        relative: Measure the scores of a group by their mean size, for scores that grow with what a
            layer reads.

    Raises:
        MethodError: The target removes more than one filter per group leaves.
    """
    found = [scores[name].double().numpy() for name in layout.cost.groups]
    if relative:
        found = [values / max(float(np.abs(values).mean()), 1e-300) for values in found]
    order = np.argsort(np.concatenate(found), kind="stable")
    places = np.empty(len(order))
    places[order] = np.arange(1, len(order) + 1)  # the last to go has the highest
    by_group = np.split(places, np.cumsum([len(values) for values in found])[:-1])

    def counts(scale: float) -> Counts:
        threshold = len(order) / (1.0 + scale)
        kept = [max(1, int((group > threshold).sum())) for group in by_group]
        return np.array(kept, dtype=np.int64)

    return meet_target(layout.cost, target, counts)


def check_reachable(model: CostModel, target: CostTarget) -> None:
    """Refuse a target that no allocation meets.

    Raises:
        MethodError: It removes more than pruning every group to one filter does.
    """
    ones = np.ones(len(model.groups), dtype=np.int64)
    most = 1.0 - model.cost(target.axis, ones) / model.dense(target.axis)
    if target.reduction > most + CLOSE:
        raise MethodError(
            f"The target removes {target.reduction:.1%} of the {target.axis}, and one filter per "
            f"group removes {most:.1%}. Lower the target, or let more layers be pruned."
        )


class _Goal:
    def __init__(self, model: CostModel, target: CostTarget) -> None:
        self._model, self._target = model, target
        self._dense = model.dense(target.axis)

    def gap(self, kept: Counts) -> float:
        """Return how far above the target ``kept`` is, as a share of the dense cost."""
        return self._model.cost(self._target.axis, kept) / self._dense - (
            1.0 - self._target.reduction
        )


def _bracket(
    goal: _Goal, counts: Callable[[float], Counts], cheap: Counts, costly: Counts
) -> tuple[Counts, Counts]:
    """Return counts at two neighbouring scales, below the goal and above it."""
    low, high = -_WIDEST, _WIDEST
    for _ in range(_HALVINGS):
        if int((costly - cheap).sum()) <= 1:
            break
        middle = (low + high) / 2
        kept = counts(math.exp(middle))
        if goal.gap(kept) > 0:
            high, costly = middle, kept
        else:
            low, cheap = middle, kept
    return cheap, costly


def _nearest_between(goal: _Goal, cheap: Counts, costly: Counts, widths: Counts) -> Counts:
    """Bring filters back one at a time, from the group with the smallest share, to the goal."""
    kept = before = cheap
    while goal.gap(kept) < 0 and (kept < costly).any():
        shares = np.where(kept < costly, kept / widths, np.inf)
        before, kept = kept, kept.copy()
        kept[int(shares.argmin())] += 1
    return min(before, kept, key=lambda counts: abs(goal.gap(counts)))


def _repaired(goal: _Goal, kept: Counts, widths: Counts) -> Counts:
    """Step one or two groups by one filter while that comes nearer to a goal that is not close."""
    while abs(goal.gap(kept)) > CLOSE:
        steps = np.concatenate([np.eye(len(kept), dtype=np.int64), -np.eye(len(kept), dtype=int)])
        singles = kept + steps
        pairs = (singles[:, None] + steps).reshape(-1, len(kept))
        near = np.concatenate([singles, pairs])
        near = near[(near >= 1).all(axis=1) & (near <= widths).all(axis=1)]
        best: Counts = min(near, key=lambda counts: abs(goal.gap(counts)))
        if abs(goal.gap(best)) >= abs(goal.gap(kept)):
            return kept
        kept = best
    return kept
