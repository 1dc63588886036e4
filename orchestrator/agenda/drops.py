"""The cheapest network within an accuracy drop: which costs are searched, and what is the answer.

Of the costs an arm may come to, the middle one is searched as any target is. Where the best network
trained there is within the drop of the dense control, by validation accuracy, the cheaper half is
left, else the dearer one; after `search.costs` of them the cheapest network within is the answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from methods.structure.cost import Axis, CostTarget
from orchestrator.agenda.prunable import PrunableNetwork
from orchestrator.agenda.study import Choice, Study
from orchestrator.agenda.survey import Survey
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.spec import SweepSpec
from tracking.places import drop_label, searched_label, tried_at
from tracking.results import Result, given
from tracking.winners import is_within


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The cheapest network of an arm within a drop, as far as validation accuracy tells."""

    choice: Choice
    target: CostTarget  #: The cost it was searched at.


class Drop:
    """The search for one arm's cheapest network within an accuracy drop.

    Args:
        arm: What is searched for.
        points: Of accuracy that may be lost.
        spec: How to search, and what is cheap.
        surveyed: The network and its groups.
    """

    def __init__(self, arm: ArmSettings, points: float, spec: SweepSpec, surveyed: Survey) -> None:
        assert spec.targets is not None
        self._arm, self._points = arm, points
        self._settings, self._axis = spec.search, spec.targets.cost
        self._prunable = surveyed.of(arm.unit)
        self._left = spec.search.costs
        # Between what is known to be within the drop and what is not; both ends are never tried.
        self._within, self._beyond = self._prunable.reachable_on(self._axis)
        self.label = drop_label(points)
        self.answer: Answer | None = None
        self.study = self._next()  #: At the cost that is tried now.

    def _next(self) -> Study:
        self._left -= 1
        target = _between(self._axis, self._within, self._beyond)
        space, layout = self._prunable.space, self._prunable.layout
        label = tried_at(self.label, target.reduction)
        return Study(self._arm, target, self._settings, space, layout, tried_as=label)

    def decide(self, dense: float) -> Study | None:
        """Take in the best network at the cost that was tried; return the next, None: no more.

        Args:
            dense: Validation accuracy of the dense control.
        """
        target, found = self.study.target, self.study.best
        assert target is not None
        if found is not None and is_within(found[1], dense, self._points):
            self._within = target.reduction
            self.answer = Answer(choice=found[0], target=target)
        else:
            self._beyond = target.reduction
        if self._left == 0:
            return None
        self.study = self._next()
        return self.study


def middle_of(prunable: PrunableNetwork, axis: Axis) -> CostTarget:
    """Return the cost halfway between the least and the most that may go."""
    return _between(axis, *prunable.reachable_on(axis))


def _between(axis: Axis, within: float, beyond: float) -> CostTarget:
    return CostTarget(axis=axis, reduction=float(f"{(within + beyond) / 2:.4g}"))


class Drops:
    """All such searches of a sweep, and the dense control they are held against."""

    def __init__(self, spec: SweepSpec, surveyed: Survey) -> None:
        drops = spec.targets.accuracy_drop if spec.targets else ()
        found = [
            (arm.name, Drop(arm, points, spec, surveyed)) for points in drops for arm in spec.arms
        ]
        self._drops = {(arm, drop.label): drop for arm, drop in found}
        self._awaited = set(spec.seeds if found else ())
        self._dense: list[float] = []

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Arm and label of each."""
        return list(self._drops)

    @property
    def studies(self) -> list[Study]:
        """The searches at the costs that are tried now."""
        return [drop.study for drop in self._drops.values()]

    def of(self, arm: str, label: str) -> Drop | None:
        """Return the drop that a search at ``label`` is on the way to; None: to none."""
        return self._drops.get((arm, searched_label(label)))

    def dense_came(self, seed: int, result: Result | None) -> None:
        """Take in a run of the dense control; None: it failed."""
        self._awaited.discard(seed)
        if result is not None:
            self._dense.append(given(result.val_accuracy))

    @property
    def is_dense_awaited(self) -> bool:
        """Nothing can be decided yet, as runs of the dense control are out."""
        return bool(self._awaited)

    @property
    def is_dense_missed(self) -> bool:
        """Nothing can be decided at all: no run of the dense control came back."""
        return bool(self._drops) and not (self._awaited or self._dense)

    @property
    def dense(self) -> float:
        """Validation accuracy of the dense control, over its seeds; all of them have ended."""
        return fmean(self._dense)

    def cheapest(self, label: str, arms: Iterable[str]) -> str | None:
        """Return which of ``arms`` loses most of the cost within a drop; of equals the first."""
        found = {
            arm: drop.answer.target.reduction
            for arm in arms
            if (drop := self._drops.get((arm, label))) is not None and drop.answer is not None
        }
        return max(found, key=lambda arm: found[arm]) if found else None
