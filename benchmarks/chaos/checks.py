"""What must be true of a sweep when it is over, whatever befell it.

Each check returns what is wrong, one line each; nothing: all is well.
"""

import json
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.world import Exit
from methods import PruningPlan
from tracking.artifacts import ArtifactNotFoundError, ArtifactStore
from tracking.comparison.compare import compare
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.mirror import STATUS, experiment_name
from tracking.places import Role
from tracking.records import Outcome, SweepState, TrialRecord, TrialState
from workers.networks.checkpoints import from_safetensors, weights_hash

CURVES = ("train_loss", "val_accuracy")  #: Held against MLflow point by point.
#: Of a comparison, besides seconds: measured, by which machine, and what a machine's cache had.
_ELSEWHERE = {"latency", "environments", "warnings", "spec", "sweep", "last_change"}
_ACCURACIES = ("val_accuracy", "val_loss", "test_accuracy", "test_loss")
_FACTS = ("weights", "kept", "macs", "params", "epochs_select", "epochs_recover", *_ACCURACIES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """A sweep in a ledger."""

    ledger: Ledger
    name: str

    @property
    def sweep_id(self) -> int:
        """Its number in the ledger."""
        return self.ledger.sweep(self.name).id

    def trials(self) -> list[TrialRecord]:
        """Return its trials."""
        return self.ledger.trials(self.sweep_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What kills cost."""

    trials: int
    attempts: int
    retried: int  #: Trials with more than one attempt.
    lost: Counter[str]  #: Attempts, by what they were lost to.
    epochs: int  #: Reported, all attempts together.
    recomputed: int  #: Of these, reported by an earlier attempt at the same trial already.


def effort(records: Records) -> Effort:
    """Add up what was done more than once, by what was reported."""
    attempts = records.ledger.attempts(records.sweep_id)
    steps = [
        (attempt.trial_id, step)
        for attempt in attempts
        for step in {p.step for p in records.ledger.metrics(attempt.trial_id, attempt.n)}
    ]
    trials = records.trials()
    return Effort(
        trials=len(trials),
        attempts=len(attempts),
        retried=sum(trial.attempt > 1 for trial in trials),
        lost=Counter(str(attempt.loss) for attempt in attempts if attempt.loss),
        epochs=len(steps),
        recomputed=len(steps) - len(set(steps)),
    )


def exactly_once(records: Records) -> list[str]:
    """Every trial has completed, once, by its last attempt; the sweep is over and nobody's."""
    sweep = records.ledger.sweep(records.name)
    trials, attempts = records.trials(), records.ledger.attempts(sweep.id)
    found = [] if sweep.state is SweepState.COMPLETED else [f"the sweep is {sweep.state}"]
    if lease := records.ledger.lease(sweep.id):
        found.append(f"the sweep is held: {lease}")
    found += _more_than_once("content", (trial.uid for trial in trials))
    found += _more_than_once(
        "entry", (str(entry.place) for entry in records.ledger.entries(sweep.id))
    )
    for trial in trials:
        mine = [attempt for attempt in attempts if attempt.trial_id == trial.id]
        outcomes = [attempt.outcome for attempt in mine]
        expected = [Outcome.LOST] * (len(mine) - 1) + [Outcome.COMPLETED]
        if trial.state is not TrialState.COMPLETED or trial.result is None:
            found.append(f"trial {trial.id} is {trial.state}: {trial.cause}")
        elif outcomes != expected or [attempt.n for attempt in mine] != [*range(1, len(mine) + 1)]:
            found.append(f"trial {trial.id} has attempts {[str(o) for o in outcomes]}")
        elif any(attempt.ended_at is None for attempt in mine):
            found.append(f"trial {trial.id} has an attempt without an end")
    return found


def mirror_equals_ledger(records: Records, uri: str) -> list[str]:
    """MLflow has one run per attempt, as it ended, and one result per trial, with its numbers."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(experiment_name(records.ledger.sweep(records.name)))
    if experiment is None:
        return ["there is no experiment"]
    runs = list(_runs(client, experiment.experiment_id))
    parents = [run for run in runs if "prunesweep.is_parent" in run.data.tags]
    shown = {
        (run.data.tags["prunesweep.trial"], int(run.data.tags["prunesweep.attempt"])): run
        for run in runs
        if "prunesweep.trial" in run.data.tags
    }
    found = (
        [] if [r.info.status for r in parents] == ["FINISHED"] else ["the parent run is not one"]
    )
    if len(shown) + len(parents) < len(runs):
        found.append(f"{len(runs) - len(shown) - len(parents)} run(s) are there twice")
    trials = {trial.id: trial for trial in records.trials()}
    attempts = records.ledger.attempts(records.sweep_id)
    found += [
        f"attempt {n} at {uid} is shown and not in the ledger"
        for uid, n in shown.keys() - {(trials[a.trial_id].uid, a.n) for a in attempts}
    ]
    for attempt in attempts:
        trial = trials[attempt.trial_id]
        what, run = f"attempt {attempt.n} at trial {trial.id}", shown.get((trial.uid, attempt.n))
        if run is None:
            found.append(f"{what} is not shown")
            continue
        if run.info.status != STATUS[attempt.outcome]:
            found.append(f"{what} ended {attempt.outcome} and is {run.info.status}")
        counts = attempt.outcome is Outcome.COMPLETED
        if run.data.tags["prunesweep.is_result"] != str(counts).lower():
            found.append(f"{what}: prunesweep.is_result is not {counts}")
        result = _numbers(trial.result or {}) if counts else {}
        if differing := [k for k, v in result.items() if run.data.metrics.get(k) != v]:
            found.append(f"{what} has other {', '.join(differing)}")
        found += _differing_curves(records, client, run, trial.id, attempt.n, result)
    return found


def _differing_curves(
    records: Records, client: Any, run: Any, trial_id: int, n: int, result: dict[str, float]
) -> Iterator[str]:
    for key in CURVES:
        points = [
            (point.step, point.value)
            for point in records.ledger.metrics(trial_id, n)
            if point.key == key
        ]
        shown = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
        if key in result and points and points[-1][1] != result[key]:
            points.append((points[-1][0] + 1, result[key]))  # the result ends the curve
        if key in result and not points:
            points = [(0, result[key])]
        if sorted(shown) != points:
            yield f"attempt {n} at trial {trial_id} has another curve {key}"


def artifacts_whole(records: Records, store: ArtifactStore) -> list[str]:
    """What results name is there and is what it says; of what was under way, nothing is left."""
    found = []
    for trial in records.trials():
        paths = (trial.result or {}).get("artifacts") or {}
        try:
            if "weights" in paths:
                weights = from_safetensors(store.read_bytes(paths["weights"]))
                if not trial.result or weights_hash(weights) != trial.result["weights"]:
                    found.append(f"{paths['weights']} holds other weights")
            if "plan" in paths:
                plan = PruningPlan.from_json(json.loads(store.read_bytes(paths["plan"])))
                if not trial.result or plan.to_json() != trial.result["plan"]:
                    found.append(f"{paths['plan']} is another plan")
        except ArtifactNotFoundError as error:
            found.append(str(error))
        except Exception as error:  # however it is torn
            found.append(f"artifacts of trial {trial.id}: {type(error).__name__}: {error}")
    reports = records.ledger.sweep(records.name).artifacts
    found += [f"{path} is missing" for path in reports.values() if not store.exists(path)]
    assert store.folder is not None
    kept = sorted((store.folder / "checkpoints").glob("*"))
    found += [f"checkpoints of {folder.name} are left" for folder in kept]
    found += [f"{file} is left" for file in sorted(store.folder.rglob(".*.tmp"))]
    return found


def tables_equal(records: Records, quiet: Records) -> list[str]:
    """Every place has the same trial and result as in the quiet run, and so have the tables."""
    mine, theirs = dict(_results(records)), dict(_results(quiet))
    places = sorted(mine.keys() | theirs.keys())
    found = [f"{place} differs" for place in places if mine.get(place) != theirs.get(place)]
    tables, quiet_tables = _comparison(records), _comparison(quiet)
    found += [f"{key} differ" for key in tables if tables[key] != quiet_tables[key]]
    return found


def exits_explained(exits: Sequence[Exit]) -> list[str]:
    """A driver that was not killed says in words why it ended."""
    return [
        f"driver {number} ended with status {ended.status}: {ended.words[-300:]}"
        for number, ended in enumerate(exits, 1)
        if ended.status not in {0, -signal.SIGKILL}
        and ("Traceback" in ended.words or not ended.words.strip())
    ]


def _results(records: Records) -> Iterator[tuple[str, Any]]:
    """Yield what is known of every place, but for what was measured in seconds."""
    trials = {trial.id: trial for trial in records.trials()}
    for entry in records.ledger.entries(records.sweep_id):
        trial = trials[entry.trial_id]
        result = trial.result or {}
        facts = {key: result.get(key) for key in _FACTS}
        uid = None if entry.place.role is Role.LATENCY else trial.uid  # names the device
        yield str(entry.place), (uid, trial.state, entry.proposal, facts)


def _comparison(records: Records) -> dict[str, Any]:
    comparison = compare(records.ledger, records.ledger.sweep(records.name))
    timeless: dict[str, Any] = _timeless(comparison.to_json())
    return timeless


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _timeless(item)
            for key, item in value.items()
            if key not in _ELSEWHERE and "seconds" not in str(key)
        }
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value


def _more_than_once(what: str, values: Iterable[str]) -> list[str]:
    return [f"{what} {value} is there {n} times" for value, n in Counter(values).items() if n > 1]


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in result.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _runs(client: Any, experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=500, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
