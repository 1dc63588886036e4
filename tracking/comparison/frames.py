"""Records and comparisons as pandas frames, for a notebook: one row an observation, plain names.

Accuracies are percentages, drops are in points, reductions and ratios are shares in [0, 1], times
are seconds. The columns are there for a sweep without a single trial, too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from tracking.comparison.comparison import Comparison, FrontPoint, Row, Table
from tracking.places import front_point
from tracking.records import EntryRecord, MetricPoint, TrialRecord, TrialState
from tracking.results import Result
from tracking.winners import front

PLACE: Final = ("trial", "role", "arm", "target", "index")  #: Columns that say what a trial is for.
_TRIALS: Final = (
    *PLACE,
    "uid",
    "state",
    "attempt",
    "val_accuracy",
    "test_accuracy",
    "macs",
    "params",
    "macs_reduction",
    "params_reduction",
    "seconds",
    "cause",
)
_RATIOS: Final = (*PLACE, "group", "filters", "kept", "ratio")
_COUNTS: Final = ("role", "arm", "target", *map(str, TrialState), "total")
_COMPARE: Final = (
    "target",
    "name",
    "arm",
    "role",
    "verdict",
    "leads",
    "n",
    "accuracy",
    "std",
    "low",
    "high",
    "drop",
    "tuned_drop",
    "p",
    "on_target",
    "macs",
    "params",
    "macs_reduction",
    "params_reduction",
    "speed_up",
    "seconds",
    "search_trials",
    "total_seconds",
)
_FRONT: Final = (
    "arm",
    "target",
    "macs",
    "macs_reduction",
    "params_reduction",
    "val_accuracy",
    "test_accuracy",
    "on_front",
)


def trials_frame(entries: Sequence[EntryRecord], trials: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return a row per place of the sweep: what it is for, and what its trial brought back.

    A trial that two places share is there twice, under the same ``trial`` and ``uid``.
    """
    rows = []
    for entry, trial in _placed(entries, trials):
        result = Result.read(trial.result)
        known = {name: getattr(result, name, None) for name in _TRIALS}
        rows.append(
            {
                **known,
                **_place(entry),
                "uid": trial.uid,
                "state": str(trial.state),
                "attempt": trial.attempt,
                "seconds": result.seconds_total,
                "cause": trial.cause,
            }
        )
    return pd.DataFrame(rows, columns=list(_TRIALS))


def curves_frame(
    entries: Sequence[EntryRecord],
    trials: Iterable[TrialRecord],
    points: Iterable[tuple[int, MetricPoint]],
) -> pd.DataFrame:
    """Return a row per trial and step, and a column per metric of what its last attempt reported.

    Args:
        entries: Places of the sweep; a trial several share is shown at its first.
        trials: Trials of the sweep.
        points: Number of a trial, and one value of its curves.
    """
    first: dict[int, EntryRecord] = {}
    for entry, _ in _placed(entries, trials):
        first.setdefault(entry.trial_id, entry)
    steps: dict[tuple[int, int], dict[str, float]] = {}
    for trial_id, point in points:
        steps.setdefault((trial_id, point.step), {})[point.key] = point.value
    rows = [
        {**_place(first[trial_id]), "step": step, **values}
        for (trial_id, step), values in steps.items()
        if trial_id in first
    ]
    keys = sorted({key for values in steps.values() for key in values})
    return pd.DataFrame(rows, columns=[*PLACE, "step", *keys])


