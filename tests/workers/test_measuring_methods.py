"""Methods that measure or learn first, in real trials: charged alike whether computed or reused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import CostTarget
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.node.node import Node, resolve_device
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.trial import run_trial

DATA = DataSettings(train_images=200, test_images=60, validation_fraction=0.2)
UNIFORM = {"conv2": 0.5, "conv3": 0.5, "conv4": 0.5}
BY_THE_CLOCK = ("seconds_", "statistics_")


class Bench:
    """A node, and a trained baseline on it."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(
            device=resolve_device("cpu"),
            cache_dir=folder / "cache",
            artifacts=ArtifactStore(folder / "artifacts"),
        )
        recipe = Recipe(epochs=5, batch_size=32, learning_rate=0.05)
        self.weights = None
        self.weights = self.run(kind="baseline", recipe=recipe)["weights"]

    def run(self, **fields: Any) -> dict[str, Any]:
        given = {"recipe": Recipe(epochs=4, batch_size=32, learning_rate=0.02), "seed": 3, **fields}
        spec = TrialSpec(
            model=ModelSettings(name="digits_net"),
            data=DATA,
            data_hash=describe(DATA).data_hash,
            weights=self.weights,
            **given,
        )
        return run_trial(spec, self.node, lambda *_: None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small only lose by sharing
    yield Bench(tmp_path_factory.mktemp("bench"))
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if not key.startswith(BY_THE_CLOCK)}


@pytest.mark.parametrize(
    ("method", "settings", "epochs", "images"),
    [
        ("scop", {"share": 0.25}, 1.0, 0),
        ("scop", {"share": 0.5, "knockoff": "pca_gaussian", "images": 64}, 2.0, 64),
        ("scop", {"share": 1.0, "steps": 3}, 0.6, 0),
        ("provable", {"images": 40}, 0.0, 40),
        ("provable_sampling", {"images": 40}, 0.0, 40),
    ],
)
def test_the_next_trial_reuses_the_table_and_comes_out_the_same(
    bench: Bench, method: str, settings: dict[str, Any], epochs: float, images: int
) -> None:
    fields = {"kind": "prune", "method": method, "method_settings": settings, "ratios": UNIFORM}
    first, second = (bench.run(**fields) for _ in range(2))
    assert (first["statistics_computed"], second["statistics_computed"]) == (1, 0)
    assert (first["statistics_reused"], second["statistics_reused"]) == (0, 1)
    assert timeless(first) == timeless(second)
    assert first["epochs_select"] == pytest.approx(epochs)
    assert first["epochs_select"] + first["epochs_recover"] == pytest.approx(4.0)
    # four epochs, and all images once to estimate batch-norm statistics anew
    assert first["samples_seen"] <= 5 * 160 + images
    other = bench.run(**{**fields, "ratios": dict.fromkeys(UNIFORM, 0.25)})
    assert other["statistics_reused"] == 1
    assert other["macs"] > first["macs"]


@pytest.mark.parametrize("method", ["provable", "provable_sampling"])
@pytest.mark.parametrize(
    "target", [CostTarget(axis="macs", reduction=0.5), CostTarget(axis="params", reduction=0.6)]
)
def test_a_trial_without_ratios_meets_its_target_by_the_methods_own(
    bench: Bench, method: str, target: CostTarget
) -> None:
    result = bench.run(
        kind="prune", method=method, method_settings={"images": 40}, target=target, ratios={}
    )
    assert result[f"{target.axis}_reduction"] == pytest.approx(target.reduction, abs=0.01)
    assert result["samples_seen"] == 5 * 160 + 40  # looked at once, for ratios and ranks


def test_what_a_method_notes_is_in_the_result(bench: Bench) -> None:
    settings = {"grouping": "weights_kmeans", "contribution": "l1", "kappa": 1.0}
    result = bench.run(
        kind="prune", method="functionality", method_settings=settings, ratios=UNIFORM
    )
    assert result["notes"] == {"whole_cluster_share": 1.0}  # every cluster has one filter


def test_images_that_a_method_makes_are_charged_to_every_trial_that_uses_them(bench: Bench) -> None:
    settings = {"am_steps": 2, "images": 24}
    ways: list[dict[str, Any]] = [{"ratios": UNIFORM}, {"ratios": dict.fromkeys(UNIFORM, 0.25)}]
    results = [
        bench.run(kind="prune", method="functionality", method_settings=settings, **way)
        for way in ways
    ]
    assert [result["statistics_reused"] for result in results] == [0, 2]
    ascents = 2 * (64 + 64 + 128)
    for result in results:  # pixels are bounded and contributions measured on 24 images each
        assert result["samples_seen"] == 5 * 160 + 24 + 24 + ascents
