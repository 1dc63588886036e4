"""Handing a trial's network on: from a sweep's records to a folder."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.specification.settings import TrackingSettings
from orchestrator.trial_choice import TrialChoiceError, choose_trial
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Row
from tracking.ledger.ledger import Ledger
from tracking.places import searched_label
from tracking.records import SweepRecord, TrialRecord
from tracking.report.brief import grid_markdown, verdict_grid
from tracking.report.verdicts import story_of
from tracking.report.wording import covered, interval, milliseconds, spread
from tracking.results import Result
from workers.data.catalog import open_source
from workers.errors import DataError
from workers.exchange import Form, require_packages
from workers.rebuild import export_trial
from workers.settings import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A network that was written to a folder."""

    trial: TrialRecord
    folder: Path


def export(
    ledger: Ledger,
    sweep: SweepRecord,
    tracking: TrackingSettings,
    trial: str,
    to: str | Path,
    forms: Collection[Form] = (),
) -> Exported:
    """Write the network of a trial to a folder.

    Args:
        ledger: Where the sweep is.
        sweep: The sweep.
        tracking: Where its artifacts are; every variable in it is set.
        trial: Its number, the first digits of its uid, or ``best:ARM:TARGET``.
        to: The folder: new, empty, or of the same trial.
        forms: Files for other programs to write, too.

    Raises:
        PackagesMissingError: What a form needs is not installed.
        ExchangeError: The network cannot be written in a form.
        TrialChoiceError: ``trial`` leads to none, or to one that has no network.
        ExportError: The folder cannot be written, or holds something else.
    """
    require_packages(forms)
    chosen = choose_trial(ledger, sweep, trial)
    artifacts = ArtifactStore(tracking.artifacts_url)
    if problem := _why_not(chosen, artifacts):
        raise TrialChoiceError(sweep.name, trial, problem)
    spec = TrialSpec.model_validate(chosen.spec)
    folder = export_trial(
        spec,
        chosen.result or {},
        artifacts,
        to,
        forms=forms,
        classes=_classes(spec, chosen),
        standing=standing(ledger, sweep, chosen),
    )
    return Exported(trial=chosen, folder=folder)


def forms_of(*, onnx: bool, torch_export: bool) -> tuple[Form, ...]:
    """Return the files that were asked for."""
    wanted: dict[Form, bool] = {"onnx": onnx, "torch_export": torch_export}
    return tuple(form for form, is_wanted in wanted.items() if is_wanted)


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


def _classes(spec: TrialSpec, trial: TrialRecord) -> tuple[str, ...]:
    """Return the names of the classes; none where the data set is not on this machine."""
    if spec.data.path is not None and "://" in spec.data.path:
        return ()
    with suppress(DataError, OSError):
        classes = open_source(spec.data.model_copy(update={"download": False})).classes
        if len(classes) == Result.read(trial.result).num_classes:
            return classes
    return ()


def standing(ledger: Ledger, sweep: SweepRecord, trial: TrialRecord) -> str:
    """Say which arm the network is of, how sure its accuracy is, and what it was compared with."""
    places = [entry.place for entry in ledger.entries(sweep.id) if entry.trial_id == trial.id]
    place = max(places, key=lambda place: place.role.is_reported, default=None)
    if place is None or not place.arm:
        return ""
    of = f" at {place.target}" if place.target else ""
    parts = [f"From the sweep `{sweep.name}`: {place.role} of **{place.arm}**{of}."]
    label = searched_label(place.target)
    for table in compare(ledger, sweep).tables:
        rows = [row for row in table.rows if row.arm == place.arm and row.accuracy]
        if table.target == label and rows:
            parts += [_told(rows[0]), story_of(table).headline if not table.is_front else ""]
            parts += ["Compared with:", grid_markdown(verdict_grid(table))]
            break
    return "\n\n".join(part for part in parts if part)


def _told(row: Row) -> str:
    """Say what is known of an arm: its interval, and what was measured."""
    assert row.accuracy is not None
    sentences = [
        f"Test accuracy of {row.name}, {spread(row.accuracy)} %, 95 % interval "
        f"{interval(row.accuracy)} ({covered(row.accuracy)}); verdict: {row.verdict}."
    ]
    sentences += [
        f"Latency of a batch of {one.batch_size} on {one.device} ({one.dtype}, {one.runtime}): "
        f"{milliseconds(one.median_ms)}, dense {milliseconds(one.base_median_ms)}"
        + (", while something else ran on the device." if one.shared_device else ".")
        for one in row.latency
    ]
    return " ".join(sentences)