def ratios_frame(entries: Sequence[EntryRecord], trials: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return a row per place and group of layers: its filters before and after, and what went."""
    rows = []
    for entry, trial in _placed(entries, trials):
        result = Result.read(trial.result)
        dense = result.dense_widths
        for group, kept in (result.kept or {}).items():
            filters = dense.get(group)
            ratio = None if not filters else 1 - kept / filters
            sizes = {"group": group, "filters": filters, "kept": kept, "ratio": ratio}
            rows.append({**_place(entry), **sizes})
    return pd.DataFrame(rows, columns=list(_RATIOS))


def status_frame(entries: Sequence[EntryRecord], trials: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return how many places have a trial in each state, by role, arm and target."""
    rows: dict[tuple[str, str, str], dict[str, int]] = {}
    for entry, trial in _placed(entries, trials):
        counts = rows.setdefault(entry.place.words, dict.fromkeys((*map(str, TrialState),), 0))
        counts[str(trial.state)] += 1
    return pd.DataFrame(
        [
            {"role": role, "arm": arm, "target": target, **counts, "total": sum(counts.values())}
            for (role, arm, target), counts in rows.items()
        ],
        columns=list(_COUNTS),
    )


def compare_frame(comparison: Comparison) -> pd.DataFrame:
    """Return a row per arm and control at each target, in the order of the report."""
    rows = [_row(table, row) for table in comparison.tables for row in table.rows]
    return pd.DataFrame(rows, columns=list(_COMPARE))


def front_frame(comparison: Comparison) -> pd.DataFrame:
    """Return networks by accuracy and cost, cheapest first; ``on_front``: no other one beats it.

    Of a sweep without targets these are the fronts of its arms, which the validation accuracy of
    single runs decides; else the rows of its tables, by the mean test accuracy.
    """
    rows = [
        {"arm": each.arm, "target": front_point(point.index), **_point(point)}
        for each in comparison.fronts
        for point in each.points
    ]
    deciding = "val_accuracy" if rows else "test_accuracy"
    if not rows:
        compared = [(table, row) for table in comparison.tables for row in table.rows]
        rows = [_network(table, row) for table, row in compared if row.cost and row.accuracy]
    best = front(rows, lambda row: (row[deciding], row["macs"]), with_equals=True)
    for row in rows:
        row["on_front"] = any(row is one for one in best)
    rows.sort(key=lambda row: float(row["macs"]))
    return pd.DataFrame(rows, columns=list(_FRONT))


def _placed(
    entries: Sequence[EntryRecord], trials: Iterable[TrialRecord]
) -> Iterator[tuple[EntryRecord, TrialRecord]]:
    by_id = {trial.id: trial for trial in trials}
    for entry in entries:
        if entry.trial_id in by_id:
            yield entry, by_id[entry.trial_id]


def _place(entry: EntryRecord) -> dict[str, Any]:
    role, arm, target = entry.place.words
    values = (entry.trial_id, role, arm, target, entry.place.index)
    return dict(zip(PLACE, values, strict=True))


def _row(table: Table, row: Row) -> Mapping[str, Any]:
    accuracy, cost = row.accuracy, row.cost
    clean = [latency for latency in row.latency if not latency.shared_device]
    return {
        "target": table.target,
        "name": row.name,
        "arm": row.arm,
        "role": row.role,
        "verdict": str(row.verdict),
        "leads": row.leads,
        "n": accuracy.n if accuracy else 0,
        "accuracy": accuracy.mean if accuracy else None,
        "std": accuracy.std if accuracy else None,
        "low": accuracy.low if accuracy else None,
        "high": accuracy.high if accuracy else None,
        "drop": row.test_accuracy_drop,
        "tuned_drop": row.tuned_drop,
        "p": row.p,
        "on_target": row.on_target,
        "macs": cost.macs if cost else None,
        "params": cost.params if cost else None,
        "macs_reduction": cost.macs_reduction if cost else None,
        "params_reduction": cost.params_reduction if cost else None,
        "speed_up": clean[0].speed_up if clean else None,
        "seconds": row.seconds,
        "search_trials": row.search.trials if row.search else None,
        "total_seconds": row.total_seconds,
    }


def _point(point: FrontPoint) -> dict[str, Any]:
    return {
        "macs": point.macs,
        "macs_reduction": point.macs_reduction,
        "params_reduction": point.params_reduction,
        "val_accuracy": point.val_accuracy,
        "test_accuracy": point.accuracy.mean if point.accuracy else None,
    }


def _network(table: Table, row: Row) -> dict[str, Any]:
    assert row.cost is not None
    assert row.accuracy is not None
    return {
        "arm": row.name,
        "target": table.target,
        "macs": row.cost.macs,
        "macs_reduction": row.cost.macs_reduction,
        "params_reduction": row.cost.params_reduction,
        "val_accuracy": row.val_accuracy.mean if row.val_accuracy else None,
        "test_accuracy": row.accuracy.mean,
    }
