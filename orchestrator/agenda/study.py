"""One arm at one target: its search, and which of its trials wins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import methods
from methods import Layout
from methods.structure.cost import CostTarget
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.knobs import without_knobs
from orchestrator.specification.spec import SearchSettings
from search_spaces import (
    Costs,
    PastProposal,
    Proposal,
    ProposalOutcome,
    RatioSpace,
    Search,
    free_ratios,
    project,
)
from tracking.matrix import spread
from tracking.places import FRONT, front_point, target_label
from tracking.records import EntryRecord, TrialRecord, TrialState
from tracking.results import Result, given
from tracking.winners import best, front
from workers.settings import content_hash

UNIFORM = 0  #: Number of the proposal that stands for uniform ratios.

_OUTCOMES: dict[TrialState, ProposalOutcome] = {
    TrialState.COMPLETED: "completed",
    TrialState.STOPPED: "stopped",
    TrialState.FAILED: "failed",
    TrialState.CANCELLED: "failed",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What a proposal stands for."""

    arm: ArmSettings  #: With a value for every setting.
    ratios: Mapping[str, float]  #: Share of filters removed, by group; none: the method allocates.


class Study:
    """The search for one arm's ratios, and the settings left to it, at one target.

    A method that allocates chooses the ratios itself. With one trial there is nothing to search.

    Args:
        arm: What is searched for.
        target: The cost to meet; None to search the front of accuracy and MACs.
        settings: How to search.
        space: Groups and their limits.
        layout: The network's groups and cost model.
        tried_as: Label of a cost that is tried on the way to another target, where even uniform
            ratios are trained once for what they are worth; None: the cost is the target.
    """

    def __init__(
        self,
        arm: ArmSettings,
        target: CostTarget | None,
        settings: SearchSettings,
        space: RatioSpace,
        layout: Layout,
        *,
        tried_as: str | None = None,
    ) -> None:
        self.arm, self.target = arm, target
        cost = target_label(target.axis, target.reduction) if target else FRONT
        self.label = tried_as or cost
        self._is_tried = tried_as is not None
        self._knobs = arm.knobs
        ratios = space.dimensions if arm.allocation == "search" else ()
        dimensions = (*ratios, *self._knobs)
        self.trials = settings.trials if settings.trials > 1 and dimensions else 0
        self._space, self._tolerance = space, settings.tolerance
        self.costs: Costs = layout.cost  #: Of a latency: its model, once that is there.
        self._search = Search(
            dimensions or space.dimensions,
            sampler=settings.sampler,
            seed=int(content_hash([settings.seed, arm.name, cost])[:8], 16),
            objectives=1 if target else 2,
            window=settings.window,
            first=_defaults(arm),
        )
        #: Proposals are judged without training; the best are trained before one wins.
        self.by_proxy = settings.proxy and self.trials > 0 and not arm.trains_to_choose
        self._finalists = settings.finalists
        self._trained: dict[int, float | None] = {}  # finalists by validation accuracy, if any
        self._choices: dict[int, Choice] = {}
        self._values: dict[int, tuple[float, float]] = {}  # validation accuracy, MACs
        self._ended: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Every trial the search asks for has ended."""
        return len(self._ended) >= self.trials

    @property
    def asked(self) -> int:
        """Proposals made so far."""
        return self._search.asked

    @property
    def can_ask(self) -> bool:
        """The next proposal may be made now."""
        return self._search.asked < self.trials and self._search.can_ask(self._search.asked)

    def ask(self) -> tuple[Proposal, Choice]:
        """Return the next proposal and what it stands for."""
        proposal = self._search.ask(self._search.asked)
        choice = self._choices[proposal.number] = self._choice(proposal.params)
        return proposal, choice

    def _choice(self, params: Mapping[str, float]) -> Choice:
        numbers = {name: value for name, value in params.items() if name not in self._knobs}
        return Choice(arm=self.arm.chosen(params), ratios=self.ratios_of(numbers))

    def ratios_of(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the ratios by group that numbers by dimension stand for; none: none."""
        if self.arm.allocation == "method":
            return {}
        if self.target is None:
            return free_ratios(numbers, self._space)
        found = project(numbers, self._space, self.costs, self.target, self._tolerance)
        return dict(found.ratios)

    def restore(self, past: Iterable[tuple[EntryRecord, TrialRecord]]) -> None:
        """Bring the search to where the ledger says it was."""
        history = []
        for entry, trial in sorted(past, key=lambda pair: pair[0].place.index):
            number = entry.place.index
            assert entry.proposal is not None
            proposal = Proposal(number=number, **entry.proposal)
            self._choices[number] = self._choice(proposal.params)
            outcome = _OUTCOMES.get(trial.state)
            if outcome is not None:
                self._note(number, trial.state, trial.result)
            history.append(
                PastProposal(proposal=proposal, outcome=outcome, values=self._told(number))
            )
        self._search.restore(history)

    def tell(self, number: int, state: TrialState, result: Mapping[str, Any] | None) -> None:
        """Take in how trial ``number`` ended."""
        if number not in self._ended:
            self._note(number, state, result)
            self._search.tell(number, self._told(number), _OUTCOMES[state])

    def finalists(self) -> list[tuple[int, Choice]]:
        """Return the proposals to train before one wins: uniform ratios, then the best first.

        None where proposals are trained anyway, and on a front, whose points are all re-run.
        """
        if self.trials == 0 and self._is_tried:
            return [(UNIFORM, self._uniform)]
        if not self.by_proxy or self.target is None:
            return []
        ranked = sorted(self._values, key=lambda number: (-self._values[number][0], number))
        ranked.sort(key=lambda number: number != UNIFORM)
        chosen: dict[int, Choice] = {}
        for number in ranked:  # of proposals that stand for the same ratios, the earliest
            if len(chosen) < self._finalists and self._choices[number] not in chosen.values():
                chosen[number] = self._choices[number]
        return list(chosen.items())

    def tell_finalist(self, rank: int, result: Result | None) -> None:
        """Take in what a finalist is worth when trained; None: its trial failed."""
        number, _ = self.finalists()[rank]
        self._trained[number] = None if result is None else given(result.val_accuracy)

    def is_trained(self, number: int) -> bool:
        """Say whether the trial of finalist ``number`` has ended."""
        return number in self._trained

    @property
    def is_decided(self) -> bool:
        """The search has ended, and its finalists are trained."""
        return self.is_over and all(number in self._trained for number, _ in self.finalists())

    def winners(self) -> list[tuple[str, Choice]]:
        """Return target labels and choices of the trials to re-run with fresh seeds.

        One at a target: the best by validation accuracy, among the finalists where there are any,
        the earliest of equals; uniform ratios where nothing is searched. Several on a front. None
        when every trial failed.
        """
        if self.trials == 0:
            return [(self.label, self._uniform)]
        if self.target is not None:
            return [] if self.best is None else [(self.label, self.best[0])]
        numbers = spread(front(sorted(self._values), lambda number: self._values[number]))
        return [(front_point(number), self._choices[number]) for number in numbers]

    @property
    def best(self) -> tuple[Choice, float] | None:
        """What is trained best at the target, with its validation accuracy; None: nothing is."""
        choices = self._choices
        judged = {number: accuracy for number, (accuracy, _) in self._values.items()}
        if finalists := self.finalists():
            choices = dict(finalists)
            known = ((number, self._trained.get(number)) for number in choices)
            judged = {number: accuracy for number, accuracy in known if accuracy is not None}
        if not judged:
            return None
        number = best(judged)
        return choices[number], judged[number]

    @property
    def _uniform(self) -> Choice:
        """Uniform ratios, where nothing is searched."""
        same = dict.fromkeys(self._space.dimensions, 1.0)
        return Choice(arm=self.arm, ratios=self.ratios_of(same))

    def _note(self, number: int, state: TrialState, result: Mapping[str, Any] | None) -> None:
        self._ended.add(number)
        if state is TrialState.COMPLETED and result is not None:
            found = Result.read(result)
            self._values[number] = (given(found.val_accuracy), given(found.macs))

    def _told(self, number: int) -> tuple[float, ...] | None:
        values = self._values.get(number)
        return None if values is None else values[: 1 if self.target else 2]


def _defaults(arm: ArmSettings) -> dict[str, float]:
    """Return the numbers that stand for an arm's settings as they are when nobody chooses."""
    if not arm.knobs:
        return {}
    parts = {
        "settings": methods.create(arm.method, without_knobs(arm.settings)),
        "schedule": methods.Schedule.create(without_knobs(arm.schedule)),
    }
    found = {}
    for key, knob in arm.knobs.items():
        part, _, name = key.partition(".")
        found[key] = knob.number(getattr(parts[part], name))
    return found
