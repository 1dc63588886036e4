"""Which stored weights nobody needs any more, and removing them.

Tables are made of the ledger alone. Weights are there to be exported: those of the dense network
and of all that tables report, re-runs and controls. What a search or its finalists have left is
needed until the re-runs of their winner are in. Files are named by their content and may belong to
trials of several sweeps: one of them that is needed keeps the file.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tracking.artifacts import ArtifactStore
from tracking.ledger.ledger import Ledger
from tracking.places import Place, Role, searched_label
from tracking.records import SweepRecord, SweepState, TrialRecord, TrialState


@dataclass(frozen=True, kw_only=True, slots=True)
class Unneeded:
    """A file of weights that nobody needs."""

    path: str  #: In the artifact store.
    sweep: str
    trials: tuple[int, ...]  #: That brought it.
    size: int  #: Bytes.


def unneeded(
    ledger: Ledger, artifacts: ArtifactStore, sweeps: Collection[str]
) -> tuple[Unneeded, ...]:
    """Return the weights of some sweeps that no sweep of the ledger needs; nothing is removed."""
    kept: set[str] = set()
    loose: dict[str, tuple[str, list[int]]] = {}
    for record in ledger.sweeps():
        trials = ledger.trials(record.id)
        needed = _needed(ledger, record, trials)
        for trial in trials:
            kept.add(f"weights/{trial.spec.get('weights')}.safetensors")  # what it starts from
            path = ((trial.result or {}).get("artifacts") or {}).get("weights")
            if path is not None and trial.id in needed:
                kept.add(path)
            elif path is not None and record.name in sweeps:
                loose.setdefault(path, (record.name, []))[1].append(trial.id)
    return tuple(
        Unneeded(path=path, sweep=name, trials=tuple(numbers), size=size)
        for path, (name, numbers) in sorted(loose.items())
        if path not in kept and (size := artifacts.size(path)) is not None
    )


def remove(artifacts: ArtifactStore, files: Iterable[Unneeded]) -> None:
    """Remove weights from the store; one that is gone already is no trouble."""
    for file in files:
        artifacts.remove(file.path)


def _needed(ledger: Ledger, record: SweepRecord, trials: Collection[TrialRecord]) -> set[int]:
    """Return the trials of a sweep whose weights somebody may want."""
    by_id = {trial.id: trial for trial in trials}
    entries = [(entry.place, by_id[entry.trial_id]) for entry in ledger.entries(record.id)]
    settled = _settled(entries)
    is_over = record.state is SweepState.COMPLETED
    tracking = record.spec.get("tracking") or {}
    uploads = bool(tracking.get("publish_weights")) and tracking.get("mlflow") != "off"
    needed = {t.id for t in trials if uploads and t.rev > t.published_rev}  # yet to be sent
    for place, trial in entries:
        is_done = (place.arm, searched_label(place.target)) in settled
        if place.role is Role.TUNE:
            is_done = is_over
        if not place.role.is_chosen_among or not is_done:
            needed.add(trial.id)
    return needed


def _settled(entries: Collection[tuple[Place, TrialRecord]]) -> set[tuple[str, str]]:
    """Return the arms and targets all of whose re-runs have ended, one at least with a result."""
    states: dict[tuple[str, str], set[TrialState]] = {}
    for place, trial in entries:
        if place.role is Role.CONFIRM:
            key = (place.arm, searched_label(place.target))
            states.setdefault(key, set()).add(trial.state)
    return {
        key
        for key, found in states.items()
        if TrialState.COMPLETED in found and all(state.is_final for state in found)
    }
