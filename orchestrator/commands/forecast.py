"""What a sweep would run and what that takes, from its specification and an existing ledger.

Nothing is written, and nothing is downloaded.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

import methods
from orchestrator.agenda.front_controls import settled
from orchestrator.agenda.survey import Survey, as_it_began
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.commands.known import known_elsewhere
from orchestrator.commands.lookup import NoLedgerError, open_existing
from orchestrator.errors import SpecChangeError, SpecError
from orchestrator.specification.changes import as_begun, forbidden_changes
from orchestrator.specification.knobs import without_knobs
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.stored import spec_of
from orchestrator.sweep import Sweep
from tracking.cancellations import Cancellations
from tracking.comparison.missing import still_to_come
from tracking.comparison.runs import Run
from tracking.durations import duration
from tracking.errors import UnknownSweepError
from tracking.ledger.ledger import Ledger
from tracking.matrix import Cell
from tracking.plain_text import visible
from tracking.records import SweepRecord, TrialRecord, TrialState
from tracking.report.grid import Folded
from tracking.results import Result, given


class Pace(NamedTuple):
    """How long trials of the same network and data took before."""

    seconds_per_epoch: float  #: Median, the whole trial's time shared out over its epochs.
    seconds_without_epochs: float  #: Median of latency measurements; 0 where there were none.
    trials: int
    devices: tuple[str, ...]


def forecast(sweep: Sweep, *, extend: bool = False) -> dict[str, Any]:
    """Return the trial matrix, what the ledger already has of it, and an estimate of time.

    Args:
        sweep: What would be run.
        extend: It may ask for more than the sweep of its name does now.

    Raises:
        SpecError: Something in the specification does not fit.
        SpecChangeError: The name belongs to a sweep that would give other results.
    """
    surveyed, spec = _surveyed(sweep), sweep.spec
    images = None if surveyed is None else surveyed.data.train_images
    with _ledger_of(spec) as ledger:
        record = None if ledger is None else _record(spec, ledger, extend=extend)
        if record is not None and surveyed is not None:
            surveyed = as_it_began(surveyed, spec, spec_of(record))
        spec = spec if record is None else as_begun(spec, spec_of(record))
        spec = spec if surveyed is None else settled(spec, surveyed)
        runs = [] if ledger is None or record is None else _runs(ledger, record)
        cancelled = record.cancellations if record else Cancellations()
        done = [] if ledger is None else _completed(ledger)
        known: Counter[Cell] = Counter()
        if surveyed is not None:
            by_uid = {trial.uid: trial for trial in done}
            known = known_elsewhere(spec, surveyed, runs, by_uid, cancelled.arms)
        lines = _lines(spec, runs, cancelled, known)
        pace = _pace(spec, done)
        url = None if ledger is None else ledger.url
    epochs = sum(line["to_run"] * line["epochs"] for line in lines)
    return {
        "sweep": spec.name,
        "ledger": url,
        "lines": lines,
        "trials": sum(line["trials"] for line in lines),
        "to_run": sum(line["to_run"] for line in lines),
        "epochs_to_run": epochs,
        "data": None if surveyed is None else surveyed.data.told(),
        "prunable": None if surveyed is None else _prunable(surveyed),
        "train_images": images,
        "images_to_run": None if images is None else epochs * images,
        "images_made": {} if surveyed is None else _images_made(spec, surveyed),
        "workers": spec.resources.workers,
        "estimate": pace and _estimate(lines, pace, spec.resources.workers),
    }


def view(facts: Mapping[str, Any]) -> RenderableType:
    """Show a forecast to a person."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("Kind", "Arm", "Target"):
        table.add_column(column, overflow="fold")
    for column in ("Trials", "Epochs each", "Completed", "Pending", "Failed", "Known", "To run"):
        table.add_column(column, justify="right", overflow="fold")
    keys = ("trials", "epochs", "completed", "pending", "failed", "known", "to_run")
    for line in facts["lines"]:
        words = (Folded(line[key] or "-") for key in ("role", "arm", "target"))
        table.add_row(*words, *(str(line[key]) for key in keys))
    work = f"{facts['to_run']} of {facts['trials']} trials to run"
    work += f", {facts['epochs_to_run']} epochs in all"
    if facts["images_to_run"] is None:
        work += ". The data set is not here yet; it is downloaded when the sweep runs."
    else:
        work += f" x {facts['train_images']:,} images = {facts['images_to_run']:,} images at most."
    parts: list[RenderableType] = [
        Text(f"{facts['sweep']}: nothing was written", style="bold"),
        table,
        Text(work),
    ]
    if facts["data"] is not None:
        parts.insert(2, Text(f"Data: {visible(facts['data'])}."))
    if facts["prunable"] is not None:
        parts.insert(
            3, Text(f"{facts['prunable']['told']}; `prunesweep inspect SPEC` shows other policies.")
        )
    parts += [
        Text(f"{arm}: {made:,} more image passes before it can choose, once for every seed.")
        for arm, made in facts["images_made"].items()
    ]
    return Group(*parts, Text(_time(facts)))


def _time(facts: Mapping[str, Any]) -> str:
    estimate = facts["estimate"]
    if not facts["to_run"]:
        return "Time: none; what the sweep asks for is in the ledger."
    if estimate is None:
        return (
            "Time: unknown, because no trial of this network and data has completed in this "
            "ledger. `prunesweep doctor SPEC` measures it."
        )
    return (
        f"Time: about {duration(estimate['wall_seconds'])} on {facts['workers']} worker(s), as "
        f"{estimate['from_trials']} trials of this network and data took "
        f"{estimate['seconds_per_epoch']:.3g} s per epoch (median) on "
        f"{', '.join(estimate['devices'])}."
    )


