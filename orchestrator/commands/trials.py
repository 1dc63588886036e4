"""One trial in full: what was asked, what became of each attempt, and what it logged."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.pretty import Pretty
from rich.text import Text

from orchestrator.commands.lookup import Found, find_trial, require_variables
from tracking.artifacts import ArtifactNotFoundError, ArtifactStore
from tracking.durations import duration
from tracking.ledger.outbox import Outbox
from tracking.records import AttemptRecord, TrialRecord

_LISTED = ("plan", "environment", "kept")  # long, and not what one looks for here
LAST_LINES = 12  #: Of a curve, on a terminal.


def show_facts(found: Found, text: str) -> dict[str, Any]:
    """Say all that the ledger and the store have of one trial.

    Raises:
        TrialChoiceError: ``text`` does not lead to one.
    """
    trial = find_trial(found, text)
    outbox = Outbox(found.ledger)
    result = dict(trial.result or {})
    return {
        "sweep": found.record.name,
        "trial": trial.id,
        "uid": trial.uid,
        "state": str(trial.state),
        "cause": trial.cause,
        "error": trial.error,
        "reused_from": trial.reused_from,
        "places": [asdict(entry.place) for entry in outbox.entries_of(trial.id)],
        "spec": trial.spec,
        "attempts": [_attempt(attempt) for attempt in outbox.attempts_of(trial.id)],
        "curve": _curve(found, trial),
        "result": result or None,
        "files": _files(found, trial),
    }


def show_view(facts: Mapping[str, Any]) -> RenderableType:
    """Show one trial: where it is wanted, what ran, how it went, what is left of it."""
    parts: list[RenderableType] = [
        Text(f"Trial {facts['trial']} of {facts['sweep']}: {facts['state']}", style="bold"),
        Text(f"uid {facts['uid']}"),
        *(Text(f"wanted as {_place(place)}") for place in facts["places"]),
    ]
    if facts["reused_from"] is not None:
        parts.append(Text(f"Its result is that of trial {facts['reused_from']}, of another sweep."))
    parts += [_head("What is run"), Pretty(_brief(facts["spec"]), expand_all=False)]
    parts += [_head("Attempts"), *(Text(_attempt_line(one)) for one in facts["attempts"])]
    if curve := facts["curve"]:
        parts.append(_head("Reports of the latest attempt"))
        parts += [Text(f"and {len(curve) - LAST_LINES} before")] if len(curve) > LAST_LINES else []
        parts += [Text(_curve_line(point)) for point in curve[-LAST_LINES:]]
    if facts["result"]:
        parts += [_head("Result"), Pretty(_brief(facts["result"]))]
    if facts["error"] or facts["cause"]:
        parts += [_head("What went wrong"), Text(facts["error"] or facts["cause"])]
    if facts["files"]:
        parts.append(_head("Files"))
        parts += [Text(_file_line(file)) for file in facts["files"]]
    return Group(*parts)


def logs_facts(found: Found, text: str) -> dict[str, Any]:
    """Return what each attempt at a trial logged, as far as it was kept.

    Raises:
        TrialChoiceError: ``text`` does not lead to a trial.
    """
    trial = find_trial(found, text)
    store = ArtifactStore(require_variables(found.tracking).artifacts_url)
    attempts = []
    for attempt in Outbox(found.ledger).attempts_of(trial.id):
        log = None
        with suppress(ArtifactNotFoundError):
            log = store.read_bytes(f"logs/{trial.uid}/{attempt.n}.txt").decode(errors="replace")
        attempts.append({**_attempt(attempt), "log": log})
    return {
        "sweep": found.record.name,
        "trial": trial.id,
        "uid": trial.uid,
        "state": str(trial.state),
        "attempts": attempts,
    }


def logs_view(facts: Mapping[str, Any]) -> RenderableType:
    """Show what each attempt logged."""
    if not facts["attempts"]:
        return Text(f"Trial {facts['trial']} is {facts['state']} and was not run in this sweep.")
    parts: list[RenderableType] = []
    for attempt in facts["attempts"]:
        parts.append(Text(_attempt_line(attempt), style="bold"))
        if attempt["log"] is not None:
            parts.append(Text(attempt["log"].rstrip("\n")))
        elif attempt["outcome"] is None:
            parts.append(Text("It runs; its log is kept once it has ended."))
        else:
            parts.append(Text("It logged nothing, or its worker ended before that was stored."))
        if attempt["log"] is None and attempt["error"]:
            parts.append(Text(attempt["error"]))
    return Group(*parts)


def _attempt(attempt: AttemptRecord) -> dict[str, Any]:
    ended = attempt.ended_at
    return {
        "attempt": attempt.n,
        "node": attempt.node,
        "pid": attempt.pid,
        "started_at": attempt.started_at.isoformat(timespec="seconds"),
        "ended_at": ended and ended.isoformat(timespec="seconds"),
        "seconds": ended and (ended - attempt.started_at).total_seconds(),
        "outcome": attempt.outcome and str(attempt.outcome),
        "loss": attempt.loss and str(attempt.loss),
        "error": attempt.error,
    }


def _attempt_line(attempt: Mapping[str, Any]) -> str:
    line = f"attempt {attempt['attempt']} on {attempt['node']} (process {attempt['pid']})"
    if attempt["outcome"] is None:
        return f"{line}: runs since {attempt['started_at']}"
    loss = f" ({attempt['loss']})" if attempt["loss"] else ""
    return f"{line}: {attempt['outcome']}{loss} after {duration(attempt['seconds'])}"


def _curve(found: Found, trial: TrialRecord) -> list[dict[str, Any]]:
    steps: dict[int, dict[str, Any]] = {}
    for point in found.ledger.metrics(trial.id):
        steps.setdefault(point.step, {"step": point.step})[point.key] = point.value
    return list(steps.values())


def _curve_line(point: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key} {value:.4g}" for key, value in point.items() if key != "step")
    return f"step {point['step']}: {values}"


def _files(found: Found, trial: TrialRecord) -> list[dict[str, Any]]:
    """List the trial's artifacts, and whether they are there still."""
    store = ArtifactStore(require_variables(found.tracking).artifacts_url)
    paths = dict((trial.result or {}).get("artifacts") or {})
    for name in store.files(f"logs/{trial.uid}"):
        paths[f"log of attempt {name.removesuffix('.txt')}"] = f"logs/{trial.uid}/{name}"
    return [
        {"name": name, "path": path, "store": store.url, "is_there": store.exists(path)}
        for name, path in paths.items()
    ]


def _file_line(file: Mapping[str, Any]) -> str:
    gone = "" if file["is_there"] else " (not there any more)"
    return f"{file['name']}: {file['store']}/{file['path']}{gone}"


def _place(place: Mapping[str, Any]) -> str:
    words = (place["role"], place["arm"], place["target"], f"#{place['index']}")
    return " ".join(str(word) for word in words if word)


def _brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what fills screens: plans, packages; --json has all of it."""
    kept = {key: value for key, value in facts.items() if value not in (None, {}, [])}
    return {key: "..." if key in _LISTED else value for key, value in kept.items()}


def _head(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
