"""Stored runs read as numbers: what a group of them says about accuracy, cost and effort."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tracking.comparison.comparison import (
    Cost,
    Failure,
    Latency,
    Runs,
    SearchCost,
    UniformCheck,
    Width,
)
from tracking.comparison.statistics import Summary, summarise
from tracking.places import Place
from tracking.records import EntryRecord, TrialRecord, TrialState

DIVERGED = "DivergedError"  #: Begins the cause of a failure by a loss that is not finite.


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A place in the sweep and the trial that fills it."""

    entry: EntryRecord
    trial: TrialRecord

    @property
    def place(self) -> Place:
        """Where in the sweep it is wanted."""
        return self.entry.place

    @property
    def result(self) -> Mapping[str, Any]:
        """What the trial brought back; empty until it completed."""
        if self.trial.state is not TrialState.COMPLETED:
            return {}
        return self.trial.result or {}

    @property
    def is_completed(self) -> bool:
        """The trial brought a result back, whatever is in it."""
        return self.trial.state is TrialState.COMPLETED

    def number(self, key: str) -> float | None:
        """Return a finite number of the result, or None."""
        value = self.result.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        return None

    @property
    def judged_by(self) -> str:
        """Key of what this run is there for."""
        return self.place.role.result_key

    @property
    def is_usable(self) -> bool:
        """The run came back with a finite accuracy, or with what was timed."""
        if self.place.role.gives_accuracy:
            return self.number(self.judged_by) is not None
        return bool(self.result.get(self.judged_by))

    @property
    def own_seconds(self) -> float:
        """Device time of the run itself; of one that broke off, its last attempt's wall time."""
        spent = (self.trial.result or {}).get("seconds_total")
        if isinstance(spent, int | float) and math.isfinite(spent):
            return float(spent)
        if self.trial.started_at is None or self.trial.ended_at is None:
            return 0.0
        return max(0.0, (self.trial.ended_at - self.trial.started_at).total_seconds())

    @property
    def borrowed_seconds(self) -> float:
        """Cost of statistics the run relied on and another run had computed."""
        if self.number("statistics_computed"):
            return 0.0
        return self.number("seconds_statistics") or 0.0

    @property
    def seconds(self) -> float:
        """Device time charged to the run: its own, and what it borrowed."""
        return self.own_seconds + self.borrowed_seconds

    @property
    def is_diverged(self) -> bool:
        """The run ended, one way or the other, with a number that is not finite."""
        if self.trial.state is TrialState.FAILED:
            return (self.trial.cause or "").startswith(DIVERGED)
        return self.trial.state is TrialState.COMPLETED and not self.is_usable

    @property
    def epochs(self) -> float | None:
        """Epochs trained, selection included."""
        select, recover = self.number("epochs_select"), self.number("epochs_recover")
        return None if select is None or recover is None else select + recover

    @property
    def is_over_budget(self) -> bool:
        """The run trained for more epochs than its recipe allows."""
        budget = self.trial.spec.get("recipe", {}).get("epochs")
        return self.epochs is not None and budget is not None and self.epochs > budget + 1e-6

    @property
    def is_collapsed(self) -> bool:
        """Some group that had several filters was cut down to one."""
        dense = (self.result.get("plan") or {}).get("widths", {})
        kept: Mapping[str, int] = self.result.get("kept") or {}
        return any(n == 1 and dense.get(group, 2) > 1 for group, n in kept.items())


def usable(runs: Iterable[Run]) -> list[Run]:
    """Keep the runs that came back with what they are there for."""
    return [run for run in runs if run.is_usable]


def count(runs: Sequence[Run]) -> Runs:
    """Say what became of the runs that were asked for."""
    states = [run.trial.state for run in runs]
    back = [run for run in runs if run.result]
    return Runs(
        asked=len(runs),
        completed=len(usable(runs)),
        not_finite=sum(run.is_diverged for run in runs),
        stopped=states.count(TrialState.STOPPED),
        failed=states.count(TrialState.FAILED),
        cancelled=states.count(TrialState.CANCELLED),
        waiting=states.count(TrialState.PENDING) + states.count(TrialState.RUNNING),
        collapsed=sum(run.is_collapsed for run in back),
        over_budget=sum(run.is_over_budget for run in back),
    )


def average(runs: Iterable[Run], of: Callable[[Run], float | None]) -> float | None:
    """Average what the runs know; None where none knows it."""
    known = [value for run in runs if (value := of(run)) is not None]
    return math.fsum(known) / len(known) if known else None


