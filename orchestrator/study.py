"""One arm at one target: its search, and which of its trials wins."""

from collections.abc import Iterable, Mapping
from typing import Any

from methods import Layout
from methods.cost import CostTarget
from orchestrator.spec import ArmSettings, SearchSettings
from search_spaces import (
    Outcome,
    PastProposal,
    Proposal,
    RatioSpace,
    Search,
    best,
    free_ratios,
    front,
    project,
)
from tracking.records import EntryRecord, TrialRecord, TrialState
from workers.settings import Target, content_hash

FRONT = "front"  #: Label of a search that has no target.
FRONT_WINNERS = 5  #: Trials of a front that are re-run, spread over its costs.

_OUTCOMES: dict[TrialState, Outcome] = {
    TrialState.COMPLETED: "completed",
    TrialState.STOPPED: "stopped",
    TrialState.FAILED: "failed",
    TrialState.CANCELLED: "failed",
}


class Study:
    """The search for one arm's ratios at one target.

    With one trial, or a method that allocates for itself, there is nothing to search.

    Args:
        arm: What is searched for.
        target: The cost to meet; None to search the front of accuracy and MACs.
        settings: How to search.
        space: Groups and their limits.
        layout: The network's groups and cost model.
    """

    def __init__(
        self,
        arm: ArmSettings,
        target: Target | None,
        settings: SearchSettings,
        space: RatioSpace,
        layout: Layout,
    ) -> None:
        self.arm, self.target = arm, target
        self.label = target.label if target else FRONT
        searches = settings.trials > 1 and arm.allocation == "search"
        self.trials = settings.trials if searches else 0
        self._space, self._layout, self._tolerance = space, layout, settings.tolerance
        self._search = Search(
            space.dimensions,
            sampler=settings.sampler,
            seed=int(content_hash([settings.seed, arm.name, self.label])[:8], 16),
            objectives=1 if target else 2,
            window=settings.window,
        )
        self._ratios: dict[int, Mapping[str, float]] = {}
        self._values: dict[int, tuple[float, float]] = {}  # validation accuracy, MACs
        self._ended: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Every trial the search asks for has ended."""
        return len(self._ended) >= self.trials

    @property
    def can_ask(self) -> bool:
        """The next proposal may be made now."""
        return self._search.asked < self.trials and self._search.can_ask(self._search.asked)

    def ask(self) -> tuple[Proposal, dict[str, float]]:
        """Return the next proposal and the ratios it stands for."""
        proposal = self._search.ask(self._search.asked)
        ratios = self.ratios_of(proposal.params)
        self._ratios[proposal.number] = ratios
        return proposal, ratios

    def ratios_of(self, params: Mapping[str, float]) -> dict[str, float]:
        """Return the ratios by group that a proposal stands for."""
        if self.target is None:
            return free_ratios(params, self._space)
        goal = CostTarget(axis=self.target.axis, reduction=self.target.reduction)
        return dict(project(params, self._space, self._layout.cost, goal, self._tolerance).ratios)

    def restore(self, past: Iterable[tuple[EntryRecord, TrialRecord]]) -> None:
        """Bring the search to where the ledger says it was."""
        history = []
        for entry, trial in sorted(past, key=lambda pair: pair[0].index):
            assert entry.proposal is not None
            proposal = Proposal(number=entry.index, **entry.proposal)
            self._ratios[entry.index] = trial.spec["ratios"]
            outcome = _OUTCOMES.get(trial.state)
            if outcome is not None:
                self._note(entry.index, trial.state, trial.result)
            history.append(
                PastProposal(proposal=proposal, outcome=outcome, values=self._told(entry.index))
            )
        self._search.restore(history)

    def tell(self, number: int, state: TrialState, result: Mapping[str, Any] | None) -> None:
        """Take in how trial ``number`` ended."""
        if number not in self._ended:
            self._note(number, state, result)
            self._search.tell(number, self._told(number), _OUTCOMES[state])

    def winners(self) -> list[tuple[str, dict[str, float]]]:
        """Return target labels and ratios of the trials to re-run with fresh seeds.

        One at a target: the best by validation accuracy, the earliest of equals; no ratios where
        the method allocates. Several on a front. None when every trial failed.
        """
        if self.arm.allocation == "method":
            return [(self.label, {})]
        if self.trials == 0:
            uniform = dict.fromkeys(self._space.dimensions, 1.0)
            return [(self.label, self.ratios_of(uniform))]
        if not self._values:
            return []
        if self.target is not None:
            number = best((n, accuracy) for n, (accuracy, _) in self._values.items())
            return [(self.label, dict(self._ratios[number]))]
        numbers = _spread(front(self._values.items()), FRONT_WINNERS)
        return [(f"{FRONT}-{number}", dict(self._ratios[number])) for number in numbers]

    def _note(self, number: int, state: TrialState, result: Mapping[str, Any] | None) -> None:
        self._ended.add(number)
        if state is TrialState.COMPLETED and result is not None:
            self._values[number] = (result["val_accuracy"], result["macs"])

    def _told(self, number: int) -> tuple[float, ...] | None:
        values = self._values.get(number)
        return None if values is None else values[: 1 if self.target else 2]


def _spread(numbers: list[int], count: int) -> list[int]:
    """Pick ``count`` of ``numbers`` evenly, the ends included."""
    if len(numbers) <= count:
        return numbers
    return [numbers[round(i * (len(numbers) - 1) / (count - 1))] for i in range(count)]
