"""Where sweeps stand, by what is in the ledger: counts, the best so far, what runs, what failed."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.commands.lookup import Found, RecordsAt, command, find_sweep
from orchestrator.output import output_problem
from tracking.comparison.given_up import failed_arms
from tracking.comparison.runs import Run
from tracking.durations import duration
from tracking.ledger.ledger import Ledger
from tracking.ledger.outbox import Outbox
from tracking.matrix import matrix_of
from tracking.places import Place
from tracking.records import EntryRecord, SweepRecord, SweepState, TrialRecord, TrialState
from tracking.report.grid import Folded
from tracking.results import Result
from tracking.winners import best_trial

SHOWN_FAILURES = 20
WATCH_S = 2.0  #: Between two looks of `watch`.
#: Begin the cause of a failure that comes of where a trial ran: it may be gone the next time.
_PASSING = frozenset(
    {"lost", "OutOfMemoryError", "MemoryError", "OSError", "TimeoutError", "ConnectionError"}
    | {"PermissionError", "FileNotFoundError", "ArtifactError", "AcceleratorError"}
)
#: Begin the cause of a failure that the same trial meets each time.
_LASTING = frozenset(
    {"DivergedError", "MethodError", "PlanError", "PruningRatioError", "SettingsError"}
    | {"LayoutError", "BudgetError", "TypeError", "ValueError", "KeyError", "IndexError"}
    | {"AttributeError", "NameError", "ZeroDivisionError", "NotImplementedError"}
)


def sweeps_facts(ledger: Ledger) -> list[dict[str, Any]]:
    """List the sweeps of a ledger, oldest first."""
    return [
        {**_sweep(ledger, record), "trials": _by_state(ledger, record)}
        for record in ledger.sweeps()
    ]


def list_facts(ledger: Ledger) -> list[dict[str, Any]]:
    """List the sweeps of a ledger, oldest first, with how far each has come."""
    found = []
    for record in ledger.sweeps():
        places = ledger.places(record.id)
        done = sum(count for state, count in places.items() if state.is_final)
        begun = sum(places.values())
        is_over = record.state is SweepState.COMPLETED
        asked = begun if is_over else max(begun, matrix_of(record.spec).trials)
        age = (datetime.now(UTC) - record.created_at).total_seconds()
        counts = {"done": done, "wanted": asked, "age_seconds": age}
        found.append({**_sweep(ledger, record), **counts})
    return found


def list_view(facts: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show the sweeps of a ledger, one a line; names are folded, never cut."""
    if not facts:
        return Text("There is no sweep in this ledger yet.")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("Sweep", "State", "Done", "Age", "Driver"):
        table.add_column(column, overflow="fold")
    for sweep in facts:
        cells = (
            sweep["name"],
            _state({**sweep, "owner": "its driver"}),
            f"{sweep['done']} of {sweep['wanted']}",
            duration(sweep["age_seconds"]),
            {True: f"{sweep['owner']}", False: "gone", None: "none"}[sweep["owner_alive"]],
        )
        table.add_row(*map(Folded, cells))
    return table


