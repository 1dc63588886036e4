"""Handing a trial's network on: from a sweep's records to a folder."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.specification.settings import TrackingSettings
from orchestrator.trial_choice import TrialChoiceError, choose_trial
from tracking.artifacts import ArtifactStore
from tracking.ledger.ledger import Ledger
from tracking.records import SweepRecord, TrialRecord
from workers.rebuild import export_trial
from workers.settings import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A network that was written to a folder."""

    trial: TrialRecord
    folder: Path


def export(
    ledger: Ledger, sweep: SweepRecord, tracking: TrackingSettings, trial: str, to: str | Path
) -> Exported:
    """Write the network of a trial to a folder.

    Args:
        ledger: Where the sweep is.
        sweep: The sweep.
        tracking: Where its artifacts are; every variable in it is set.
        trial: Its number, the first digits of its uid, or ``best:ARM:TARGET``.
        to: The folder: new, empty, or of the same trial.

    Raises:
        TrialChoiceError: ``trial`` leads to none, or to one that has no network.
        ExportError: The folder cannot be written, or holds something else.
    """
    chosen = choose_trial(ledger, sweep, trial)
    artifacts = ArtifactStore(tracking.artifacts_url)
    if problem := _why_not(chosen, artifacts):
        raise TrialChoiceError(sweep.name, trial, problem)
    spec = TrialSpec.model_validate(chosen.spec)
    folder = export_trial(spec, chosen.result or {}, artifacts, to)
    return Exported(trial=chosen, folder=folder)


def _why_not(trial: TrialRecord, artifacts: ArtifactStore) -> str | None:
    """Say why a trial has no network to hand on; None: it has."""
    if trial.result is None:
        return f"it is {trial.state} and has no network."
    if "weights" not in trial.result:
        return (
            f"it is of kind {trial.spec['kind']!r}, which keeps no weights. Name a trial that "
            "was trained, or best:ARM:TARGET."
        )
    path = (trial.result.get("artifacts") or {}).get("weights")
    if path is not None and not artifacts.exists(path):
        return (
            f"its weights are not in {artifacts.url} any more: `prunesweep gc` or "
            "tracking.keep_weights removed them, or the store is another one."
        )
    return None
