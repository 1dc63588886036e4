"""A latency target met by a model that is learned on this machine: a real sweep on the digits."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import workers.timing.runtimes
from orchestrator.agenda.survey import survey
from orchestrator.loop.backend import InlineBackend
from tests.orchestrator.sweeps import OFF, Bench, specification
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.report.report import to_text
from workers.models import build_model
from workers.node.node import Node
from workers.settings import ModelSettings
from workers.timing.latency import measure_latency
from workers.timing.runtimes import RuntimeMissingError, check_runtime
from workers.trial import run_trial


@pytest.fixture
def compared(tmp_path: Path) -> Iterator[Comparison]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    node = Node(
        device=torch.device("cpu"),
        cache_dir=tmp_path / "cache",
        artifacts=ArtifactStore(tmp_path / "artifacts"),
        is_shared=False,
    )
    # A share far from what the network can lose: where other work disturbs what the model learns
    # from, one near the end is found out of reach, and the sweep rightly ends there.
    spec = specification(
        arms=["l1"],
        targets={"latency_reduction": 0.3, "latency": {"batch": 64, "threads": 1, "samples": 60}},
        search={"trials": 3, "proxy": True, "finalists": 2},
        recipe={"epochs": 1, "batch_size": 32, "learning_rate": 0.02},
        baseline={"epochs": 5, "learning_rate": 0.1},
        controls=OFF,
        tracking={"artifacts": str(tmp_path / "artifacts")},
    )
    bench = Bench(tmp_path)
    backend = InlineBackend(lambda trial, report: run_trial(trial, node, report))
    assert bench.drive(spec, backend, on=survey(spec)).over
    yield compare(bench.ledger, bench.ledger.sweep(bench.name))
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.integration
def test_the_model_meets_the_target_and_the_clock_stands_beside_it(compared: Comparison) -> None:
    (table,) = compared.tables
    row = table.arms[0]
    assert table.target == "latency-30%"
    (timed,) = row.latency
    assert timed.batch_size == 64
    assert timed.predicted_speed_up is not None
    assert 1.0 - 1.0 / timed.predicted_speed_up == pytest.approx(0.3, abs=0.02)
    met = 1.0 - 1.0 / timed.speed_up
    assert row.on_target == (abs(met - 0.3) <= 0.05 + 1e-9)  # what the clock says, and no more
    text = " ".join(to_text(compared).split())
    assert "30 % less latency" in text
    assert "Predicted" in text
    (model,) = compared.predictors
    assert model.arms == ("latency targets",)
    assert model.samples == 60


class TestRuntimes:
    def test_what_is_not_installed_is_told_with_the_command_that_installs_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers.timing.runtimes, "find_spec", lambda _: None)
        with pytest.raises(RuntimeMissingError, match=r"pip install 'prunesweep\[onnx\]'"):
            check_runtime("onnxruntime", "float32")
        check_runtime("eager", "bfloat16")

    def test_onnxruntime_refuses_what_it_is_not_timed_in(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers.timing.runtimes, "find_spec", lambda name: name)
        with pytest.raises(RuntimeMissingError, match="float32 only"):
            check_runtime("onnxruntime", "bfloat16")
        with pytest.raises(RuntimeMissingError, match="CPUs only"):
            check_runtime("onnxruntime", "float32", torch.device("cuda"))

    @pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
    def test_onnxruntime_runs_what_torch_runs(self) -> None:
        network = build_model(ModelSettings(name="digits_net"), 10, 1)
        (record,) = measure_latency(
            network,
            network,
            (1, 8, 8),
            torch.device("cpu"),
            batch_sizes=(2,),
            runtime="onnxruntime",
            threads=1,
            seconds=0.0,
        )
        assert (record.runtime, record.threads, record.repetitions) == ("onnxruntime", 1, 30)

    def test_threads_are_given_back(self) -> None:
        before = torch.get_num_threads()
        network = build_model(ModelSettings(name="digits_net"), 10, 1)
        (record,) = measure_latency(
            network, network, (1, 8, 8), torch.device("cpu"), batch_sizes=(1,), threads=1
        )
        assert record.threads == 1
        assert torch.get_num_threads() == before
