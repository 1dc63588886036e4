import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from methods import count_cost
from tracking.artifacts import ArtifactStore
from workers.data import describe, load
from workers.networks.checkpoints import weights_hash
from workers.node.node import Node
from workers.rebuild import ExportError, export_trial, load_pruned
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.training.measure import evaluate
from workers.trial import run_trial

DATA = DataSettings(train_images=100, test_images=40, validation_fraction=0.2)
RATIOS = {"conv2": 0.5, "conv3": 0.25, "conv4": 0.5}
Trial = tuple[TrialSpec, dict[str, Any]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("node")
    yield Node(
        device=torch.device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
    )
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def baseline(node: Node) -> Trial:
    spec = TrialSpec(
        kind="baseline",
        model=ModelSettings(name="digits_net"),
        data=DATA,
        data_hash=describe(DATA).data_hash,
        recipe=Recipe(epochs=2, batch_size=32, learning_rate=0.05),
        seed=0,
    )
    return spec, run_trial(spec, node, lambda *_: None)


@pytest.fixture(scope="module")
def pruned(node: Node, baseline: Trial) -> Trial:
    spec = baseline[0].model_copy(
        update={
            "kind": "prune",
            "weights": baseline[1]["weights"],
            "method": "filter_norm",
            "ratios": RATIOS,
        }
    )
    return spec, run_trial(spec, node, lambda *_: None)


@pytest.fixture
def exported(node: Node, pruned: Trial, tmp_path: Path) -> Path:
    return export_trial(*pruned, node.artifacts, tmp_path / "exported")


def test_the_loaded_network_is_the_one_the_trial_measured(
    exported: Path, pruned: Trial, node: Node
) -> None:
    result = pruned[1]
    network = load_pruned(exported)
    assert not network.training
    assert weights_hash(network.state_dict()) == result["weights"]
    assert count_cost(network, (1, 8, 8)) == (result["macs"], result["params"])
    data = load(DATA, node.device, node.cache_dir)
    found = evaluate(network, data.eval_batches(data.take_test(), 64))
    assert found.accuracy == result["test_accuracy"]


def test_the_folder_holds_data_only_and_a_model_card(exported: Path, pruned: Trial) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {"model.json", "plan.json", "weights.safetensors", "README.md"}
    record = json.loads((exported / "model.json").read_text())
    assert record["input_shape"] == [1, 8, 8]
    assert record["num_classes"] == 10
    assert record["classes"] == pruned[1]["classes"] == [str(digit) for digit in range(10)]
    assert record["weights"] == pruned[1]["weights"]
    card = (exported / "README.md").read_text()
    assert f"{pruned[1]['macs']:,}" in card
    assert f"{pruned[1]['test_accuracy']:.2f} %" in card
    assert "load_pruned(" in card
    counts = pruned[1]["class_images"]
    assert [sum(split) for split in zip(*counts, strict=True)] == [80, 20, 40]
    assert "| 9 | 9 | {} | {} | {} |".format(*counts[9]) in card


def test_a_result_of_before_names_no_classes(node: Node, pruned: Trial, tmp_path: Path) -> None:
    spec, result = pruned
    before = {k: v for k, v in result.items() if k not in ("classes", "class_images")}
    folder = export_trial(spec, before, node.artifacts, tmp_path / "before")
    assert json.loads((folder / "model.json").read_text())["classes"] == []
    assert "| logit |" not in (folder / "README.md").read_text()
    load_pruned(folder)


def test_the_card_of_a_search_trial_says_nothing_of_the_test_split(
    node: Node, pruned: Trial, tmp_path: Path
) -> None:
    spec, result = pruned
    searched = {key: value for key, value in result.items() if not key.startswith("test_")}
    export_trial(spec, searched, node.artifacts, tmp_path / "searched")
    card = (tmp_path / "searched" / "README.md").read_text()
    assert f"Accuracy on digits: {result['val_accuracy']:.2f} % (validation)" in card


def test_the_line_on_the_card_loads_the_network(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    line = next(part for part in card.split("`") if "load_pruned(" in part)
    scope: dict[str, Any] = {}
    exec(line.replace("this/folder", str(exported)), scope)
    assert isinstance(scope["network"], torch.nn.Module)


def test_a_dense_network_is_exported_without_a_plan(
    node: Node, baseline: Trial, tmp_path: Path
) -> None:
    folder = export_trial(*baseline, node.artifacts, tmp_path / "dense")
    assert not (folder / "plan.json").exists()
    assert weights_hash(load_pruned(folder).state_dict()) == baseline[1]["weights"]


def test_loading_draws_no_random_numbers(exported: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_pruned(exported)
    assert torch.equal(torch.rand(3), expected)


def test_changed_weights_are_refused(exported: Path) -> None:
    weights = load_file(exported / "weights.safetensors")
    weights["conv1.weight"] += 1e-3
    save_file(weights, exported / "weights.safetensors")
    with pytest.raises(ExportError, match="changed or damaged"):
        load_pruned(exported)


@pytest.mark.parametrize("name", ["model.json", "plan.json", "weights.safetensors"])
def test_a_damaged_file_is_refused(exported: Path, name: str) -> None:
    (exported / name).write_bytes(b"\x80\x04not what it was")
    with pytest.raises(ExportError, match="not a folder written by export"):
        load_pruned(exported)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not a folder written by export"):
        load_pruned(tmp_path)


def test_a_full_folder_is_not_written_over(node: Node, pruned: Trial, exported: Path) -> None:
    (exported / "model.json").write_text("{}")
    with pytest.raises(ExportError, match="not empty"):
        export_trial(*pruned, node.artifacts, exported)
    assert (exported / "model.json").read_text() == "{}"


def test_exported_again_nothing_changes(node: Node, pruned: Trial, exported: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    export_trial(*pruned, node.artifacts, exported)
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a file", "not a folder"),
        ("n" * 300, "File name too long"),
        ("a file/x", "cannot be written"),
    ],
)
def test_what_cannot_be_a_folder_is_said(
    node: Node, pruned: Trial, tmp_path: Path, name: str, problem: str
) -> None:
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(ExportError, match=problem):
        export_trial(*pruned, node.artifacts, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_latency_trial_has_nothing_to_export(node: Node, pruned: Trial, tmp_path: Path) -> None:
    spec, result = pruned
    latency = {key: value for key, value in result.items() if key != "weights"}
    with pytest.raises(ExportError, match="leaves no network"):
        export_trial(spec, latency, node.artifacts, tmp_path / "x")


def test_files_for_other_programs_lie_beside_and_are_told_on_the_card(
    node: Node, pruned: Trial, tmp_path: Path
) -> None:
    folder = export_trial(
        *pruned,
        node.artifacts,
        tmp_path / "exported",
        forms=["torch_export"],
        classes=[f"digit {number}" for number in range(10)],
        standing="Arm **l1** is the best.",
    )
    program: Any = torch.export.load(folder / "network.pt2").module()
    network = load_pruned(folder)
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(program(images), network(images), atol=1e-5)
    assert json.loads((folder / "classes.json").read_text())[9] == "digit 9"
    card = (folder / "README.md").read_text()
    for told in ("`network.pt2`", "1 and 7 images", "digit 9", "Arm **l1** is the best."):
        assert told in card


def test_exported_again_the_card_is_renewed_and_files_are_added(
    node: Node, pruned: Trial, exported: Path
) -> None:
    export_trial(*pruned, node.artifacts, exported, forms=["torch_export"], standing="News.")
    assert "News." in (exported / "README.md").read_text()
    export_trial(*pruned, node.artifacts, exported)
    assert "News." not in (exported / "README.md").read_text()
    assert (exported / "network.pt2").exists()
    assert not load_pruned(exported).training


def test_a_card_of_somebody_elses_is_not_written_over(
    node: Node, pruned: Trial, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(ExportError, match="not empty"):
        export_trial(*pruned, node.artifacts, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
