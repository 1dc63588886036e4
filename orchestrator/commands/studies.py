"""The searches of a sweep as Optuna studies, in a storage of the user's."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.commands.lookup import Found
from search_spaces.optuna_storage import SearchedProposal, SearchedStudy, write_study
from search_spaces.search import ProposalOutcome
from tracking.errors import redact
from tracking.ledger.ledger import Ledger
from tracking.places import Role, is_front
from tracking.records import EntryRecord, TrialRecord, TrialState
from tracking.results import Result

_OUTCOMES: Mapping[TrialState, ProposalOutcome] = {
    TrialState.COMPLETED: "completed",
    TrialState.STOPPED: "stopped",
    TrialState.FAILED: "failed",
    TrialState.CANCELLED: "failed",
}


def write_studies(found: Found, url: str) -> dict[str, Any]:
    """Write every search of a sweep into an Optuna storage.

    Args:
        found: The sweep.
        url: Address of the storage, as Optuna takes it.

    Raises:
        StudyStorageError: The storage cannot be used.
    """
    written = [
        {"study": study.name, "proposals": len(study.proposals), "added": write_study(study, url)}
        for study in _studies(found)
    ]
    return {"sweep": found.record.name, "storage": redact(url), "studies": written}


def view(facts: Mapping[str, Any]) -> RenderableType:
    """Show what was written."""
    if not facts["studies"]:
        return Text(f"{facts['sweep']} has searched nothing; no study was written.")
    lines = [
        f"{study['study']}: {study['added']} of {study['proposals']} proposals added"
        for study in facts["studies"]
    ]
    return Text("\n".join([*lines, f"In {facts['storage']}"]))


def _studies(found: Found) -> Iterator[SearchedStudy]:
    record, ledger = found.record, found.ledger
    trials = {trial.id: trial for trial in ledger.trials(record.id)}
    searches: dict[tuple[str, str], list[EntryRecord]] = {}
    for entry in ledger.entries(record.id):
        if entry.place.role is Role.SEARCH:
            searches.setdefault((entry.place.arm, entry.place.target), []).append(entry)
    for (arm, target), entries in searches.items():
        ended = [(e, trials[e.trial_id]) for e in entries if trials[e.trial_id].state.is_final]
        objectives = 2 if is_front(target) else 1
        yield SearchedStudy(
            name=f"{record.name}/{arm}/{target}",
            source=f"{record.name}/{arm}/{target}/{record.created_at.isoformat()}",
            objectives=objectives,
            proposals=[_proposal(ledger, e, t, objectives) for e, t in ended],
            attributes={"sweep": record.name, "arm": arm, "target": target},
        )


def _proposal(
    ledger: Ledger, entry: EntryRecord, trial: TrialRecord, objectives: int
) -> SearchedProposal:
    result = Result.read(trial.result if trial.state is TrialState.COMPLETED else None)
    values = (result.val_accuracy, result.macs)[:objectives]
    known = [float(value) for value in values if value is not None]
    is_whole = trial.state is TrialState.COMPLETED and len(known) == objectives
    points = ledger.metrics(trial.id, trial.attempt) if trial.attempt else []
    return SearchedProposal(
        number=entry.place.index,
        params=(entry.proposal or {}).get("params", {}),
        outcome=_OUTCOMES[trial.state] if is_whole or not result.val_accuracy else "failed",
        values=known if is_whole else None,
        by_epoch={point.step: point.value for point in points if point.key == "val_accuracy"},
        attributes={
            "trial": trial.id,
            "uid": trial.uid,
            "kind": trial.spec["kind"],
            "ratios": trial.spec.get("ratios") or {},
            "macs_reduction": result.macs_reduction,
            "params_reduction": result.params_reduction,
            "cause": trial.cause,
        },
        started_at=trial.started_at,
        ended_at=trial.ended_at,
    )
