"""What every method leaves is a smaller network that lives on outside the trial."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import methods
from methods import CostTarget, count_cost
from methods.structure.stripe_conv import StripeConv
from tests.methods.helpers import logits
from tracking.artifacts import ArtifactStore
from workers.data import describe, load
from workers.models import build_model
from workers.networks.checkpoints import weights_hash
from workers.networks.shapes import layout_of
from workers.node.node import Node
from workers.rebuild import export_trial, load_pruned
from workers.settings import (
    DataSettings,
    LayerSettings,
    ModelSettings,
    Recipe,
    TrialSpec,
    Unit,
)
from workers.training.measure import evaluate
from workers.trial import run_trial

DATA = DataSettings(train_images=96, test_images=40, validation_fraction=0.25)
RECIPE = Recipe(epochs=2, batch_size=24, learning_rate=0.02)
HALF = {"ratios": {"conv2": 0.5, "conv3": 0.25, "conv4": 0.5}}
BY_ITSELF = {"ratios": {}, "target": CostTarget(axis="macs", reduction=0.5)}
FEW: Mapping[str, dict[str, Any]] = {
    "functionality": {"am_steps": 2, "images": 24},
    "provable": {"images": 12},
    "provable_sampling": {"images": 12},
    "scop": {"steps": 2},
    "taylor": {"images": 24},
}
#: Every registered method at given ratios, and what else decides on the shape of a network.
CASES: Mapping[str, dict[str, Any]] = {
    **{
        name: {"method": name, "method_settings": FEW.get(name, {}), **HALF}
        for name in methods.available()
    },
    "provable, its allocation": {
        "method": "provable",
        "method_settings": FEW["provable"],
        **BY_ITSELF,
    },
    "weight_gates, its allocation": {"method": "weight_gates", **BY_ITSELF},
    "stripe_wise, its allocation": {"method": "stripe_wise", **BY_ITSELF},
    "functionality, merged": {
        "method": "functionality",
        "method_settings": {**FEW["functionality"], "merge": True, "merge_fit": 0.0},
        **HALF,
    },
    "filter_norm, gradually hard": {"method": "filter_norm", "schedule": {"name": "ghfp"}, **HALF},
    "filter_norm, iterative": {"method": "filter_norm", "schedule": {"name": "iterative"}, **HALF},
}
#: Every layer policy, with a residual stream.
RESIDUAL: Mapping[str, dict[str, Any]] = {
    "inside_blocks": {"method": "filter_norm"},
    "coupled": {"method": "filter_norm", "layers": LayerSettings(policy="coupled")},
    "scatter": {
        "method": "filter_norm",
        "layers": LayerSettings(policy="scatter", protect_stem=False),
    },
    "stripes": {"method": "stripe_wise"},
}
PLAIN, STREAM = (
    ModelSettings(name="digits_net"),
    ModelSettings(name="cifar_resnet20", arguments={"shortcut": "projection"}),
)


class Bench:
    """A node, and an untrained baseline of each network on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Node(
            device=torch.device("cpu"),
            cache_dir=folder / "cache",
            artifacts=ArtifactStore(folder / "artifacts"),
        )
        self._weights: dict[str, str] = {}

    def run(self, model: ModelSettings, **fields: Any) -> tuple[TrialSpec, dict[str, Any]]:
        """Run a trial, of the baseline's own if there is none yet."""
        if fields["kind"] != "baseline" and model.name not in self._weights:
            self._weights[model.name] = self.run(model, kind="baseline")[1]["weights"]
        spec = TrialSpec(
            model=model,
            data=DATA,
            data_hash=describe(DATA).data_hash,
            recipe=RECIPE,
            seed=3,
            weights=self._weights.get(model.name),
            **fields,
        )
        return spec, run_trial(spec, self.node, lambda *_: None)

    def prune(
        self, model: ModelSettings, fields: Mapping[str, Any]
    ) -> tuple[TrialSpec, dict[str, Any]]:
        """Prune a trained network as a trial does."""
        unit = methods.available()[fields["method"]].unit
        fields = {**fields, "ratios": fields.get("ratios") or self._ratios(model, fields, unit)}
        return self.run(model, kind="prune", unit=unit, **fields)

    def _ratios(
        self, model: ModelSettings, fields: Mapping[str, Any], unit: Unit
    ) -> dict[str, float]:
        """Give every group half, unless there is a target to go by."""
        if "target" in fields:
            return {}
        network = build_model(model, 10, 1)
        layout = layout_of(network, (1, 8, 8), fields.get("layers", LayerSettings()), unit)
        return dict.fromkeys(layout.widths, 0.5)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Bench(tmp_path_factory.mktemp("bench"))
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


EVERY = [
    *(pytest.param(PLAIN, fields, id=name) for name, fields in CASES.items()),
    *(pytest.param(STREAM, fields, id=f"residual {name}") for name, fields in RESIDUAL.items()),
]


@pytest.mark.parametrize(("model", "fields"), EVERY)
def test_a_pruned_network_is_smaller_saved_loaded_and_run_on_other_batch_sizes(
    bench: Bench, model: ModelSettings, fields: dict[str, Any], tmp_path: Path
) -> None:
    spec, result = bench.prune(model, fields)
    assert result["macs"] < 0.9 * result["base_macs"]
    assert result["params"] < 0.9 * result["base_params"]
    assert result["masked_difference"] < 1e-5
    network = load_pruned(export_trial(spec, result, bench.node.artifacts, tmp_path / "net"))
    assert weights_hash(network.state_dict()) == result["weights"]
    assert count_cost(network, (1, 8, 8)) == (result["macs"], result["params"])
    assert sum(parameter.numel() for parameter in network.parameters()) == result["params"]
    assert (spec.unit == "stripes") == any(isinstance(m, StripeConv) for m in network.modules())
    data = load(DATA, bench.node.device, bench.node.cache_dir)
    measured = evaluate(network, data.eval_batches(data.take_test(), 64))
    assert measured.accuracy == result["test_accuracy"]
    assert_the_same(lambda images: logits(network, images), network)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "fields"), EVERY)
def test_a_pruned_network_survives_export_and_compile(
    bench: Bench, model: ModelSettings, fields: dict[str, Any], tmp_path: Path
) -> None:
    spec, result = bench.prune(model, fields)
    network = load_pruned(export_trial(spec, result, bench.node.artifacts, tmp_path / "net"))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (some(3),), dynamic_shapes=({0: batch},))
    assert_the_same(program.module(), network)
    torch.compiler.reset()  # one graph for all batch sizes, traced and run without a code generator
    assert_the_same(torch.compile(network, backend="eager", fullgraph=True, dynamic=True), network)


def some(count: int) -> Tensor:
    """Return images, ``[count, 1, 8, 8]``."""
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))


def assert_the_same(run: Callable[[Tensor], Tensor], network: nn.Module) -> None:
    """Compare what ``run`` makes of batches with what the network makes of each image alone."""
    for count in (3, 8, 1):
        images = some(count)
        alone = torch.cat([logits(network, image[None]) for image in images])
        torch.testing.assert_close(run(images), alone, rtol=1e-4, atol=1e-5)
