import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from methods import (
    LayerPolicy,
    Layout,
    LayoutError,
    PruningPlan,
    count_cost,
    create,
    find_layout,
    masked,
    masked_difference,
    removed_count,
    shrink,
)
from methods.criteria.bn_scale import BatchNormScale
from methods.criteria.filter_norm import FilterNorm
from methods.criteria.geometric_median import GeometricMedian
from methods.criteria.random_filters import RandomPruning
from methods.criteria.taylor import Taylor
from methods.structure.scatter import Gather, Scatter
from methods.testing import CLASSES, EXAMPLES, Example, PruningMethodContract, TinySession
from methods.testing.example_networks import (
    Block,
    bottleneck,
    conv_norm,
    residual_pad,
    residual_projection,
)
from tests.methods.helpers import logits, same_ratio
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.models.cifar_resnet import CifarResNet
from workers.networks.checkpoints import fit, from_safetensors, to_safetensors
from workers.node.node import Node
from workers.rebuild import export_trial, load_pruned
from workers.settings import DataSettings, LayerSettings, ModelSettings, Recipe, TrialSpec
from workers.trial import run_trial

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
WITH_STEM = LayerPolicy(kind="scatter", protect_stem=False)
POLICY = LayerPolicy(kind="scatter")

SCATTERED: Mapping[str, Example] = {
    "residual_pad": Example(build=residual_pad, policy=WITH_STEM),
    "residual_projection": Example(build=residual_projection, policy=POLICY),
    "bottleneck": Example(build=bottleneck, policy=POLICY),
}
REAL: Mapping[str, Callable[[], nn.Module]] = {
    "cifar_pad": lambda: CifarResNet(14),
    "cifar_projection": lambda: CifarResNet(14, shortcut="projection"),
    "torchvision_basic": lambda: models.ResNet(BasicBlock, [2, 1, 1, 1], num_classes=CLASSES),
    "torchvision_bottleneck": lambda: models.ResNet(Bottleneck, [1, 2, 1, 1], num_classes=CLASSES),
}


class TestFilterNorm(PruningMethodContract):
    method = FilterNorm()
    examples = SCATTERED


class TestGeometricMedian(PruningMethodContract):
    method = GeometricMedian()
    examples = SCATTERED


class TestBatchNormScale(PruningMethodContract):
    method = BatchNormScale()
    examples = SCATTERED


class TestRandomPruning(PruningMethodContract):
    method = RandomPruning()
    examples = SCATTERED
    scores_follow_filters: ClassVar[bool] = False


class TestTaylor(PruningMethodContract):
    method = Taylor(images=32, batch_size=16)
    examples = SCATTERED
    #: Reordering the end of a branch adds its channels to others: another network.
    scores_follow_filters: ClassVar[bool] = False


def reduction(layout: Layout, ratio: float, axis: str) -> float:
    """Return the share of the cost that goes at one ratio, in percent."""
    kept = np.array([w - removed_count(g, w, ratio) for g, w in layout.widths.items()])
    left = {"macs": layout.cost.cost("macs", kept), "params": layout.cost.cost("params", kept)}
    dense = {"macs": layout.cost.dense("macs"), "params": layout.cost.dense("params")}
    return 100 * (1 - left[axis] / dense[axis])


@pytest.mark.parametrize(
    ("depth", "at_30", "at_40"),
    [(20, 39.04, 51.70), (32, 38.44, 50.92), (56, 38.05, 50.41), (110, 37.81, 50.11)],
)
def test_cifar_networks_save_what_soft_filter_pruning_counts(
    depth: int, at_30: float, at_40: float
) -> None:
    layout = find_layout(CifarResNet(depth), CIFAR, WITH_STEM)
    rounding = 0.006  # theirs are of convolutions alone, to two digits
    assert reduction(layout, 0.3, "macs") == pytest.approx(at_30, abs=rounding)
    assert reduction(layout, 0.4, "macs") == pytest.approx(at_40, abs=rounding)


