"""From stored records to a comparison: who is best, by how much, how surely, and at what price."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tracking.comparison import (
    SCRATCH,
    Comparison,
    Dense,
    Identity,
    Row,
    Table,
    Verdict,
)
from tracking.fronts import FRONT, fronts_of
from tracking.identities import differing, fits, identities, shared
from tracking.missing import missing_from
from tracking.ranking import ranked, tested
from tracking.records import EntryRecord, SweepRecord, TrialRecord
from tracking.runs import (
    Run,
    average,
    cost_of,
    count,
    failure_of,
    latencies_of,
    reduction_of,
    search_cost,
    summary_of,
    uniform_check,
    usable,
    widths_of,
)

TOLERANCE = 0.01  #: Where the specification names none: a share of the dense cost.


class Records(Protocol):
    """Where records are read from: the ledger, or anything that keeps them."""

    def entries(self, sweep_id: int) -> Sequence[EntryRecord]:
        """Return the sweep's entries."""

    def trials(self, sweep_id: int) -> Sequence[TrialRecord]:
        """Return the sweep's trials."""


def compare(ledger: Records, sweep: SweepRecord) -> Comparison:
    """Compare the arms of a sweep, finished or not, from its stored records alone."""
    return compare_records(sweep, ledger.entries(sweep.id), ledger.trials(sweep.id))


def compare_records(
    sweep: SweepRecord, entries: Iterable[EntryRecord], trials: Iterable[TrialRecord]
) -> Comparison:
    """Compare records at hand; an entry whose trial is not among them is left out."""
    by_id = {trial.id: trial for trial in trials}
    runs = [
        Run(entry=entry, trial=by_id[entry.trial_id])
        for entry in sorted(entries, key=lambda e: (e.role, e.arm, e.target, e.index))
        if entry.trial_id in by_id
    ]
    baselines = [run for run in usable(runs) if run.entry.role == "baseline"]
    tables = [
        table
        for label, axis, reduction in _targets(sweep.spec, runs)
        for table in _tables(sweep.spec, runs, baselines, label, axis, reduction)
    ]
    reported = [run for run in runs if run.entry.role in {"confirm", "control"}]
    ends = [run.trial.ended_at for run in runs if run.trial.ended_at is not None]
    environments = _distinct(
        run.result["environment"] for run in runs if run.result.get("environment")
    )
    return Comparison(
        sweep=sweep.name,
        state=str(sweep.state),
        spec_hash=sweep.spec_hash,
        spec=sweep.spec,
        last_change=max(ends).isoformat(timespec="seconds") if ends else None,
        dense=_dense(baselines, None),
        tables=tuple(tables),
        fronts=fronts_of(runs),
        failures=tuple(failure for run in runs if (failure := failure_of(run)) is not None),
        missing=missing_from(sweep.spec, runs),
        warnings=_warnings(sweep.spec, environments),
        environments=environments,
        seeds=tuple(sorted({run.entry.index for run in usable(reported)})),
    )


def _targets(
    spec: Mapping[str, Any], runs: Sequence[Run]
) -> list[tuple[str, str | None, float | None]]:
    """List label, axis and reduction: the specification's, then those only the entries know."""
    asked = spec.get("targets") or {}
    found: dict[str, tuple[str | None, float | None]] = {
        f"{axis}-{share * 100:g}%": (axis, float(share))
        for axis in ("macs", "params")
        for share in asked.get(f"{axis}_reduction", ())
    }
    for run in runs:
        label = run.entry.target
        if label and label != FRONT and label not in found:
            target = run.trial.spec.get("target") or {}
            found[label] = (target.get("axis"), target.get("reduction"))
    return [(label, *point) for label, point in found.items()]


def _tables(
    spec: Mapping[str, Any],
    runs: Sequence[Run],
    baselines: Sequence[Run],
    label: str,
    axis: str | None,
    reduction: float | None,
) -> list[Table]:
    """Build one table, or one per identity where runs that must not be compared have met."""
    here = [
        run
        for run in runs
        if run.entry.target == label or (run.entry.role == "control" and not run.entry.target)
    ]
    judged = [run for run in here if run.entry.role in {"confirm", "control"}]
    found = identities(judged)
    tolerance = float((spec.get("search") or {}).get("tolerance", TOLERANCE))
    tables = []
    for place, identity in enumerate(found):
        part = [
            run
            for run in here
            if run not in judged or (fits(shared(run), identity) if run.result else place == 0)
        ]
        desk = _Desk(
            spec=spec, runs=part, axis=axis, reduction=reduction, tolerance=tolerance,
            dense=_dense(baselines, identity[0]),
        )  # fmt: skip
        warnings = []
        if len(found) > 1:
            warnings.append(
                f"Runs at {label} differ in {differing(found)}, so they are not compared "
                f"with one another: this is part {place + 1} of {len(found)}."
            )
        if desk.dense is None:
            warnings.append(
                "The dense baseline these runs started from has no usable result in this sweep, "
                "so drops against it are missing."
            )
        tables.append(
            Table(
                target=label,
                axis=axis,
                reduction=reduction,
                tolerance=tolerance,
                identity=Identity(
                    base_weights=identity[0],
                    recipe=identity[1],
                    data=identity[2],
                    policy=identity[3],
                ),
                dense=desk.dense,
                rows=desk.rows(),
                warnings=tuple(warnings),
            )
        )
    return tables


