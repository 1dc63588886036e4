"""Stored runs read as numbers: what a group of them says about accuracy, cost and effort."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tracking.comparison.comparison import (
    Failure,
    Latency,
    NetworkCost,
    Runs,
    Width,
)
from tracking.places import Place
from tracking.records import EntryRecord, TrialRecord, TrialState
from tracking.results import Result, finite
from tracking.statistics.summary import Summary, summarise

DIVERGED = "DivergedError"  #: Begins the cause of a failure by a loss that is not finite.


@dataclass(frozen=True, kw_only=True)
class Run:
    """A place in the sweep and the trial that fills it."""

    entry: EntryRecord
    trial: TrialRecord

    @property
    def place(self) -> Place:
        """Where in the sweep it is wanted."""
        return self.entry.place

    @cached_property
    def result(self) -> Result:
        """What the trial brought back; without any field until it completed."""
        return Result.read(self.trial.result if self.is_completed else None)

    @property
    def is_completed(self) -> bool:
        """The trial brought a result back, whatever is in it."""
        return self.trial.state is TrialState.COMPLETED

    @property
    def is_proxy(self) -> bool:
        """Its trial judges a proposal without training it."""
        return bool(self.trial.spec.get("kind") == "proxy")

    @property
    def goal(self) -> Any:
        """The field of the result that this run is there for."""
        return getattr(self.result, self.place.role.result_field)

    @property
    def accuracy(self) -> float | None:
        """The accuracy this run is there for; None where it gave none, or times something."""
        return finite(self.goal) if self.place.role.gives_accuracy else None

    @property
    def is_usable(self) -> bool:
        """The run came back with a finite accuracy, or with what was timed."""
        if self.place.role.gives_accuracy:
            return self.accuracy is not None
        return bool(self.goal)

    @property
    def own_seconds(self) -> float:
        """Device time of the run itself; of one that broke off, its last attempt's wall time."""
        spent = finite(Result.read(self.trial.result).seconds_total)
        if spent is not None:
            return spent
        if self.trial.started_at is None or self.trial.ended_at is None:
            return 0.0
        return max(0.0, (self.trial.ended_at - self.trial.started_at).total_seconds())

    @property
    def borrowed_seconds(self) -> float:
        """Cost of statistics the run relied on and another run had computed."""
        if self.result.statistics_computed:
            return 0.0
        return finite(self.result.seconds_statistics) or 0.0

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
        select, recover = finite(self.result.epochs_select), finite(self.result.epochs_recover)
        return None if select is None or recover is None else select + recover

    @property
    def is_over_budget(self) -> bool:
        """The run trained for more epochs than its recipe allows."""
        budget = self.trial.spec.get("recipe", {}).get("epochs")
        return self.epochs is not None and budget is not None and self.epochs > budget + 1e-6

    @property
    def is_collapsed(self) -> bool:
        """Some group that had several filters was cut down to one."""
        dense, kept = self.result.dense_widths, self.result.kept or {}
        return any(n == 1 and dense.get(group, 2) > 1 for group, n in kept.items())


def usable(runs: Iterable[Run]) -> list[Run]:
    """Keep the runs that came back with what they are there for."""
    return [run for run in runs if run.is_usable]


def count(runs: Sequence[Run]) -> Runs:
    """Say what became of the runs that were asked for."""
    states = [run.trial.state for run in runs]
    back = [run for run in runs if run.is_completed]
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
    known = [value for run in runs if (value := finite(of(run))) is not None]
    return math.fsum(known) / len(known) if known else None


def summary_of(
    runs: Sequence[Run],
    of: Callable[[Result], float | None],
    images: Callable[[Result], int | None] = lambda _: None,
) -> Summary | None:
    """Summarise one number of the results, each measured on so many images; None: no run has it."""
    values = [value for run in runs if (value := finite(of(run.result))) is not None]
    known = {images(run.result) for run in runs}
    return summarise(values, known.pop() if len(known) == 1 else None) if values else None


def cost_of(runs: Sequence[Run]) -> NetworkCost | None:
    """Average the size of the shrunk networks; None before a run came back."""
    macs = average(runs, lambda run: run.result.macs)
    params = average(runs, lambda run: run.result.params)
    base_macs = average(runs, lambda run: run.result.base_macs)
    base_params = average(runs, lambda run: run.result.base_params)
    if macs is None or params is None or not base_macs or not base_params:
        return None
    return NetworkCost(
        macs=macs,
        params=params,
        base_macs=base_macs,
        base_params=base_params,
        flops=2 * macs,
        macs_reduction=1 - macs / base_macs,
        params_reduction=1 - params / base_params,
    )


def widths_of(runs: Sequence[Run]) -> tuple[Width, ...]:
    """Average the filters kept per group over the runs that came back."""
    shapes = [kept for run in runs if (kept := run.result.kept)]
    plans = [run.result.dense_widths for run in runs if run.result.plan]
    dense: Mapping[str, int] = plans[0] if plans else {}
    widths = []
    for group in shapes[0] if shapes else ():
        counts = [shape[group] for shape in shapes if group in shape]
        mean, width = sum(counts) / len(counts), dense.get(group)
        share = mean / width if width else None
        widths.append(Width(group=group, kept=mean, dense=width, share=share))
    return tuple(widths)


def latencies_of(runs: Sequence[Run]) -> tuple[Latency, ...]:
    """List what was measured, by batch size; the speed-up is computed here."""
    found = [
        Latency(
            batch_size=timing.batch_size,
            median_ms=timing.median_ms,
            p90_ms=timing.p90_ms,
            base_median_ms=timing.base_median_ms,
            base_p90_ms=timing.base_p90_ms,
            speed_up=timing.base_median_ms / timing.median_ms,
            device=timing.device_name or _device(run),
            dtype=timing.dtype or "unknown type",
            shared_device=bool(run.result.shared_device),
            runtime=timing.runtime or "eager",
            predicted_speed_up=timing.predicted_speed_up,
        )
        for run in runs
        for timing in run.result.latency or ()
    ]
    return tuple(sorted(found, key=lambda latency: latency.batch_size))


def failure_of(run: Run) -> Failure | None:
    """Describe a run that gave no usable result; None for the others and those still to come."""
    trial = run.trial
    if not trial.state.is_final or run.is_usable:
        return None
    if trial.state is TrialState.COMPLETED:
        cause, error = "not finite", f"{run.place.role.result_field} is {run.goal!r}"
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
    here = run.result.environment
    return (here and (here.device_name or here.device)) or "unknown device"
