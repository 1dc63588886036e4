"""Gates priced by MACs and by latency, and free ones, beside L1: a real sweep on the digits."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from orchestrator.loop.backend import InlineBackend
from tests.orchestrator.sweeps import OFF, Bench, specification
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.report.report import to_text
from workers.node.node import Node
from workers.trial import run_trial

pytestmark = pytest.mark.slow

GATES: dict[str, Any] = {"method": "weight_gates", "allocation": "method"}
LATENCY = {"cost": "latency", "samples": 60, "batch_size": 4}
ARMS = [
    "l1",
    {**GATES, "name": "macs"},
    {**GATES, "name": "latency", "settings": LATENCY},
    {**GATES, "name": "free", "method": "free_gates"},
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("gates")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    node = Node(
        device=torch.device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
        is_shared=False,
    )
    spec = specification(
        arms=ARMS,
        controls=OFF,
        search={"trials": 1},
        recipe={"epochs": 5, "batch_size": 32, "learning_rate": 0.02},
        baseline={"epochs": 8, "learning_rate": 0.1},
    )
    made = Bench(folder)
    backend = InlineBackend(lambda trial, report: run_trial(trial, node, report))
    assert made.drive(spec, backend).over
    yield made
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def results(bench: Bench, **where: Any) -> list[dict[str, Any]]:
    found = bench.trials_of(**where)
    assert not [trial.error for trial in found if trial.result is None]
    return [trial.result for trial in found if trial.result is not None]


def test_every_arm_meets_the_target(bench: Bench) -> None:
    for arm in ("l1", "macs", "latency", "free"):
        for result in results(bench, role="confirm", arm=arm):
            assert result["macs_reduction"] == pytest.approx(0.5, abs=0.01)
            assert result["masked_difference"] < 1e-3
            assert result["test_accuracy"] > 50.0
            assert result["epochs_select"] + result["epochs_recover"] == pytest.approx(5.0)
    rows = compare(bench.ledger, bench.ledger.sweep(bench.name)).tables[0].rows
    assert all(row.on_target and row.latency for row in rows)


def test_the_phase_is_charged_and_noted(bench: Bench) -> None:
    for arm in ("macs", "latency", "free"):
        for result in results(bench, role="confirm", arm=arm):
            assert 0.0 < result["epochs_select"] <= 1.0
            notes = result["notes"]
            assert notes["gate_steps"] >= 1.0
            assert 0.0 < notes["cost_at_freeze"] <= 1.0
            assert ("predicted_latency_ms" in notes) == (arm == "latency")


def test_the_predictor_is_measured_once_and_its_report_is_shown(bench: Bench) -> None:
    (made,) = results(bench, role="predictor")
    trials = bench.trials_of(role="confirm", arm="latency")
    assert {trial.spec["predictor"] for trial in trials} == {made["predictor"]}
    comparison = compare(bench.ledger, bench.ledger.sweep(bench.name))
    (shown,) = comparison.predictors
    assert shown.arms == ("latency",)
    assert shown.samples == 60
    assert "Latency predictor of latency" in to_text(comparison)
    rows = {row.name: row for row in comparison.tables[0].rows}
    assert rows["latency"].predictor_seconds == pytest.approx(made["seconds_total"])