def _dense(baselines: Sequence[Run], weights: str | None) -> Dense | None:
    """Find the baseline with these weights; without weights to go by, the only one there is."""
    fitting = [run for run in baselines if weights in {None, run.result.get("weights")}]
    if not fitting:
        return None
    run = fitting[0]
    return Dense(
        test_accuracy=float(run.result["test_accuracy"]),
        val_accuracy=run.number("val_accuracy"),
        macs=int(run.result["macs"]),
        params=int(run.result["params"]),
        weights=str(run.result["weights"]),
    )


@dataclass(frozen=True, kw_only=True)
class _Desk:
    """Everything one table is made from."""

    spec: Mapping[str, Any]
    runs: Sequence[Run]
    axis: str | None
    reduction: float | None
    tolerance: float
    dense: Dense | None

    def rows(self) -> tuple[Row, ...]:
        """Return the arms by descending accuracy, then the controls, each tested and judged."""
        named = [arm["name"] for arm in self.spec.get("arms", ())]
        met = [run.entry.arm for run in self.runs if run.entry.role in {"search", "confirm"}]
        arms = [self._row(name, "arm") for name in dict.fromkeys([*named, *met])]
        met = [run.entry.arm for run in self.runs if run.entry.role == "control"]
        controls = [self._row(name, "control") for name in sorted(set(met), key=_control_order)]
        return (*ranked(arms), *tested(controls, arms))

    def _of(self, role: str, name: str) -> list[Run]:
        return [run for run in self.runs if (run.entry.role, run.entry.arm) == (role, name)]

    def _row(self, name: str, role: Literal["arm", "control"]) -> Row:
        """Fill a row with what needs no other row but the dense control."""
        runs = self._of("confirm" if role == "arm" else "control", name)
        good = usable(runs)
        accuracy = summary_of(good, "test_accuracy")
        tuned = summary_of(usable(self._of("control", "dense")), "test_accuracy")
        searched = self._of("search", name.removeprefix(SCRATCH))
        search = search_cost(searched) if searched else None
        seconds = average(good, lambda run: run.seconds)
        return Row(
            name=name,
            role=role,
            verdict=Verdict.CONTROL if role == "control" else Verdict.MISSING,
            leads=False,
            accuracy=accuracy,
            by_seed={run.entry.index: float(run.result["test_accuracy"]) for run in good},
            val_accuracy=summary_of(good, "val_accuracy"),
            test_accuracy_drop=(
                self.dense.test_accuracy - accuracy.mean if self.dense and accuracy else None
            ),
            tuned_drop=tuned.mean - accuracy.mean if tuned and accuracy else None,
            test=None,
            p=None,
            cost=cost_of(good),
            on_target=self._on_target(good),
            epochs=average(good, lambda run: run.epochs),
            seconds=seconds,
            statistics_seconds=average(good, lambda run: run.number("seconds_statistics")),
            search=search,
            total_seconds=None if seconds is None else seconds + (search.seconds if search else 0),
            runs=count(runs),
            masked_difference=max(
                (d for run in good if (d := run.number("masked_difference")) is not None),
                default=None,
            ),
            latency=latencies_of(usable(self._of("latency", name))),
            widths=widths_of(good),
            uniform=uniform_check(searched) if role == "arm" else None,
        )

    def _on_target(self, runs: Sequence[Run]) -> bool | None:
        """Whether every run met the target; None for runs that have none, as the dense control."""
        if self.axis is None or self.reduction is None:
            return None
        found = [reduction_of(run, self.axis) for run in runs if run.entry.target]
        distances = [abs(share - self.reduction) for share in found if share is not None]
        return max(distances) <= self.tolerance + 1e-9 if distances else None


def _control_order(name: str) -> tuple[int, str]:
    known = ("dense", "random", "uniform_l1")
    return (known.index(name) if name in known else len(known), name)


def _distinct(values: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    found: list[Mapping[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(found)


def _warnings(
    spec: Mapping[str, Any], environments: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Say what limits the whole comparison."""
    off = [name for name, on in (spec.get("controls") or {}).items() if not on]
    warnings = []
    if off:
        warnings.append(f"Controls switched off: {', '.join(off)}.")
    for key, what in (("device_name", "devices"), ("commit", "versions of the code")):
        found = list(dict.fromkeys(str(environment.get(key)) for environment in environments))
        if len(found) > 1:
            warnings.append(f"Runs came from different {what}: {', '.join(found)}.")
    if any(environment.get("dirty") for environment in environments):
        warnings.append("Some runs came from a checkout with uncommitted changes.")
    packages = [environment.get("packages") for environment in environments]
    if any(other != packages[0] for other in packages[1:]):
        warnings.append("Runs came from different package versions; the provenance lists them.")
    return tuple(warnings)