def _prunable(surveyed: Survey) -> dict[str, Any]:
    filters = surveyed.filters
    return {
        "policy": filters.layout.policy.kind,
        "macs_share": filters.reachable[1],
        "told": filters.told(),
    }


def _images_made(spec: SweepSpec, surveyed: Survey) -> dict[str, int]:
    """Return the passes of images that methods make, by arm, at defaults for what is searched."""
    made = {
        arm.name: methods.create(arm.method, without_knobs(arm.settings)).images_made(
            surveyed.of(arm.unit).layout
        )
        for arm in spec.arms
    }
    return {arm: images for arm, images in made.items() if images}


def _surveyed(sweep: Sweep) -> Survey | None:
    """Check everything a sweep stands on; None while the data set is still to be downloaded."""
    spec = sweep.spec
    if not spec.data.download:
        return sweep.survey()
    there = spec.data.model_copy(update={"download": False})
    try:
        return Sweep(spec.model_copy(update={"data": there})).survey()
    except SpecError as error:
        if {problem.place for problem in error.problems} <= {"data", "data.path"}:
            return None
        raise


@contextmanager
def _ledger_of(spec: SweepSpec) -> Iterator[Ledger | None]:
    try:
        ledger = open_existing(spec.tracking.ledger_url)
    except NoLedgerError:
        yield None
        return
    with ledger:
        yield ledger


def _record(spec: SweepSpec, ledger: Ledger, *, extend: bool) -> SweepRecord | None:
    """Find the sweep in the ledger, and see that it may go on; None: it has not begun."""
    try:
        record = ledger.sweep(spec.name)
    except UnknownSweepError:
        return None
    if changes := forbidden_changes(spec_of(record), spec, extend=extend):
        raise SpecChangeError(spec.name, changes)
    return record


def _runs(ledger: Ledger, record: SweepRecord) -> list[Run]:
    trials = {trial.id: trial for trial in ledger.trials(record.id)}
    return [Run(entry=e, trial=trials[e.trial_id]) for e in ledger.entries(record.id)]


def _lines(
    spec: SweepSpec, runs: list[Run], cancelled: Cancellations, known: Mapping[Cell, int]
) -> list[dict[str, Any]]:
    """Hold each cell of the matrix against what the ledger has of it."""
    matrix = trial_matrix(spec)
    held: dict[Cell, Counter[TrialState]] = {cell: Counter() for cell in matrix.cells}
    for run in runs:
        cell = matrix.cell_of(run.place)
        if cell is not None:
            held[cell][run.trial.state] += 1
    open_ = still_to_come(spec.model_dump(mode="json"), matrix, runs, cancelled)
    left = {state.cell: state.left for state in open_}
    return [_line(cell, held[cell], left.get(cell, 0), known.get(cell, 0)) for cell in matrix.cells]


def _line(cell: Cell, held: Counter[TrialState], left: int, known: int) -> dict[str, Any]:
    pending = held[TrialState.PENDING] + held[TrialState.RUNNING]
    return {
        "role": cell.role,
        "arm": cell.arm,
        "target": cell.target,
        "trials": cell.trials,
        "epochs": cell.epochs,
        "completed": held[TrialState.COMPLETED] + held[TrialState.STOPPED],
        "pending": pending,
        "failed": held[TrialState.FAILED] + held[TrialState.CANCELLED],
        "known": known,
        "to_run": max(0, left - known),
    }


def _completed(ledger: Ledger) -> list[TrialRecord]:
    """Return what ran to its end in any sweep of the ledger, once."""
    return [
        trial
        for sweep in ledger.sweeps()
        for trial in ledger.trials(sweep.id, TrialState.COMPLETED)
        if trial.reused_from is None
    ]


def _pace(spec: SweepSpec, completed: Iterable[TrialRecord]) -> Pace | None:
    """Look at what ran in any sweep of the ledger; None when none of it is alike."""
    network = _network(spec.model_dump(mode="json"))
    done = [
        trial
        for trial in completed
        if trial.spec["kind"] != "predictor" and _network(trial.spec) == network
    ]
    timed = [(_seconds(trial), trial) for trial in done]
    trained = [seconds / epochs for seconds, trial in timed if (epochs := _epochs(trial))]
    if not trained:
        return None
    others = [seconds for seconds, trial in timed if not _epochs(trial)]
    places = [Result.read(trial.result).environment for trial in done]
    devices = {str(place and place.device_name) for place in places}
    return Pace(median(trained), median(others or [0.0]), len(trained), tuple(sorted(devices)))


def _network(settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    data = dict(settings.get("data") or {})
    for place in ("path", "download"):
        data.pop(place, None)
    return settings.get("model"), data


def _seconds(trial: TrialRecord) -> float:
    return given(Result.read(trial.result).seconds_total)


def _epochs(trial: TrialRecord) -> int:
    is_timed = trial.spec["kind"] in {"latency", "predictor"}
    return 0 if is_timed else int(trial.spec["recipe"]["epochs"])


def _estimate(lines: list[dict[str, Any]], pace: Pace, workers: int) -> dict[str, Any]:
    """Add up the trials to run; training runs side by side, latency is measured alone."""
    trained = sum(line["to_run"] * line["epochs"] for line in lines) * pace.seconds_per_epoch
    alone = sum(line["to_run"] for line in lines if not line["epochs"])
    alone_seconds = alone * pace.seconds_without_epochs
    return {
        "worker_seconds": trained + alone_seconds,
        "wall_seconds": trained / workers + alone_seconds,
        "seconds_per_epoch": pace.seconds_per_epoch,
        "from_trials": pace.trials,
        "devices": list(pace.devices),
    }
