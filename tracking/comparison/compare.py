"""From stored records to a comparison: who is best, by how much, how surely, and at what price."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tracking.comparison.comparison import Comparison, Dense, Identity, Table
from tracking.comparison.fronts import flattened, fronts_of
from tracking.comparison.given_up import failed_arms
from tracking.comparison.identities import differing, fits, identities, shared
from tracking.comparison.missing import missing_from
from tracking.comparison.pairs import Side
from tracking.comparison.predictors import predictors_of
from tracking.comparison.rates import rate_choice
from tracking.comparison.rows import answers_of, harm_of, rows_of
from tracking.comparison.runs import Run, failure_of, usable
from tracking.comparison.searches import Importance, searched_ratios
from tracking.matrix import CostPoint, cost_points, matrix_of
from tracking.places import Role, searched_label
from tracking.records import EntryRecord, SweepRecord, TrialRecord
from tracking.results import Environment, finite, given
from tracking.statistics.model import MARGIN


class Records(Protocol):
    """Where records are read from: the ledger, or anything that keeps them."""

    def entries(self, sweep_id: int) -> Sequence[EntryRecord]:
        """Return the sweep's entries."""

    def trials(self, sweep_id: int) -> Sequence[TrialRecord]:
        """Return the sweep's trials."""


def compare(
    ledger: Records,
    sweep: SweepRecord,
    margin: float = MARGIN,
    importance: Importance | None = None,
) -> Comparison:
    """Compare the arms of a sweep, finished or not, from its stored records alone.

    Args:
        ledger: Where the records are.
        sweep: The one to compare.
        margin: Points of accuracy that rows must be shown to be closer than to tie.
        importance: Says which ratios mattered in a search; None: nothing is said of that.
    """
    entries, trials = ledger.entries(sweep.id), ledger.trials(sweep.id)
    return compare_records(sweep, entries, trials, margin, importance)


def side_of(ledger: Records, sweep: SweepRecord, arm: str, margin: float = MARGIN) -> Side:
    """Read what one arm or control of a sweep brings to a comparison of two."""
    by_id = {trial.id: trial for trial in ledger.trials(sweep.id)}
    found: dict[str, list[Run]] = {}
    for entry in ledger.entries(sweep.id):
        place = entry.place
        if place.arm == arm and place.role.is_reported and entry.trial_id in by_id:
            found.setdefault(place.target, []).append(Run(entry=entry, trial=by_id[entry.trial_id]))
    kept = {target: answers_of(runs) for target, runs in found.items()}
    return Side(
        comparison=compare(ledger, sweep, margin),
        arm=arm,
        answers={target: answers for target, answers in kept.items() if answers is not None},
    )


def compare_records(
    sweep: SweepRecord,
    entries: Iterable[EntryRecord],
    trials: Iterable[TrialRecord],
    margin: float = MARGIN,
    importance: Importance | None = None,
) -> Comparison:
    """Compare records at hand; an entry whose trial is not among them is left out."""
    by_id = {trial.id: trial for trial in trials}
    runs = [
        Run(entry=entry, trial=by_id[entry.trial_id])
        for entry in sorted(entries, key=lambda e: (*e.place.words, e.place.index))
        if entry.trial_id in by_id
    ]
    baselines = [run for run in usable(runs) if run.place.role is Role.BASELINE]
    reported = [run for run in runs if run.place.role.is_reported]
    ends = [run.trial.ended_at for run in runs if run.trial.ended_at is not None]
    environments = _distinct(
        found for run in runs if (found := run.result.environment) and found.stored
    )
    return Comparison(
        sweep=sweep.name,
        state=sweep.standing,
        spec_hash=sweep.spec_hash,
        spec=sweep.spec,
        last_change=max(ends).isoformat(timespec="seconds") if ends else None,
        dense=_dense(baselines, None),
        tables=_all_tables(sweep.spec, runs, baselines, margin),
        fronts=fronts_of(runs),
        searches=searched_ratios(runs, importance) if importance else (),
        predictors=predictors_of(runs),
        rates=rate_choice(runs),
        failures=tuple(failure for run in runs if (failure := failure_of(run)) is not None),
        failed_arms=failed_arms(runs),
        missing=missing_from(sweep.spec, runs, sweep.cancellations),
        warnings=_warnings(sweep.spec, environments),
        environments=tuple(environment.stored for environment in environments),
        margin=margin,
        seeds=tuple(sorted({run.place.index for run in usable(reported)})),
    )


