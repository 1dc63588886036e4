"""What a trial brought back, read from its stored result: fields in place of keys.

A result is stored as JSON and outlives the version that wrote it, so every field may be missing.
`workers.results` holds what is written, and what each number means.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from tracking.errors import IncompleteResultError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Forward time of one network beside the dense one, in milliseconds per batch."""

    batch_size: int
    median_ms: float
    p90_ms: float
    base_median_ms: float
    base_p90_ms: float
    speed_up: float | None = None
    repetitions: int | None = None
    dtype: str | None = None
    device_name: str | None = None
    threads: int | None = None
    runtime: str | None = None
    predicted_speed_up: float | None = None

    def numbers(self) -> dict[str, float]:
        """Return what was measured, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: float(value)
            for name, value in values.items()
            if name != "batch_size" and isinstance(value, int | float)
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Predictions held against networks that were measured and not learned from."""

    samples: int
    r2: float  #: Share of the variance that is predicted.
    spearman: float
    error: float  #: Mean absolute error, share of the measured latency.


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorReport:
    """How good a latency predictor is."""

    samples: int
    correlated: Judged
    independent: Judged
    full_width_error: float
    uniform: tuple[tuple[float, float, float], ...]  #: Share kept, measured ms, predicted ms.
    drift: float
    fit_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Where a trial ran."""

    stored: Mapping[str, Any]  #: All that is known of it.
    device_name: str | None = None
    device: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    packages: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One result; None where the trial's kind or the version that ran it says nothing of it."""

    macs: int | None = None
    params: int | None = None
    base_macs: int | None = None
    base_params: int | None = None
    macs_reduction: float | None = None
    params_reduction: float | None = None
    plan: Mapping[str, Any] | None = None
    kept: Mapping[str, int] | None = None
    input_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    class_images: tuple[tuple[int, int, int], ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    base_weights: str | None = None
    data_hash: str | None = None
    recipe_hash: str | None = None
    policy_hash: str | None = None
    environment: Environment | None = None
    seconds_total: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    test_images: int | None = None
    test_chance: float | None = None
    test_correct: str | None = None
    val_accuracy: float | None = None
    val_accuracy_best: float | None = None
    val_accuracy_before: float | None = None
    val_loss: float | None = None
    val_images: int | None = None
    masked_difference: float | None = None
    epochs_select: float | None = None
    epochs_recover: float | None = None
    samples_seen: int | None = None
    seconds_select: float | None = None
    seconds_recover: float | None = None
    seconds_statistics: float | None = None
    statistics_computed: int | None = None
    statistics_reused: int | None = None
    notes: Mapping[str, float] | None = None
    weights: str | None = None
    artifacts: Mapping[str, str] | None = None
    latency: tuple[Timing, ...] | None = None
    shared_device: bool | None = None
    predictor: str | None = None
    predictor_key: Mapping[str, str] | None = None
    predictor_report: PredictorReport | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> "Result":
        """Read a stored result; one that is not there has no field."""
        known = {
            name: _READ.get(name, _as_it_is)(value)
            for name in _FIELDS
            if (value := (stored or {}).get(name)) is not None
        }
        return cls(**known)

    @property
    def dense_widths(self) -> Mapping[str, int]:
        """Filters of the dense network by group, where something was removed."""
        widths: Mapping[str, int] = (self.plan or {}).get("widths", {})
        return widths

    def reduction(self, axis: str) -> float | None:
        """Share of the dense network's ``macs`` or ``params`` that this one lost."""
        sizes = {"macs": (self.macs, self.base_macs), "params": (self.params, self.base_params)}
        size, base = map(finite, sizes[axis])
        return None if size is None or not base else 1 - size / base


def finite(value: float | None) -> float | None:
    """Return the number if it is one, and finite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def given(value: T | None) -> T:
    """Return a field that every result of the kind at hand has.

    Raises:
        IncompleteResultError: This one does not.
    """
    if value is None:
        raise IncompleteResultError
    return value


def _as_it_is(value: Any) -> Any:
    return value


def _known(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored values of the fields that ``kind`` has."""
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}


def _read_environment(stored: Mapping[str, Any]) -> Environment:
    return Environment(**{**_known(Environment, stored), "stored": stored})


def _read_timings(stored: list[Mapping[str, Any]]) -> tuple[Timing, ...]:
    return tuple(Timing(**_known(Timing, record)) for record in stored)


def _read_report(stored: Mapping[str, Any]) -> PredictorReport:
    parts = _known(PredictorReport, stored)
    judged = {name: Judged(**_known(Judged, parts[name])) for name in ("correlated", "independent")}
    uniform = tuple(
        (float(at["share"]), float(at["measured_ms"]), float(at["predicted_ms"]))
        for at in parts["uniform"]
    )
    return PredictorReport(**{**parts, **judged, "uniform": uniform})


_FIELDS: Final = tuple(field.name for field in fields(Result))
_READ: Final[Mapping[str, Any]] = {
    "environment": _read_environment,
    "input_shape": tuple,
    "classes": tuple,
    "class_images": lambda stored: tuple(map(tuple, stored)),
    "mean": tuple,
    "std": tuple,
    "latency": _read_timings,
    "predictor_report": _read_report,
}
