"""Searches written as Optuna studies, for optuna-dashboard and `optuna.visualization` to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.errors import StudyStorageError
from search_spaces.search import DIRECTIONS, ProposalOutcome

SOURCE: Final = "prunesweep"  #: User attribute of a study that says which search it shows.
NUMBER: Final = "proposal"  #: User attribute of a trial: its number within the search.

_STATES: Final[Mapping[ProposalOutcome, TrialState]] = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,  # Optuna's word for a stopped trial
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchedProposal:
    """One proposal that has ended, with all a person may want to see of it."""

    number: int
    params: Mapping[str, float]  #: Number in [0, 1] by dimension.
    outcome: ProposalOutcome
    values: Sequence[float] | None = None  #: Accuracy, and MACs on a front; None unless completed.
    by_epoch: Mapping[int, float] = field(default_factory=dict)  #: Validation accuracy, percent.
    attributes: Mapping[str, Any] = field(default_factory=dict)  #: JSON-able, by name.
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchedStudy:
    """One search: of one arm at one target."""

    name: str
    source: str  #: What it shows; a study of this name that shows something else is left alone.
    objectives: int  #: 1: accuracy; 2: accuracy and MACs.
    proposals: Sequence[SearchedProposal]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def write_study(study: SearchedStudy, url: str) -> int:
    """Write a search into an Optuna storage; proposals that are there already are left.

    Args:
        study: What to write.
        url: Any storage of Optuna's that has an address, as ``sqlite:///studies.db``.

    Returns:
        Proposals added.

    Raises:
        StudyStorageError: The storage cannot be used, or its study of this name is another's.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        made = optuna.create_study(
            storage=url,
            study_name=study.name,
            directions=DIRECTIONS[: study.objectives],
            load_if_exists=True,
        )
        return _fill(made, study)
    except StudyStorageError:
        raise
    except Exception as error:  # whatever a driver of the user's database raises
        lines = str(error).strip().splitlines()
        raise StudyStorageError(study.name, lines[0] if lines else type(error).__name__) from error


def _fill(made: Study, study: SearchedStudy) -> int:
    owner = made.user_attrs.get(SOURCE)
    if owner != study.source and (owner is not None or made.get_trials(deepcopy=False)):
        raise StudyStorageError(study.name, "it holds a study of this name that shows another")
    for name, value in {SOURCE: study.source, **study.attributes}.items():
        made.set_user_attr(name, value)
    there = {trial.user_attrs.get(NUMBER) for trial in made.get_trials(deepcopy=False)}
    new = [proposal for proposal in study.proposals if proposal.number not in there]
    made.add_trials([_trial(proposal, study.objectives) for proposal in new])
    return len(new)


def _trial(proposal: SearchedProposal, objectives: int) -> FrozenTrial:
    space: dict[str, BaseDistribution] = dict.fromkeys(proposal.params, FloatDistribution(0.0, 1.0))
    state = _STATES[proposal.outcome]
    if state is TrialState.PRUNED and objectives > 1:
        state = TrialState.FAIL  # with several objectives Optuna knows no stopped trials
    trial = create_trial(
        state=state,
        values=list(proposal.values) if proposal.values and state is TrialState.COMPLETE else None,
        params=dict(proposal.params),
        distributions=space,
        user_attrs={NUMBER: proposal.number, **proposal.attributes},
        intermediate_values=dict(proposal.by_epoch),
    )
    if proposal.started_at is not None:
        trial.datetime_start = proposal.started_at.replace(tzinfo=None)
    if proposal.ended_at is not None:
        trial.datetime_complete = proposal.ended_at.replace(tzinfo=None)
    return trial