@pytest.mark.parametrize(
    ("name", "ratio", "params", "macs"),
    [
        ("resnet18", 0.30, 39.3, 38.1),
        ("resnet34", 0.30, 39.7, 39.2),
        ("resnet34", 0.35, 45.5, 44.8),
        pytest.param("resnet50", 0.35, 42.8, 45.4, marks=pytest.mark.slow),
        pytest.param("resnet101", 0.35, 46.8, 48.6, marks=pytest.mark.slow),
    ],
)
def test_imagenet_networks_save_what_scop_counts(
    name: str, ratio: float, params: float, macs: float
) -> None:
    layout = find_layout(models.get_model(name), IMAGENET, POLICY)
    assert round(reduction(layout, ratio, "params"), 1) == params
    assert round(reduction(layout, ratio, "macs") + 1e-9, 1) == macs


def test_both_convolutions_of_a_block_are_pruned_and_shortcuts_are_not() -> None:
    for shortcut in ("pad", "projection"):
        layout = find_layout(CifarResNet(14, shortcut=shortcut), CIFAR, POLICY)
        assert list(layout.widths) == [
            f"layer{stage}.{block}.conv{i}"
            for stage in (1, 2, 3)
            for block in (0, 1)
            for i in (1, 2)
        ]
        assert [group.scattered for group in layout.groups] == [False, True] * 6
        assert all(len(group.producers) == 1 for group in layout.groups)


def test_the_end_of_a_branch_has_its_norm_and_no_readers() -> None:
    layout = find_layout(CifarResNet(14), CIFAR, WITH_STEM)
    stem, _, end = layout.groups[:3]
    assert (end.name, end.norms, end.inputs) == ("layer1.0.conv2", ("layer1.0.bn2",), ())
    assert (stem.name, stem.scattered) == ("conv1", True)
    assert [member.layer for member in stem.inputs] == ["layer1.0.conv1"]


def test_torchvision_bottlenecks_lose_all_three_and_no_shortcut() -> None:
    layout = find_layout(REAL["torchvision_bottleneck"](), (3, 64, 64), POLICY)
    blocks = ["layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer4.0"]
    assert list(layout.widths) == [f"{block}.conv{i}" for block in blocks for i in (1, 2, 3)]


def test_a_linear_bottleneck_ends_its_branch() -> None:
    layout = find_layout(EXAMPLES["inverted_residual"].network(), (3, 8, 8), POLICY)
    inside = EXAMPLES["inverted_residual"].layout()
    assert {g.name for g in layout.groups} - {g.name for g in inside.groups} == {"3.branch.4.0"}


def test_protected_patterns_keep_the_ends_of_branches() -> None:
    policy = LayerPolicy(kind="scatter", protect=("layer3.*.conv2",))
    ends = [g.name for g in find_layout(CifarResNet(14), CIFAR, policy).groups if g.scattered]
    assert ends == ["layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2", "layer2.1.conv2"]


@pytest.mark.parametrize("name", ["plain", "grouped"])
def test_a_network_without_residual_blocks_is_refused(name: str) -> None:
    with pytest.raises(LayoutError, match=r"no residual block .* Use 'inside_blocks'"):
        find_layout(EXAMPLES[name].network(), (3, 8, 8), POLICY)


def test_of_two_branches_as_long_neither_is_a_shortcut() -> None:
    network = nn.Sequential(
        *conv_norm(3, 8), nn.ReLU(), Block(conv_norm(8, 8), conv_norm(8, 8)), nn.Conv2d(8, 2, 1)
    )
    with pytest.raises(LayoutError, match="no residual block"):
        find_layout(network, (3, 8, 8), POLICY)


