"""Which stripes go first, and how many go at a given ratio or cost.

Cost falls by more than the stripe when a filter loses its last one and what reads it shrinks too.
Which filters die is known only with the scores; so a cost is met by walking down the order.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from methods.errors import MethodError
from methods.state import State
from methods.structure.cost import CostTarget
from methods.structure.groups import Layout
from methods.structure.plan import Ratios, removed_count

CLOSE = 0.002  #: Distance from a cost, as a share of it, that needs no further steps.

Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
Reals = np.ndarray[tuple[int], np.dtype[np.float64]]


class RemovalOrder:
    """The order in which the stripes of a network go.

    With ratios, layers lose their lowest scores in step with their ratios; without, the lowest of
    all layers go first, each layer's scores relative to their first mean. Every layer keeps one.

    Args:
        layout: Groups and cost model.
        ratios: Share of stripes removed, by group.
        target: What the network must cost, where there is something to meet.

    Raises:
        MethodError: The target removes more than one stripe per layer leaves.
    """

    def __init__(self, layout: Layout, ratios: Ratios, target: CostTarget | None) -> None:
        self._groups, self._model, self._target = layout.groups, layout.cost, target
        self._wanted = [
            removed_count(group.name, group.width, ratios.get(group.name, 0.0))
            for group in layout.groups
        ]
        self._by_ratio = bool(ratios) or target is None
        self._means: list[float] = []
        widths = [group.width for group in layout.groups]
        self._starts = np.cumsum([0, *widths])
        if target is not None:
            self._check_reachable(target)

    def state_dict(self) -> State:
        """Return the means that scores are relative to; none before the first look."""
        return {"means": [*self._means]}

    def load_state_dict(self, state: State) -> None:
        """Take over the means."""
        self._means = [*state["means"]]

    def gone(self, scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Return what is gone when ``share`` of all that is to go has gone.

        Args:
            scores: By group, ``[width]``; what is gone already has ``-inf``.
            share: Of the ratios or, where there is a target, of the cost; in [0, 1].

        Returns:
            Booleans by group, ``[width]``.
        """
        due = self._due([scores[group.name].double().numpy() for group in self._groups])
        if self._target is None:
            gone: Bools = due <= share
        else:
            gone = self._at_cost(due, 1.0 - share * self._target.reduction)
        parts = np.split(gone, self._starts[1:-1])
        return {
            group.name: torch.from_numpy(part)
            for group, part in zip(self._groups, parts, strict=True)
        }

    def _due(self, scores: list[Reals]) -> Reals:
        """Return when each stripe goes: at 1 the ratios are reached; never for a layer's last."""
        if not self._means:
            self._means = [max(float(values.mean()), 1e-30) for values in scores]
        due = []
        for values, wanted, mean in zip(scores, self._wanted, self._means, strict=True):
            order = np.argsort(values, kind="stable")
            when = values / mean
            if self._by_ratio:
                when[order] = np.arange(1, len(order) + 1) / wanted if wanted else np.inf
            when[order[-1]] = np.inf
            when[np.isneginf(values)] = -np.inf
            due.append(when)
        return np.concatenate(due)

    def _at_cost(self, due: Reals, cost_left: float) -> Bools:
        """Return what is gone when the cost is nearest to a share of the dense network's."""
        order = np.argsort(due, kind="stable")
        low, high = int(np.isneginf(due).sum()), int((due < np.inf).sum())

        def first(count: int) -> Bools:
            gone = np.zeros(len(due), dtype=np.bool_)
            gone[order[:count]] = True
            return gone

        while low < high:  # the largest count that costs too much, or what is gone already
            middle = (low + high + 1) // 2
            if self._gap(first(middle), cost_left) > 0.0:
                low = middle
            else:
                high = middle - 1
        gone = first(low)
        best, nearest = gone.copy(), abs(self._gap(gone, cost_left))
        for stripe in order[low : int((due < np.inf).sum())]:
            if nearest <= CLOSE:
                break
            gone[stripe] = True
            gap = self._gap(gone, cost_left)
            if abs(gap) < nearest:
                best, nearest = gone.copy(), abs(gap)
            if gap < 0.0:  # a filter died of it: others may come nearer
                gone[stripe] = False
        return best

    def _gap(self, gone: Bools, cost_left: float) -> float:
        """Return how far the cost is above a share of the dense one, relative to that."""
        assert self._target is not None
        kept, alive = [], []
        for group, part in zip(self._groups, np.split(gone, self._starts[1:-1]), strict=True):
            kept.append(group.width - int(part.sum()))
            if group.name in self._model.striped:
                alive.append(group.filters - int(part.reshape(-1, group.taps).all(axis=1).sum()))
        axis = self._target.axis
        counts = np.array(kept, dtype=np.int64), np.array(alive, dtype=np.int64)
        wanted = cost_left * self._model.dense(axis)
        return (self._model.cost(axis, *counts) - wanted) / wanted

    def _check_reachable(self, target: CostTarget) -> None:
        gone = np.concatenate(
            [
                np.arange(group.width) < (group.width - 1 if wanted or not self._by_ratio else 0)
                for group, wanted in zip(self._groups, self._wanted, strict=True)
            ]
        )
        left = 1.0 - target.reduction
        if (gap := self._gap(gone, left)) > CLOSE:
            raise MethodError(
                f"The target removes {target.reduction:.1%} of the {target.axis}, and one stripe "
                f"per layer that may be pruned removes {1.0 - left * (1.0 + gap):.1%}. Lower the "
                "target, or let more layers be pruned."
            )
