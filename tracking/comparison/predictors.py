"""Latency predictors as the records tell of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from tracking.comparison.comparison import Judged, Predictor
from tracking.comparison.runs import Run, usable
from tracking.places import Role


def predictors_of(runs: Sequence[Run]) -> tuple[Predictor, ...]:
    """List the predictors of a sweep, each with the arms that train against it."""
    found: dict[int, list[Run]] = {}
    for run in usable(run for run in runs if run.place.role is Role.PREDICTOR):
        found.setdefault(run.trial.id, []).append(run)
    return tuple(_predictor(same) for same in found.values())


def _predictor(runs: Sequence[Run]) -> Predictor:
    result = runs[0].result
    report: Mapping[str, Any] = result["predictor_report"]
    return Predictor(
        arms=tuple(run.place.arm for run in runs),
        samples=int(report["samples"]),
        correlated=_judged(report["correlated"]),
        independent=_judged(report["independent"]),
        full_width_error=float(report["full_width_error"]),
        uniform=tuple(
            (float(at["share"]), float(at["measured_ms"]), float(at["predicted_ms"]))
            for at in report["uniform"]
        ),
        drift=float(report["drift"]),
        seconds=runs[0].seconds,
        key={str(name): str(value) for name, value in result["predictor_key"].items()},
        shared_device=bool(result.get("shared_device", False)),
    )


def _judged(found: Mapping[str, Any]) -> Judged:
    return Judged(
        samples=int(found["samples"]),
        r2=float(found["r2"]),
        spearman=float(found["spearman"]),
        error=float(found["error"]),
    )
