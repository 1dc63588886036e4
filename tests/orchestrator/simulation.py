"""A stand-in for training: results by formula, from what a trial's specification says.

As ``tests.orchestrator.simulation:run_trial`` it takes the place of ``workers.trial:run_trial`` in
a worker; `simulate` alone needs no machine. Costs are the true ones, of the shrunk widths.
"""

import hashlib
import math
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from methods import Layout, removed_count
from tracking.answers import pack_answers
from workers.data import DataInfo, describe
from workers.models import build_model
from workers.networks.shapes import layout_of
from workers.node.node import Node
from workers.results import (
    LatencyRecord,
    LatencyResult,
    PredictorResult,
    ProxyResult,
    Report,
    ResultOnTest,
    ShapeResult,
    TrialResult,
)
from workers.settings import DataSettings, LayerSettings, ModelSettings, TrialSpec, content_hash

RUNNER = "tests.orchestrator.simulation:run_trial"
SECONDS = "PRUNESWEEP_SIMULATION_SECONDS"  #: How long a trial takes; 0 where it is not set.
LOG = "PRUNESWEEP_SIMULATION_LOG"  #: File that is told when a body begins and ends.
REPORTS = 3

ENVIRONMENT = {
    "python": "3.11",
    "packages": {"torch": "2.15"},
    "commit": "0123abc",
    "dirty": False,
    "device": "cpu",
    "device_name": "Simulation",
    "threads": 1,
}


def run_trial(spec: TrialSpec, node: Node, report: Report) -> dict[str, Any]:
    """Simulate a trial in a worker, for the time the environment asks for, and log that it ran."""
    note("begin", spec)
    result = simulate(spec, report, float(os.environ.get(SECONDS, "0")))
    if spec.is_exclusive:
        result["shared_device"] = node.is_shared
    note("end", spec)
    return result


def simulate(spec: TrialSpec, report: Report, seconds: float = 0.0) -> dict[str, Any]:
    """Return what the specification determines, after three reports (none of a latency)."""
    kept = _kept(spec)
    if spec.kind == "latency":
        time.sleep(seconds)
        return _latency_result(spec, kept).to_json()
    if spec.kind == "predictor":
        time.sleep(seconds)
        return _predictor_result(spec, kept).to_json()
    accuracy = _accuracy(spec, kept)
    if spec.kind == "proxy":
        time.sleep(seconds / 10)
        return _proxy_result(spec, kept, accuracy / 2).to_json()
    for step in range(REPORTS):
        time.sleep(seconds / REPORTS)
        so_far = accuracy * (step + 1) / REPORTS
        report(step, {"train_loss": 100.0 - so_far, "val_accuracy": so_far})
    return _trial_result(spec, kept, accuracy).to_json()


