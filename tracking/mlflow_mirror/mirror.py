"""What MLflow is to show, computed from records: names, tags, params, metrics and files of runs.

One experiment per sweep, with one parent run that describes the sweep and one child run per attempt
at a trial, so that curves of two attempts never mix. Everything here is a pure function of the
records: sent twice, it is the same. MLflow itself is not touched.
"""

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tracking.mlflow_mirror.verdicts import Verdicts, member_name
from tracking.places import Role
from tracking.records import (
    AttemptRecord,
    EntryRecord,
    MetricPoint,
    Outcome,
    SweepRecord,
    SweepState,
    TrialRecord,
    TrialState,
)
from tracking.results import Result

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

EXPERIMENTS = "prunesweep/"  #: Begins the names of experiments.
KEY = "prunesweep.run"  #: Tag that names a run for ever; runs are found by it.
PARENT = "mlflow.parentRunId"
IS_RESULT = "prunesweep.is_result"  #: Tag of the runs that count.
LEDGER = "prunesweep.ledger"  #: Tag of a parent run: the place of the ledger it mirrors.
SUPERSEDED = "prunesweep.superseded_by"  #: Tag of the parent run of a ledger that is no more.
NOTE = "mlflow.note.content"
MAX_NAME, MAX_PARAM, MAX_TAG = 250, 6000, 5000  #: Characters MLflow takes.