def _all_tables(
    spec: Mapping[str, Any], runs: Sequence[Run], baselines: Sequence[Run], margin: float
) -> tuple[Table, ...]:
    """Build the tables of every target, or the one of the fronts."""
    points = cost_points(spec)
    if points[0].is_front:
        tables = _tables(points[0], (), flattened(runs), baselines, margin)
        return tuple(table for table in tables if table.rows)
    arms = matrix_of(spec).arms
    return tuple(
        table
        for point in sorted(points, key=lambda point: point.drop is None)  # the shortest answers
        for table in _tables(point, arms, runs, baselines, margin)
    )


def _tables(
    point: CostPoint,
    arms: Sequence[str],
    runs: Sequence[Run],
    baselines: Sequence[Run],
    margin: float,
) -> list[Table]:
    """Build one table, or one per identity where runs that must not be compared have met."""
    here = [
        run
        for run in runs
        if searched_label(run.place.target) == point.label
        or (run.place.role.serves_every_target and not run.place.target)
    ]
    judged = [run for run in here if run.place.role.is_reported]
    others = [run for run in here if not run.place.role.is_reported]
    found = identities(judged)
    tables = []
    for place, identity in enumerate(found):
        # A run without a result has no identity to go by; it is counted once, in the first table.
        part = [
            run
            for run in judged
            if (fits(shared(run), identity) if run.is_completed else place == 0)
        ]
        dense = _dense(baselines, identity[0])
        warnings = []
        if len(found) > 1:
            warnings.append(
                f"Runs at {point.label} differ in {differing(found)}, so they are not compared "
                f"with one another: this is part {place + 1} of {len(found)}."
            )
        if dense is None and part:
            warnings.append(
                "The dense baseline these runs started from has no result of its own in this "
                "sweep, so drops against it are missing."
            )
        tables.append(
            Table(
                target=point.label,
                axis=point.axis,
                reduction=point.reduction,
                tolerance=point.tolerance,
                drop=point.drop,
                identity=Identity(
                    base_weights=identity[0],
                    recipe=identity[1],
                    data=identity[2],
                    policy=identity[3],
                ),
                dense=dense,
                rows=rows_of(point, arms, [*others, *part], dense, margin),
                margin=margin,
                harm=harm_of(part, dense),
                warnings=tuple(warnings),
            )
        )
    return tables


def _dense(baselines: Sequence[Run], weights: str | None) -> Dense | None:
    """Find the baseline with these weights; without weights to go by, the only one there is."""
    fitting = [run for run in baselines if weights in {None, run.result.weights}]
    if not fitting:
        return None
    run = fitting[0]
    return Dense(
        test_accuracy=given(run.accuracy),
        val_accuracy=finite(run.result.val_accuracy),
        macs=given(run.result.macs),
        params=given(run.result.params),
        weights=given(run.result.weights),
    )


def _distinct(values: Iterable[Environment]) -> tuple[Environment, ...]:
    found: list[Environment] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(found)


def _warnings(spec: Mapping[str, Any], environments: Sequence[Environment]) -> tuple[str, ...]:
    """Say what limits the whole comparison."""
    off = [name for name, on in (spec.get("controls") or {}).items() if not on]
    warnings = []
    if off:
        warnings.append(f"Controls switched off: {', '.join(off)}.")
    devices = [str(environment.device_name) for environment in environments]
    commits = [str(environment.commit) for environment in environments]
    for names, what in ((devices, "devices"), (commits, "versions of the code")):
        found = list(dict.fromkeys(names))
        if len(found) > 1:
            warnings.append(f"Runs came from different {what}: {', '.join(found)}.")
    if any(environment.dirty for environment in environments):
        warnings.append("Some runs came from a checkout with uncommitted changes.")
    packages = [environment.packages for environment in environments]
    if any(other != packages[0] for other in packages[1:]):
        warnings.append("Runs came from different package versions; the provenance lists them.")
    return tuple(warnings)
