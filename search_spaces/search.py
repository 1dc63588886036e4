"""One search: an Optuna study for one arm and target, in memory, and the same on every run.

Proposal ``k`` knows the results of proposals up to ``k - window`` and no others, whatever order
they came in; the later ones count as running. So what is proposed does not depend on how many
workers there are, how fast they are, or how often the sweep was killed and resumed.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces import sampler_state
from search_spaces.errors import SearchOrderError, SearchSettingsError
from search_spaces.samplers import BLIND, SeededSampler, check_sampler

ProposalOutcome = Literal["completed", "stopped", "failed"]

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # of accuracy and cost


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What to try, and what the sampler must remember of having proposed it; all JSON."""

    number: int  #: From 0, without gaps.
    params: Mapping[str, float]  #: Number in [0, 1] by dimension.
    state: Mapping[str, Any]  #: The sampler's memory, to be stored and restored as it is.


@dataclass(frozen=True, kw_only=True, slots=True)
class PastProposal:
    """A stored proposal and what became of it."""

    proposal: Proposal
    outcome: ProposalOutcome | None = None  #: None while it is not known.
    values: Sequence[float] | None = None  #: One per objective; None unless completed.


@dataclass(frozen=True, slots=True)
class _Result:
    outcome: ProposalOutcome
    values: list[float] | None


