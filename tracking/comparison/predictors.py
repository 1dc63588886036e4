"""Latency predictors as the records tell of them."""

from collections.abc import Sequence

from tracking.comparison.comparison import Predictor
from tracking.comparison.runs import Run, usable
from tracking.places import Role
from tracking.results import given


def predictors_of(runs: Sequence[Run]) -> tuple[Predictor, ...]:
    """List the predictors of a sweep, each with the arms that train against it."""
    found: dict[int, list[Run]] = {}
    for run in usable(run for run in runs if run.place.role is Role.PREDICTOR):
        found.setdefault(run.trial.id, []).append(run)
    return tuple(_predictor(same) for same in found.values())


def _predictor(runs: Sequence[Run]) -> Predictor:
    result = runs[0].result
    report = given(result.predictor_report)
    return Predictor(
        arms=tuple(run.place.arm or "latency targets" for run in runs),
        samples=report.samples,
        correlated=report.correlated,
        independent=report.independent,
        full_width_error=report.full_width_error,
        uniform=report.uniform,
        drift=report.drift,
        seconds=runs[0].seconds,
        key=given(result.predictor_key),
        shared_device=bool(result.shared_device),
    )