def note(event: str, spec: TrialSpec) -> None:
    """Append a line to the log, where there is one; it is on the disk when this returns."""
    path = os.environ.get(LOG)
    if path is None:
        return
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, f"{event} {spec.uid}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_log(path: Path, event: str) -> list[str]:
    """Return the trials that ``event`` was noted of, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{event} ")]


def _kept(spec: TrialSpec) -> Mapping[str, int]:
    """Filters that stay, by group."""
    widths = _layout(_text(spec.model), _text(spec.data), _text(spec.layers)).widths
    if spec.plan is not None:
        return {group: len(kept) for group, kept in spec.plan["kept"].items()}
    if spec.kind not in {"prune", "proxy"}:
        return widths
    if not spec.ratios and spec.target is not None:  # the method allocates
        half = 1.0 - spec.target.reduction / 2
        return {group: max(1, round(width * half)) for group, width in widths.items()}
    return {
        group: width - removed_count(group, width, spec.ratios[group])
        for group, width in widths.items()
    }


def _text(settings: ModelSettings | DataSettings | LayerSettings) -> str:
    return settings.model_dump_json()


@cache
def _info(data: str) -> DataInfo:
    return describe(DataSettings.model_validate_json(data))


@cache
def _layout(model: str, data: str, layers: str) -> Layout:
    info = _info(data)
    settings = ModelSettings.model_validate_json(model)
    network = build_model(settings, info.num_classes, info.input_shape[0])
    return layout_of(network, info.input_shape, LayerSettings.model_validate_json(layers))


def _chance(*of: object) -> float:
    """Return a number in [0, 1) that ``of`` determines, everywhere the same."""
    digest = hashlib.sha256(repr(of).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _accuracy(spec: TrialSpec, kept: Mapping[str, int]) -> float:
    """Percent, to a tenth so that ties occur: each group has its price, each method its own."""
    widths = _layout(_text(spec.model), _text(spec.data), _text(spec.layers)).widths
    lost = math.fsum(
        12 * _chance("price", group) * (1 - count / widths[group]) ** 2
        for group, count in sorted(kept.items())
    )
    method = 3 * _chance("method", spec.method, content_hash(spec.method_settings))
    return round(96 - lost - method - _chance("seed", spec.seed, spec.method, spec.kind), 1)


def _shape_result(spec: TrialSpec, kept: Mapping[str, int]) -> ShapeResult:
    layout = _layout(_text(spec.model), _text(spec.data), _text(spec.layers))
    cost, info = layout.cost, _info(_text(spec.data))
    counts = np.array([kept[group] for group in cost.groups], dtype=np.int64)
    macs, params = cost.cost("macs", counts), cost.cost("params", counts)
    plan = {
        "format": 1,
        "policy": layout.policy.kind,
        "widths": dict(layout.widths),
        "kept": {group: list(range(count)) for group, count in kept.items()},
    }
    is_pruned = spec.plan is not None or spec.kind in {"prune", "proxy"}
    return ShapeResult(
        macs=macs,
        params=params,
        base_macs=cost.dense("macs"),
        base_params=cost.dense("params"),
        macs_reduction=1 - macs / cost.dense("macs"),
        params_reduction=1 - params / cost.dense("params"),
        plan=plan if is_pruned else None,
        kept=dict(kept) if is_pruned else {},
        input_shape=list(info.input_shape),
        num_classes=info.num_classes,
        classes=list(info.classes),
        class_images=[list(counts) for counts in info.class_images],
        mean=list(info.mean),
        std=list(info.std),
        base_weights=spec.weights,
        data_hash=spec.data_hash,
        recipe_hash=content_hash(spec.recipe.model_dump(mode="json")),
        policy_hash=content_hash(spec.layers.model_dump(mode="json")),
        environment=ENVIRONMENT,
        seconds_total=1.0,
    )


def _trial_result(spec: TrialSpec, kept: Mapping[str, int], accuracy: float) -> TrialResult:
    return TrialResult(
        shape=_shape_result(spec, kept),
        val_accuracy=accuracy,
        val_accuracy_best=accuracy,
        val_accuracy_before=accuracy / 2,
        val_loss=1 - accuracy / 100,
        test=_on_test(spec, accuracy),
        masked_difference=0.0,
        epochs_select=0.0,
        epochs_recover=float(spec.recipe.epochs),
        samples_seen=spec.recipe.epochs * 1000,
        seconds_select=0.25,
        seconds_recover=0.5,
        seconds_statistics=0.0,
        statistics_computed=0,
        statistics_reused=0,
        notes={},
        weights=content_hash(["weights", spec.uid]),
        artifacts={},
    )


def _on_test(spec: TrialSpec, accuracy: float) -> ResultOnTest | None:
    if not spec.reads_test:
        return None
    images = 10_000
    tested = round(accuracy - _chance("test", spec.seed), 2)
    correct = np.arange(images) < round(tested / 100 * images)
    return ResultOnTest(
        test_accuracy=tested,
        test_loss=1 - accuracy / 100,
        test_images=images,
        test_chance=10.0,
        test_correct=pack_answers(correct),
    )


def _proxy_result(spec: TrialSpec, kept: Mapping[str, int], accuracy: float) -> ProxyResult:
    return ProxyResult(
        shape=_shape_result(spec, kept),
        val_accuracy=accuracy,
        val_loss=1 - accuracy / 100,
        val_images=spec.judge_images or 1,
        masked_difference=0.0,
        samples_seen=spec.recipe.recalibration_images,
        seconds_select=0.1,
        seconds_statistics=0.0,
        statistics_computed=0,
        statistics_reused=0,
        notes={},
    )


def _predictor_result(spec: TrialSpec, kept: Mapping[str, int]) -> PredictorResult:
    judged = {"samples": 10, "r2": 0.9, "spearman": 0.95, "error": 0.05}
    uniform = [{"share": 1.0, "measured_ms": 2.0, "predicted_ms": 2.1}]
    return PredictorResult(
        shape=_shape_result(spec, kept),
        predictor=content_hash(["predictor", spec.uid]),
        predictor_key={"device": "Simulation", "batch": "32"},
        predictor_report={
            "samples": spec.method_settings["samples"],
            "correlated": judged,
            "independent": judged,
            "full_width_error": 0.05,
            "uniform": uniform,
            "drift": 0.01,
            "fit_seconds": 1.0,
        },
        notes={"predictor_correlated_r2": 0.9},
        shared_device=False,
        artifacts={},
    )


def _latency_result(spec: TrialSpec, kept: Mapping[str, int]) -> LatencyResult:
    shape = _shape_result(spec, kept)
    record = LatencyRecord(
        batch_size=1,
        median_ms=shape.macs / 1e6,
        p90_ms=shape.macs / 0.9e6,
        base_median_ms=shape.base_macs / 1e6,
        base_p90_ms=shape.base_macs / 0.9e6,
        speed_up=shape.base_macs / shape.macs,
        repetitions=10,
        dtype="float32",
        device_name="Simulation",
        threads=1,
    )
    return LatencyResult(shape=shape, latency=[record], shared_device=False)