class WithoutNorms(nn.Module):
    """A stem and one block, whose convolutions have biases and no batch norm behind them."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, CLASSES)
        self.first, self.last = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1)
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        stream = self.activation(self.stem(images))
        stream = stream + self.last(F.relu(self.first(stream)))
        output: Tensor = self.head(stream.mean(dim=(2, 3)))
        return output


@pytest.mark.parametrize(("activation", "readers"), [(F.relu, ["first"]), (torch.sigmoid, [])])
def test_branches_without_norms_end_in_their_convolution(
    activation: Callable[[Tensor], Tensor], readers: list[str]
) -> None:
    torch.manual_seed(0)
    network = WithoutNorms(activation)
    layout = find_layout(network, (3, 8, 8), WITH_STEM)
    assert [(g.name, g.scattered) for g in layout.groups] == [
        ("stem", True),
        ("first", False),
        ("last", True),
    ]
    assert [member.layer for member in layout.groups[0].inputs] == readers
    assert masked_difference(network, half(layout), layout, torch.randn(4, 3, 8, 8)) < 1e-5


def half(layout: Layout) -> PruningPlan:
    """Keep about half of each group, other filters in each."""
    return PruningPlan(
        policy=layout.policy.kind,
        widths=layout.widths,
        kept={
            group.name: tuple(range(i % 3, group.width, 2)) for i, group in enumerate(layout.groups)
        },
    )


def build(name: str) -> nn.Module:
    return Example(build=REAL[name]).network()


@pytest.mark.parametrize("name", list(REAL))
def test_real_networks_shrink_to_what_is_predicted_and_compute_what_the_masked_one_does(
    name: str,
) -> None:
    network = build(name)
    layout = find_layout(network, CIFAR, WITH_STEM)
    plan = half(layout)
    assert masked_difference(network, plan, layout, torch.randn(4, *CIFAR)) < 1e-5
    shrink(network, plan, layout)
    kept = np.array([len(plan.kept[name]) for name in layout.cost.groups])
    counted = count_cost(network, CIFAR)
    assert counted.macs == layout.cost.cost("macs", kept)
    assert counted.params == layout.cost.cost("params", kept)


def test_the_stream_keeps_its_width_and_its_zeros() -> None:
    layer = Scatter(nn.Conv2d(3, 2, 1), (1, 3), 5).train()
    images = torch.randn(4, 3, 6, 6)
    output = layer(images)
    assert output.shape == (4, 5, 6, 6)
    assert torch.equal(output[:, [1, 3]], layer.layer(images))
    assert (output[:, [0, 2, 4]] == 0.0).all()
    assert "2 of 5 channels" in repr(layer)


def test_gathering_reads_the_channels_that_were_kept() -> None:
    conv = nn.Conv2d(5, 3, 3, bias=False)
    narrow = nn.Conv2d(2, 3, 3, bias=False)
    narrow.weight.data = conv.weight.data[:, [1, 3]]
    images = torch.zeros(2, 5, 6, 6)
    images[:, [1, 3]] = torch.randn(2, 2, 6, 6)
    torch.testing.assert_close(Gather(narrow, (1, 3))(images), conv(images))


def test_wrong_places_are_noticed() -> None:
    network = SCATTERED["residual_pad"].network()
    layout = SCATTERED["residual_pad"].layout()
    small = copy.deepcopy(network)
    plan = half(layout)
    shrink(small, plan, layout)
    images = torch.randn(4, 3, 8, 8)
    expected = logits(masked(network, plan, layout), images)
    torch.testing.assert_close(logits(small, images), expected, rtol=1e-4, atol=1e-5)
    for module in small.modules():
        if isinstance(module, Scatter):
            module.index.copy_(torch.arange(len(module.index)))
    assert (logits(small, images) - expected).abs().max() > 1e-2


def test_a_group_that_loses_nothing_stays_as_it_is() -> None:
    network, layout = SCATTERED["bottleneck"].network(), SCATTERED["bottleneck"].layout()
    ends = [g for g in layout.groups if g.scattered]
    ratios = {ends[0].name: 0.5}
    session = TinySession(layout, classes=CLASSES)
    shrink(network, create("l1").select(network, ratios, session), layout)
    assert [isinstance(network.get_submodule(g.norms[0] or ""), Scatter) for g in ends] == [
        True,
        False,
    ]


def test_soft_schedules_end_with_what_shrinks_exactly() -> None:
    network, layout = SCATTERED["residual_pad"].network(), SCATTERED["residual_pad"].layout()
    schedule = {"name": "one_shot", "selection": 1.0, "hardness": "none"}
    session = TinySession(layout, classes=CLASSES, epochs=2, schedule=schedule)
    plan = create("l2").select(network, same_ratio(layout, 0.5), session)
    before = logits(network, session.images)
    shrink(network, plan, layout)
    torch.testing.assert_close(logits(network, session.images), before, rtol=1e-4, atol=1e-5)


@pytest.fixture(name="small", params=["cifar_pad", "torchvision_bottleneck"])
def _small(request: pytest.FixtureRequest) -> nn.Module:
    network = build(request.param)
    layout = find_layout(network, CIFAR, WITH_STEM)
    shrink(network, half(layout), layout)
    return network.eval()


class TestASmallNetwork:
    """What a network with scattered branches survives."""

    images = torch.randn(3, *CIFAR, generator=torch.Generator().manual_seed(0))

    def test_a_copy_computes_the_same(self, small: nn.Module) -> None:
        twin = copy.deepcopy(small)
        assert torch.equal(logits(twin, self.images), logits(small, self.images))
        ours = {id(tensor) for tensor in small.state_dict(keep_vars=True).values()}
        assert ours.isdisjoint(id(t) for t in twin.state_dict(keep_vars=True).values())

    def test_weights_come_back_from_a_file(self, small: nn.Module) -> None:
        stored = to_safetensors(small.state_dict())
        expected = logits(small, self.images)
        for value in small.state_dict().values():
            value.zero_()
        fit(small, from_safetensors(stored))
        assert torch.equal(logits(small, self.images), expected)

    def test_it_is_exported_for_any_batch_size(self, small: nn.Module) -> None:
        batch = torch.export.Dim("batch", min=2)
        program = torch.export.export(small, (self.images,), dynamic_shapes=({0: batch},))
        more = torch.randn(5, *CIFAR)
        torch.testing.assert_close(program.module()(more), logits(small, more))

    def test_it_learns(self, small: nn.Module) -> None:
        before = copy.deepcopy(small.state_dict())
        layout = find_layout(CifarResNet(14), CIFAR, POLICY)
        TinySession(layout, classes=CLASSES).train(small, 1)
        for name, parameter in small.named_parameters():
            assert not torch.equal(parameter, before[name]), name
        for name, buffer in small.named_buffers():
            assert torch.equal(buffer, before[name]) == name.endswith("index"), name


DATA = DataSettings(train_images=64, test_images=32, validation_fraction=0.25)


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Iterator[Node]:
    artifacts = ArtifactStore(tmp_path / "artifacts")
    yield Node(device=torch.device("cpu"), cache_dir=tmp_path / "cache", artifacts=artifacts)
    torch.use_deterministic_algorithms(False)


def test_a_trial_prunes_the_ends_of_branches_and_its_network_is_loaded_again(
    node: Node, tmp_path: Path
) -> None:
    baseline = TrialSpec(
        kind="baseline",
        model=ModelSettings(name="cifar_resnet20"),
        data=DATA,
        data_hash=describe(DATA).data_hash,
        recipe=Recipe(epochs=1, batch_size=16, learning_rate=0.05),
        layers=LayerSettings(policy="scatter", protect_stem=False),
        seed=0,
    )
    weights = run_trial(baseline, node, lambda *_: None)["weights"]
    blocks = itertools.product((1, 2, 3), (0, 1, 2), (1, 2))
    names = ["conv1", *(f"layer{stage}.{block}.conv{i}" for stage, block, i in blocks)]
    pruned = baseline.model_copy(
        update={
            "kind": "prune",
            "weights": weights,
            "method": "filter_norm",
            "ratios": dict.fromkeys(names, 0.5),
        }
    )
    result = run_trial(pruned, node, lambda *_: None)
    assert result["plan"]["policy"] == "scatter"
    assert result["plan"].keys() == {"format", "policy", "widths", "kept"}
    assert set(result["kept"]) == set(names)
    assert result["masked_difference"] < 1e-5
    network = load_pruned(export_trial(pruned, result, node.artifacts, tmp_path / "exported"))
    assert count_cost(network, (1, 8, 8)) == (result["macs"], result["params"])
    assert sum(isinstance(module, Scatter) for module in network.modules()) == 10