#: An attempt that was stopped or lost is no finished training: kept out of ``status = FINISHED``.
STATUS: Mapping[Outcome | None, Status] = {
    None: "RUNNING",
    Outcome.COMPLETED: "FINISHED",
    Outcome.STOPPED: "KILLED",
    Outcome.FAILED: "FAILED",
    Outcome.LOST: "KILLED",
    Outcome.CANCELLED: "KILLED",
}
SWEEP_STATUS: Mapping[SweepState, Status] = {
    SweepState.RUNNING: "RUNNING",
    SweepState.COMPLETED: "FINISHED",
    SweepState.INTERRUPTED: "KILLED",
    SweepState.FAILED: "FAILED",
}
ROLE, ARM, TARGET = "prunesweep.role.", "prunesweep.arm.", "prunesweep.target."
#: Begin tags that say, one each, what a trial is for: ``prunesweep.arm.l1 = 'true'``.
MEMBERSHIP = (ROLE, ARM, TARGET)
#: Only trials that one of these wants show how they did on the test split.
TESTED = frozenset({Role.BASELINE, Role.CONFIRM, Role.CONTROL})
WITH_RESULT = frozenset({TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One metric row; MLflow takes the same row twice for once, the time stamp included."""

    key: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DataInput:
    """The data set a run is about."""

    name: str
    digest: str  #: Of images and splits, shortened to what MLflow takes.
    source: str  #: The settings it was read by, JSON.


@dataclass(frozen=True, kw_only=True, slots=True)
class RunImage:
    """A run as it should look."""

    key: str  #: Value of the tag `KEY`.
    name: str
    status: Status
    start_ms: int
    end_ms: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[Point, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)  #: File name -> content.
    copies: Mapping[str, str] = field(default_factory=dict)  #: File name -> path in the store.
    data: DataInput | None = None


def experiment_name(sweep: SweepRecord) -> str:
    """Return the name of the sweep's experiment."""
    return f"{EXPERIMENTS}{sweep.name}"


def sweep_key(sweep: SweepRecord) -> str:
    """Name the sweep apart from one of the same name in another ledger, or in an earlier life."""
    content = f"{sweep.name}\n{sweep.created_at.isoformat()}"
    return f"{sweep.name}/{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def sweep_run(
    sweep: SweepRecord,
    ended_at: datetime | None,
    ledger: str = "",
    verdicts: Verdicts | None = None,
    trials: Sequence[TrialRecord] = (),
) -> RunImage:
    """Describe the sweep's parent run.

    Args:
        sweep: The sweep.
        ended_at: When its last trial ended, and so the run.
        ledger: Place of the ledger it mirrors.
        verdicts: What its arms are worth by now.
        trials: Its trials. As many as have ended are the step of the numbers, so that they have
            a curve over the sweep.
    """
    spec = {k: v for k, v in sweep.spec.items() if k not in {"name", "resources", "tracking"}}
    arms = spec.pop("arms", None) or ()
    params = flatten(spec) | {f"arm.{_arm_name(arm)}": _text(arm) for arm in arms}
    names = ", ".join(_arm_name(arm) for arm in arms) or "no arms"
    note = (
        f"Filter-pruning sweep **{sweep.name}**: {names}. One run below this one per attempt at a "
        "trial; the tag `prunesweep.is_result = 'true'` marks those that count, and "
        "`prunesweep.arm.NAME = 'true'` all of an arm."
    )
    if verdicts is not None:
        note = f"{verdicts.note}\n\n{note}"
    at = _ms(ended_at or sweep.created_at)
    done = sum(trial.state.is_final for trial in trials)
    numbers = {"trials_ended": float(done), **(verdicts.numbers if verdicts else {})}
    tags = {
        "prunesweep.sweep": sweep.name,
        "prunesweep.spec_hash": sweep.spec_hash,
        "prunesweep.state": sweep.state.value,
        "prunesweep.is_parent": "true",
        LEDGER: ledger,
        NOTE: note,
        **(verdicts.tags if verdicts else {}),
    }
    return RunImage(
        key=sweep_key(sweep),
        name=sweep.name,
        status=SWEEP_STATUS[sweep.state],
        start_ms=_ms(sweep.created_at),
        end_ms=at,
        tags=_tags(tags),
        params=params,
        points=tuple(
            Point(key=_name(key), value=value, timestamp_ms=at, step=done)
            for key, value in numbers.items()
        )
        if trials
        else (),
        data=_data(trials),
        files={"spec.json": json.dumps(sweep.spec, indent=2, sort_keys=True).encode()},
        copies=sweep.artifacts,
    )


def attempt_run(
    sweep: SweepRecord,
    trial: TrialRecord,
    attempt: AttemptRecord | None,
    entries: Sequence[EntryRecord],
    curves: Sequence[MetricPoint],
    *,
    with_weights: bool = False,
) -> RunImage:
    """Describe the run of one attempt; no attempt: of a trial whose result was taken over.

    Args:
        sweep: The sweep the trial belongs to.
        trial: The trial.
        attempt: The attempt; None for a trial reused from another sweep.
        entries: All entries that point at the trial, in the order they came.
        curves: What the attempt reported.
        with_weights: Copy the weights too, instead of saying where they lie.
    """
    number = 0 if attempt is None else attempt.n
    counts = trial.state in WITH_RESULT and number == trial.attempt
    outcome = Outcome(trial.state.value) if attempt is None else attempt.outcome
    ended = trial.ended_at if attempt is None else attempt.ended_at
    started = (trial.started_at or trial.created_at) if attempt is None else attempt.started_at
    stored = (trial.result or {}) if counts else {}
    is_tested = counts and any(entry.place.role in TESTED for entry in entries)
    if not is_tested:
        stored = {key: value for key, value in stored.items() if not key.startswith("test_")}
    result = Result.read(stored)
    error = (trial.error if counts else None) or (attempt.error if attempt else None)
    reported = tuple(
        Point(key=_name(at.key), value=at.value, timestamp_ms=_ms(at.at), step=at.step)
        for at in curves
        if is_tested or not at.key.startswith("test_")
    )
    files = dict(result.artifacts or {})
    weights = {posixpath.basename(v): v for k, v in files.items() if "weights" in k}
    tags = {
        "prunesweep.sweep": sweep.name,
        "prunesweep.trial": trial.uid,
        "prunesweep.attempt": str(number),
        IS_RESULT: "true" if counts else "false",
        "prunesweep.outcome": outcome.value if outcome else "running",
        "prunesweep.loss": attempt.loss.value if attempt and attempt.loss else None,
        "prunesweep.cause": trial.cause if counts else None,
        "prunesweep.error": error[-MAX_TAG:] if error else None,
        "prunesweep.node": attempt.node if attempt else None,
        "prunesweep.reused_from": None if trial.reused_from is None else str(trial.reused_from),
        **{f"prunesweep.artifact.{name}": path for name, path in files.items()},
        **_description(trial.spec, entries),
    }
    return RunImage(
        key=f"{sweep_key(sweep)}/{trial.uid}/{number}",
        name=run_name(entries, number),
        status=STATUS[outcome],
        start_ms=_ms(started),
        end_ms=None if ended is None else _ms(ended),
        tags=_tags(tags),
        params=_params(trial.spec),
        points=(*reported, *_final_points(stored, reported, ended or started)),
        files={"plan.json": json.dumps(result.plan).encode()} if result.plan else {},
        copies=weights if with_weights else {},
    )


def run_name(entries: Sequence[EntryRecord], attempt: int) -> str:
    """Name a run for people, as in ``l1 macs-50% #3``; a later attempt says so."""
    if not entries:
        return "trial"
    first = entries[0].place
    role = "" if first.role.is_numbered else first.role
    number = f"#{first.index}" if first.role.is_numbered else f"seed {first.index}"
    parts = [role, first.arm, first.target, number]
    later = [f"(attempt {attempt})"] if attempt > 1 else []
    return " ".join(part for part in [*parts, *later] if part)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested settings into params: ``{"recipe": {"epochs": 3}}`` -> ``recipe.epochs``."""
    flat: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        elif item is not None and _text(item):
            flat[_name(f"{prefix}{key}")] = _text(item)[:MAX_PARAM]
    return flat


def _params(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the trial's settings; its plan is a file instead."""
    settings = {k: v for k, v in spec.items() if k not in {"plan", "ratios"}}
    return flatten(settings) | flatten({"ratio": spec.get("ratios") or {}})


def _description(
    spec: Mapping[str, Any], entries: Sequence[EntryRecord]
) -> Mapping[str, str | None]:
    def each(values: Iterator[str]) -> str:
        return ",".join(sorted({value for value in values if value}))

    return {
        "prunesweep.roles": each(entry.place.role for entry in entries),
        "prunesweep.arm": each(entry.place.arm for entry in entries),
        "prunesweep.target": each(entry.place.target for entry in entries),
        "prunesweep.kind": _text(spec.get("kind")),
        "prunesweep.method": _text(spec.get("method")),
        "prunesweep.schedule": _text((spec.get("schedule") or {}).get("name")),
        "prunesweep.seed": _text(spec.get("seed")),
        **{
            f"{kind}{member_name(value)}": "true"
            for entry in entries
            for kind, value in zip(MEMBERSHIP, entry.place.words, strict=True)
            if value
        },
    }


def no_longer(image: RunImage, held: Iterable[str]) -> dict[str, str]:
    """Return the tags that take back what a run was for, as when a search has another winner.

    Args:
        image: The run as it should look.
        held: Names of the tags it has.
    """
    return {key: "false" for key in held if key.startswith(MEMBERSHIP) and key not in image.tags}


def _data(trials: Sequence[TrialRecord]) -> DataInput | None:
    """Name the data set that the trials share; None while there is none."""
    for trial in trials:
        settings, digest = trial.spec.get("data"), trial.spec.get("data_hash")
        if isinstance(settings, Mapping) and settings.get("name") and digest:
            source = json.dumps({**settings}, sort_keys=True, default=str)
            return DataInput(name=str(settings["name"])[:500], digest=digest[:36], source=source)
    return None


def _final_points(
    result: Mapping[str, Any], reported: Sequence[Point], at: datetime
) -> Iterator[Point]:
    """Return the numbers of the result as points behind the end of the curves.

    A number the curve of the same name already ends with is not repeated.
    """
    last = {point.key: point for point in sorted(reported, key=lambda point: point.step)}
    step = 1 + max((point.step for point in reported), default=-1)
    for key, value in _numbers(result):
        if key not in last or last[key].value != value:
            yield Point(key=key, value=value, timestamp_ms=_ms(at), step=step)


def _numbers(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in result.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        yield _name(key), float(value)
    known = Result.read(result)
    for key, macs in (("flops", known.macs), ("base_flops", known.base_macs)):
        if macs is not None:
            yield key, 2.0 * macs
    for key, value in (known.notes or {}).items():
        yield _name(f"note.{key}"), float(value)
    for timing in known.latency or ():
        for key, value in timing.numbers().items():
            yield _name(f"latency.batch_{timing.batch_size}.{key}"), value


def _tags(tags: Mapping[str, str | None]) -> dict[str, str]:
    return {_name(key): value[:MAX_TAG] for key, value in tags.items() if value}


def _arm_name(arm: Any) -> str:
    return str(arm.get("name") or arm.get("method")) if isinstance(arm, Mapping) else str(arm)


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, sort_keys=True, default=str)


def _name(text: str) -> str:
    """Make a key MLflow takes: letters, digits and ``_-. :/``, and no path that climbs."""
    name = re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)[:MAX_NAME] or "_"
    return (
        name
        if posixpath.normpath(name) == name and name[0] not in "/."
        else re.sub(r"[/.]", "_", name)
    )


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