def sweeps_view(facts: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show the sweeps of a ledger."""
    if not facts:
        return Text("There is no sweep in this ledger yet.")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("Sweep", "State", "Created", "Trials"):
        table.add_column(column, overflow="fold")
    for sweep in facts:
        cells = (sweep["name"], _state(sweep), _when(sweep["created_at"]), _counts(sweep["trials"]))
        table.add_row(*map(Folded, cells))
    return table


def status_facts(found: Found) -> dict[str, Any]:
    """Say where one sweep stands."""
    ledger, record = found.ledger, found.record
    trials = {trial.id: trial for trial in ledger.trials(record.id)}
    entries = ledger.entries(record.id)
    places: dict[int, EntryRecord] = {}
    for entry in entries:
        places.setdefault(entry.trial_id, entry)
    named = [(places[trial.id], trial) for trial in trials.values() if trial.id in places]
    runs = [Run(entry=entry, trial=trials[entry.trial_id]) for entry in entries]
    counts = _by_state(ledger, record)
    behind = sum(trial.rev > trial.published_rev for trial in trials.values())
    behind += record.rev > record.published_rev
    mirrored = found.tracking.mlflow != "off"
    return {
        **_sweep(ledger, record),
        "trials": counts,
        "best": _best([(entry, trials[entry.trial_id]) for entry in entries]),
        "running": [_running(ledger, e, t) for e, t in named if t.state is TrialState.RUNNING],
        "failures": [_failure(e, t) for e, t in named if t.state is TrialState.FAILED],
        "mlflow_lacks": behind if mirrored else None,
        "next": _next(found, runs, behind=mirrored and behind > 0),
    }


def status_view(facts: Mapping[str, Any]) -> RenderableType:
    """Show where one sweep stands."""
    head = f"{facts['name']}: {_state(facts)}, {_counts(facts['trials'])}"
    parts: list[RenderableType] = [Text(head, style="bold")]
    if facts["best"]:
        parts.append(_best_table(facts["best"]))
    parts += [Text(f"running  {_running_line(trial)}") for trial in facts["running"]]
    failures = facts["failures"]
    for failure in failures[:SHOWN_FAILURES]:
        parts.append(Text.assemble(("failed   ", "red"), f"{_name(failure)}: {failure['cause']}"))
    if len(failures) > SHOWN_FAILURES:
        parts.append(Text(f"         and {len(failures) - SHOWN_FAILURES} more; --json lists all"))
    lacks = facts["mlflow_lacks"]
    if lacks is not None:
        parts.append(Text(f"MLflow   {f'lacks {lacks} record(s)' if lacks else 'is up to date'}"))
    if facts["next"]:
        parts.append(Text(f"next     {facts['next']}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def watch(name: str, at: RecordsAt, console: Console) -> None:
    """Show where one sweep stands again and again, until no driver runs it or nobody reads.

    Each state takes the place of the one before on a terminal, and follows it elsewhere.
    """
    with (
        Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live
    ):
        while True:
            with find_sweep(name, at) as found:
                facts = status_facts(found)
            if live is None:
                console.print(status_view(facts), end="\n\n")
            else:
                live.update(status_view(facts), refresh=True)
            if not facts["owner_alive"] or output_problem():
                return
            time.sleep(WATCH_S)


def _sweep(ledger: Ledger, record: SweepRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "state": record.standing,
        "cancelled": record.cancellations.to_json() if record.cancelled else None,
        "owner": record.owner,
        "owner_alive": _owner_alive(ledger, record),
        "spec_hash": record.spec_hash,
        "created_at": record.created_at.isoformat(timespec="seconds"),
    }


def _owner_alive(ledger: Ledger, record: SweepRecord) -> bool | None:
    """Say whether the driver of a running sweep lives, by its lease; None: it does not run."""
    if record.state is not SweepState.RUNNING:
        return None
    lease = ledger.lease(record.id)
    return lease is not None and not lease.is_over


def _by_state(ledger: Ledger, record: SweepRecord) -> dict[str, int]:
    return {str(state): count for state, count in ledger.counts(record.id).items()}


def _best(runs: Sequence[tuple[EntryRecord, TrialRecord]]) -> list[dict[str, Any]]:
    """Return the best trial of each arm at each target, as ``export best:ARM:TARGET`` takes it."""
    found: dict[tuple[str, str], list[tuple[Place, TrialRecord]]] = {}
    for entry, trial in runs:
        if entry.place.role.speaks_of_arm and trial.state is TrialState.COMPLETED:
            key = (entry.place.target, entry.place.arm)
            found.setdefault(key, []).append((entry.place, trial))
    rows = []
    for (target, arm), done in sorted(found.items()):
        if (best := best_trial(done)) is not None:
            place, trial = best
            result = Result.read(trial.result)
            rows.append(
                {
                    "completed": len(done),
                    "val_accuracy": result.val_accuracy,
                    "target": target,
                    "arm": arm,
                    "role": place.role,
                    "trial": trial.id,
                    "uid": trial.uid,
                    "macs_reduction": result.macs_reduction,
                    "params_reduction": result.params_reduction,
                }
            )
    return rows


def _best_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("Target", "Arm"):
        table.add_column(column, overflow="fold")
    for column in ("Done", "Best val %", "MACs less", "Params less", "Trial", "Of"):
        table.add_column(column, justify="right", overflow="fold")
    for row in rows:
        table.add_row(
            Folded(row["target"]),
            Folded(row["arm"]),
            str(row["completed"]),
            f"{row['val_accuracy']:.2f}",
            f"{row['macs_reduction']:.1%}",
            f"{row['params_reduction']:.1%}",
            str(row["trial"]),
            "re-runs" if row["role"].is_reported else "search",
        )
    return table


def _place(entry: EntryRecord, trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial": trial.id,
        "uid": trial.uid,
        **asdict(entry.place),
        "attempt": trial.attempt,
    }


def _name(trial: Mapping[str, Any]) -> str:
    words = (trial["role"], trial["arm"], trial["target"], f"#{trial['index']}")
    return f"trial {trial['trial']}, {' '.join(word for word in words if word)}"


def _running(ledger: Ledger, entry: EntryRecord, trial: TrialRecord) -> dict[str, Any]:
    """Say where a trial runs, and its last report."""
    attempt = Outbox(ledger).attempts_of(trial.id)[-1]
    points = ledger.metrics(trial.id, trial.attempt)
    step = max((point.step for point in points), default=None)
    return {
        **_place(entry, trial),
        "node": attempt.node,
        "pid": attempt.pid,
        "started_at": attempt.started_at.isoformat(timespec="seconds"),
        "step": step,
        "values": {point.key: point.value for point in points if point.step == step},
    }


def _running_line(trial: Mapping[str, Any]) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(trial["started_at"])).total_seconds()
    line = f"{_name(trial)} on {trial['node']} for {duration(seconds)}"
    if trial["step"] is None:
        return line
    values = ", ".join(f"{key} {value:.4g}" for key, value in trial["values"].items())
    return f"{line}, step {trial['step']}: {values}"


def _failure(entry: EntryRecord, trial: TrialRecord) -> dict[str, Any]:
    return {**_place(entry, trial), "cause": trial.cause, "error": trial.error}


def _next(found: Found, runs: Sequence[Run], *, behind: bool) -> str | None:
    """Return the command that brings the sweep forward; None while it runs, or when none can."""
    record = found.record
    if _owner_alive(found.ledger, record):
        return None
    verb = "publish" if behind else None
    if _may_pass(runs):
        verb = "retry"
    elif record.state not in {SweepState.COMPLETED, SweepState.FAILED}:
        verb = "resume"
    if record.cancellations.whole:
        return f"{command('resume', record.name, found.tracking)} --restore"
    return verb and command(verb, record.name, found.tracking)


def _may_pass(runs: Sequence[Run]) -> bool:
    """Say whether some failure may be gone the next time, as it was not of what was run."""
    hopeless = failed_arms(runs)
    failed = [run for run in runs if run.trial.state is TrialState.FAILED]
    kinds = {(run.place.arm, (run.trial.cause or "").partition(":")[0]) for run in failed}
    return any(kind in _PASSING or not (kind in _LASTING or arm in hopeless) for arm, kind in kinds)


def _state(facts: Mapping[str, Any]) -> str:
    if facts["owner_alive"] is False and facts["state"] == SweepState.RUNNING:
        return f"interrupted ({facts['owner']} is gone)"
    return str(facts["state"])


def _counts(trials: Mapping[str, int]) -> str:
    parts = [f"{count} {state}" for state, count in trials.items() if count]
    return ", ".join(parts) or "no trials yet"


def _when(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
