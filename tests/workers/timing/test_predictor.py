"""Latency predictors: measured on the device, stored as data, refused where they do not hold."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.structure.latency_predictor import PredictorSettings
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.errors import ArtifactCorruptError
from workers.models import build_model
from workers.networks.shapes import layout_of
from workers.node.node import Node, resolve_device
from workers.settings import DataSettings, LayerSettings, ModelSettings, Recipe, TrialSpec
from workers.timing.predictor import (
    PredictorMismatchError,
    PredictorMissingError,
    predictor_of,
    read_predictor,
)
from workers.trial import run_trial

DATA = DataSettings(train_images=200, test_images=60, validation_fraction=0.2)
LATENCY = {"cost": "latency", "samples": 30, "batch_size": 4}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Bench:
    """A predictor that was measured, and trials that may train against it."""

    node: Node
    result: dict[str, Any]
    reports: list[dict[str, float]]

    def trial(self, **changes: object) -> TrialSpec:
        base = TrialSpec(
            kind="prune",
            model=ModelSettings(name="digits_net"),
            data=DATA,
            data_hash=describe(DATA).data_hash,
            recipe=Recipe(epochs=1, batch_size=32),
            seed=1,
            method="weight_gates",
            method_settings=LATENCY,
            predictor=self.result.get("predictor"),
        )
        return TrialSpec.model_validate({**base.model_dump(), **changes})

    def load(self, store: ArtifactStore | None = None, **changes: object) -> Any:
        spec = self.trial(**changes)
        info = describe(spec.data)
        network = build_model(spec.model, info.num_classes, info.channels)
        layout = layout_of(network, info.input_shape, spec.layers)
        return predictor_of(spec, store or self.node.artifacts, layout, info.num_classes, CPU)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("predictor")
    node = Node(
        device=resolve_device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
        is_shared=False,
    )
    reports: list[dict[str, float]] = []
    spec = Bench(node, {}, []).trial(
        kind="predictor", method=None, method_settings={"samples": 30, "batch_size": 4}
    )
    result = run_trial(spec, node, lambda _step, values: reports.append(values))
    yield Bench(node, json.loads(json.dumps(result)), reports)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_the_result_says_what_was_measured_where(bench: Bench) -> None:
    result = bench.result
    assert result["predictor_report"]["samples"] == 30
    assert result["predictor_key"]["batch"] == "4"
    assert result["predictor_key"]["CPU threads"] == "1"
    assert result["predictor_key"]["torch"] == torch.__version__
    assert result["plan"] is None
    assert result["macs"] == result["base_macs"]
    assert result["shared_device"] is False
    assert {"predictor_correlated_r2", "predictor_drift"} < result["notes"].keys()
    assert bench.reports[-1] == {"networks_timed": 30.0}


def test_the_uniform_widths_were_timed(bench: Bench) -> None:
    uniform = bench.result["predictor_report"]["uniform"]
    assert uniform[-1]["share"] == 1.0
    assert len(uniform) == 10
    assert all(at["measured_ms"] > 0.0 for at in uniform)


def test_it_is_loaded_by_the_content_it_is_named_by(bench: Bench) -> None:
    made = bench.load()
    assert made.report.samples == 30
    assert made.dense_ms == pytest.approx(
        bench.result["predictor_report"]["uniform"][-1]["predicted_ms"]
    )


def test_files_hold_tensors_and_json(bench: Bench) -> None:
    files = bench.result["artifacts"]
    assert set(files) == {"predictor", "predictor_report"}
    data = bench.node.artifacts.read_bytes(files["predictor"])
    with pytest.raises((pickle.UnpicklingError, ValueError)):  # its first bytes decide
        pickle.loads(data)
    report = json.loads(bench.node.artifacts.read_bytes(files["predictor_report"]))
    assert report["key"] == bench.result["predictor_key"]


def test_a_method_without_latency_loads_none(bench: Bench) -> None:
    assert bench.load(method_settings={}) is None


def test_another_batch_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(PredictorMismatchError, match="batch was 4 and is 8 here"):
        bench.load(method_settings={**LATENCY, "batch_size": 8})


def test_another_number_type_and_other_layers_are_refused(bench: Bench) -> None:
    with pytest.raises(PredictorMismatchError) as caught:
        bench.load(
            recipe=Recipe(epochs=1, precision="bfloat16"), layers=LayerSettings(protect=("conv3",))
        )
    assert [name for name, _, _ in caught.value.differences] == ["layers", "number type"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_other_threads_versions_and_devices_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "__version__", "9.9")
    monkeypatch.setattr("workers.timing.predictor.device_name", lambda _device: "an abacus")
    with pytest.raises(PredictorMismatchError) as caught:
        bench.load()
    assert [name for name, _, _ in caught.value.differences] == ["device", "torch", "CPU threads"]
    assert "is an abacus here" in str(caught.value)


def test_none_named_and_none_stored_are_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(PredictorMissingError, match="none is named"):
        bench.load(predictor=None)
    with pytest.raises(PredictorMissingError, match="not in the artifact store"):
        bench.load(store=ArtifactStore(tmp_path))


def test_a_changed_file_is_refused(bench: Bench, tmp_path: Path) -> None:
    content, store = bench.result["predictor"], ArtifactStore(tmp_path)
    path = bench.result["artifacts"]["predictor"]
    store.write_bytes(path, bench.node.artifacts.read_bytes(path) + b"x")
    with pytest.raises(ArtifactCorruptError):
        read_predictor(store, content)


def test_a_shared_device_is_told(bench: Bench) -> None:
    spec = bench.trial(
        kind="predictor", method=None, method_settings={"samples": 20, "batch_size": 1}
    )
    assert PredictorSettings(**spec.method_settings).samples == 20
    result = run_trial(spec, replace(bench.node, is_shared=True), lambda _step, _values: None)
    assert result["shared_device"] is True