def summary_of(runs: Iterable[Run], key: str) -> Summary | None:
    """Summarise one number of the results; None where no run has it."""
    values = [value for run in runs if (value := run.number(key)) is not None]
    return summarise(values) if values else None


def cost_of(runs: Sequence[Run]) -> Cost | None:
    """Average the size of the shrunk networks; None before a run came back."""
    found = {
        key: average(runs, lambda run, key=key: run.number(key))  # type: ignore[misc]
        for key in ("macs", "params", "base_macs", "base_params")
    }
    macs, params = found["macs"], found["params"]
    base_macs, base_params = found["base_macs"], found["base_params"]
    if macs is None or params is None or not base_macs or not base_params:
        return None
    return Cost(
        macs=macs,
        params=params,
        base_macs=base_macs,
        base_params=base_params,
        flops=2 * macs,
        macs_reduction=1 - macs / base_macs,
        params_reduction=1 - params / base_params,
    )


def reduction_of(run: Run, axis: str) -> float | None:
    """Share of ``axis`` (``macs`` or ``params``) this run's network lost."""
    size, base = run.number(axis), run.number(f"base_{axis}")
    return None if size is None or not base else 1 - size / base


def search_cost(runs: Sequence[Run]) -> SearchCost:
    """Add up a study, whatever became of its trials; what served twice is paid once."""
    trials = {run.trial.id: run for run in runs}
    own = math.fsum(run.own_seconds for run in trials.values())
    computed = any(run.number("statistics_computed") for run in runs)
    borrowed = max((run.borrowed_seconds for run in runs), default=0.0)
    return SearchCost(
        proposals=len(runs),
        trials=len(trials),
        seconds=own if computed else own + borrowed,
        runs=count(runs),
    )


def uniform_check(search: Sequence[Run]) -> UniformCheck | None:
    """Hold the best proposal against the first, uniform ratios; None unless both came back."""
    scores = {
        run.place.index: score
        for run in sorted(search, key=lambda run: run.place.index)
        if (score := run.number("val_accuracy")) is not None
    }
    if 0 not in scores or len(scores) < 2:
        return None
    best = max(scores, key=lambda index: scores[index])  # the earliest of equals
    return UniformCheck(
        uniform=scores[0],
        best=scores[best],
        gain=scores[best] - scores[0],
        best_index=best,
        beaten=scores[best] > scores[0],
    )


def widths_of(runs: Sequence[Run]) -> tuple[Width, ...]:
    """Average the filters kept per group over the runs that came back."""
    shapes = [run.result["kept"] for run in runs if run.result.get("kept")]
    plans = [run.result["plan"]["widths"] for run in runs if run.result.get("plan")]
    dense: Mapping[str, int] = plans[0] if plans else {}
    widths = []
    for group in shapes[0] if shapes else ():
        kept = [shape[group] for shape in shapes if group in shape]
        mean, width = sum(kept) / len(kept), dense.get(group)
        share = mean / width if width else None
        widths.append(Width(group=group, kept=mean, dense=width, share=share))
    return tuple(widths)


def latencies_of(runs: Sequence[Run]) -> tuple[Latency, ...]:
    """List what was measured, by batch size; the speed-up is computed here."""
    found = [
        Latency(
            batch_size=int(record["batch_size"]),
            median_ms=float(record["median_ms"]),
            p90_ms=float(record["p90_ms"]),
            base_median_ms=float(record["base_median_ms"]),
            base_p90_ms=float(record["base_p90_ms"]),
            speed_up=float(record["base_median_ms"]) / float(record["median_ms"]),
            device=str(record.get("device_name") or _device(run)),
            dtype=str(record.get("dtype") or "unknown type"),
            shared_device=bool(run.result.get("shared_device", False)),
        )
        for run in runs
        for record in run.result.get("latency", ())
    ]
    return tuple(sorted(found, key=lambda latency: latency.batch_size))


def failure_of(run: Run) -> Failure | None:
    """Describe a run that gave no usable result; None for the others and those still to come."""
    trial = run.trial
    if not trial.state.is_final or run.is_usable:
        return None
    if trial.state is TrialState.COMPLETED:
        cause, error = "not finite", f"{run.judged_by} is {run.result.get(run.judged_by)!r}"
    else:
        lines = (trial.error or "").strip().splitlines()
        cause, last = trial.cause or "", lines[-1] if lines else ""
        error = "" if last in cause else last
    return Failure(
        **asdict(run.place),
        state=str(trial.state),
        cause=cause,
        error=error,
    )


def _device(run: Run) -> str:
    environment = run.result.get("environment") or {}
    return str(environment.get("device_name") or environment.get("device") or "unknown device")