class Search:
    """Ask for proposals in order, tell results in any order. Not safe for use by two threads.

    Args:
        dimensions: Names of the numbers to choose, each in [0, 1].
        sampler: One of ``SAMPLERS``.
        seed: Seed of the whole search, at least 0.
        objectives: 1 to maximise accuracy; 2 to maximise accuracy and minimise cost.
        window: How far proposals may run ahead of results; 1 waits for each. Samplers that look at
            no results wait for none.
        first: Numbers of the first proposal, where they are not the middle: for ratios that is
            uniform.

    Raises:
        SearchSettingsError: A setting is out of range, or the sampler cannot use it.
    """

    def __init__(
        self,
        dimensions: Sequence[str],
        *,
        sampler: str = "tpe",
        seed: int = 0,
        objectives: int = 1,
        window: int = 4,
        first: Mapping[str, float] | None = None,
    ) -> None:
        _check_settings(dimensions, seed, objectives, window)
        check_sampler(sampler, objectives)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # One object for all dimensions: Optuna copies a trial deeply at every turn.
        self._space: dict[str, BaseDistribution] = dict.fromkeys(
            dimensions, FloatDistribution(0.0, 1.0)
        )
        self._sampler, self._seed = sampler, seed
        self._window = sys.maxsize if sampler in BLIND else window
        self._first = dict(first or {})
        self._objectives = objectives
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            study_name="search",
            sampler=self._sampler_for(0),
            pruner=optuna.pruners.NopPruner(),
            directions=DIRECTIONS[:objectives],
        )
        self._study_id = self._storage.get_study_id_from_name("search")
        self._results: dict[int, _Result] = {}
        self._asked = 0
        self._told = 0  # every proposal below is in the study with its result

    @property
    def asked(self) -> int:
        """How many proposals were made; the number of the next."""
        return self._asked

    def can_ask(self, number: int) -> bool:
        """Say whether ``number`` is the next proposal and the results it must know are in."""
        known = range(self._told, max(number - self._window + 1, 0))
        return number == self._asked and all(n in self._results for n in known)

    def ask(self, number: int) -> Proposal:
        """Propose what to try next.

        Raises:
            SearchOrderError: ``number`` is not the next, or ``can_ask`` says it is too early.
        """
        if number != self._asked:
            raise SearchOrderError(number, f"cannot be asked for; the next is {self._asked}.")
        if not self.can_ask(number):
            missing = next(n for n in range(self._told, number) if n not in self._results)
            raise SearchOrderError(
                number,
                f"cannot be asked for before the result of proposal {missing} is known, because "
                f"the window is {self._window}. Tell that result first, or widen the window.",
            )
        # Told by number, never by time: the study that makes this proposal holds the results up to
        # the window and no others, whichever came in first.
        self._tell_until(number - self._window)
        before = dict(self._storage.get_study_system_attrs(self._study_id))
        self._study.sampler = self._sampler_for(number)
        self._study.ask(fixed_distributions=self._space)
        self._asked += 1
        trial = self._trial(number)
        after = self._storage.get_study_system_attrs(self._study_id)
        changed = {key: value for key, value in after.items() if before.get(key) != value}
        return Proposal(
            number=number,
            params={name: float(trial.params[name]) for name in self._space},
            state=sampler_state.to_json(trial.system_attrs, changed),
        )

    def tell(self, number: int, values: Sequence[float] | None, outcome: ProposalOutcome) -> None:
        """Take in the result of a proposal; the study learns it when the window allows.

        Args:
            number: A proposal that was asked for.
            values: One number per objective; not used unless ``completed``. A completed trial
                whose values are not finite is told as failed.
            outcome: What became of the trial.

        Raises:
            SearchOrderError: The proposal is not open, or has too few or too many values.
        """
        if not 0 <= number < self._asked:
            raise SearchOrderError(number, "was never asked for, so it cannot have a result.")
        if number in self._results:
            raise SearchOrderError(number, "has a result already, which is final.")
        # Kept, not told on: the study learns it when a proposal is due that must know it.
        self._results[number] = self._result(number, values, outcome)

    def restore(self, past: Iterable[PastProposal]) -> None:
        """Bring a new search to where another one, of the same settings, was.

        Args:
            past: Every proposal made so far, in order.

        Raises:
            SearchOrderError: This search has begun already, or a proposal is missing.
            SearchSettingsError: A proposal has other dimensions than this search.
        """
        if self._asked:
            raise SearchOrderError(self._asked, "is next; only a new search can be restored.")
        history = list(past)
        for number, item in enumerate(history):
            if item.proposal.number != number:
                raise SearchOrderError(number, "is missing; restore all proposals, in order.")
            if item.proposal.params.keys() != self._space.keys():
                raise SearchSettingsError(
                    "dimensions", f"differ from those of the stored proposal {number}."
                )
            if item.outcome is not None:
                self._results[number] = self._result(number, item.values, item.outcome)
        # The study gets the results that the last proposal knew and no others: the next `ask` tells
        # the rest in order, as if there had been no break.
        for item in history:
            self._add(item.proposal, ended=item.proposal.number < len(history) - self._window)

    def _add(self, proposal: Proposal, ended: bool) -> None:
        """Put a proposal into the study, with its result when a later proposal knew it."""
        trial_attrs, study_attrs = sampler_state.from_json(proposal.state)
        for key, value in study_attrs.items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        result = self._results.get(proposal.number) if ended else None
        if result is not None and self._told == proposal.number:
            self._told += 1
        else:
            result = None
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING if result is None else self._state(result.outcome),
                values=None if result is None else result.values,
                params={name: proposal.params[name] for name in self._space},
                distributions=self._space,
                system_attrs=trial_attrs,
            )
        )
        self._asked += 1

    def _tell_until(self, last: int) -> None:
        for number in range(self._told, last + 1):
            result = self._results[number]
            self._study.tell(number, result.values, state=self._state(result.outcome))
            self._told = number + 1

    def _state(self, outcome: ProposalOutcome) -> TrialState:
        if outcome == "completed":
            return TrialState.COMPLETE
        if outcome == "stopped" and self._objectives == 1:
            return TrialState.PRUNED  # Optuna's word for a stopped trial
        return TrialState.FAIL  # with several objectives Optuna knows no stopped trials

    def _result(
        self, number: int, values: Sequence[float] | None, outcome: ProposalOutcome
    ) -> _Result:
        if outcome != "completed":
            return _Result(outcome, None)
        if values is None or len(values) != self._objectives:
            raise SearchOrderError(
                number, f"completed with values {values}; give {self._objectives} of them."
            )
        if not all(math.isfinite(value) for value in values):
            return _Result("failed", None)
        return _Result(outcome, [float(value) for value in values])

    def _sampler_for(self, number: int) -> SeededSampler:
        return SeededSampler(self._sampler, self._seed, number, self._space, self._first)

    def _trial(self, number: int) -> FrozenTrial:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        return self._storage.get_trial(trial_id)


def _check_settings(dimensions: Sequence[str], seed: int, objectives: int, window: int) -> None:
    if not dimensions or len(set(dimensions)) != len(dimensions):
        raise SearchSettingsError("dimensions", f"are {list(dimensions)}; give distinct names.")
    if seed < 0:
        raise SearchSettingsError("seed", f"is {seed}; it must be at least 0.")
    if objectives not in (1, 2):
        raise SearchSettingsError(
            "objectives", f"is {objectives}; it must be 1 (accuracy) or 2 (accuracy and cost)."
        )
    if window < 1:
        raise SearchSettingsError("window", f"is {window}; it must be at least 1.")
