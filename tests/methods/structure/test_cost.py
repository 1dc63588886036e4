from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from methods import LayerPolicy, Layout, PruningPlan, count_cost, find_layout, shrink
from methods.structure.cost import evaluation_mode
from methods.testing import EXAMPLES, counted_by_torch
from workers.models.cifar_resnet import CifarResNet
from workers.models.cifar_vgg import CifarVGG
from workers.models.digits_net import DigitsNet

CIFAR = (3, 32, 32)


class Vector(NamedTuple):
    """One row of what is published for Li et al.'s networks."""

    depth: int
    ratios: tuple[float, float, float]  #: Share of the first convolutions of blocks, by stage.
    skipped: tuple[int, ...]  #: Convolutions left alone, counted from 1 with the stem.
    macs: int
    params: int
    macs_reduction: float  #: Percent, as printed.
    params_reduction: float


RESNETS = {
    "resnet56_a": Vector(56, (0.1, 0.1, 0.1), (16, 20, 38, 54), 112_435_840, 773_336, 10.40, 9.34),
    "resnet56_b": Vector(
        56, (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54), 90_907_264, 735_712, 27.56, 13.75
    ),
    "resnet110_a": Vector(110, (0.5, 0.0, 0.0), (36,), 212_779_648, 1_688_522, 15.86, 2.28),
    "resnet110_b": Vector(110, (0.5, 0.4, 0.3), (36, 38, 74), 155_124_352, 1_168_424, 38.66, 32.38),
}


def keep_first(layout: Layout, kept: dict[str, int]) -> PruningPlan:
    """Plan to keep the first filters of each group, all where ``kept`` names no count."""
    return PruningPlan(
        policy=layout.policy.kind,
        widths=layout.widths,
        kept={name: tuple(range(kept.get(name, width))) for name, width in layout.widths.items()},
    )


def predicted(layout: Layout, plan: PruningPlan) -> tuple[int, int]:
    counts = np.array([len(plan.kept[name]) for name in layout.cost.groups])
    return layout.cost.cost("macs", counts), layout.cost.cost("params", counts)


def percent_removed(before: int, after: int) -> float:
    return round(100 * (1 - after / before), 2)


@pytest.mark.parametrize(
    ("depth", "macs", "params"),
    [
        (20, 40_551_040, 269_722),
        (32, 68_862_592, 464_154),
        (56, 125_485_696, 853_018),
        (110, 252_887_680, 1_727_962),
    ],
)
def test_a_cifar_resnet_costs_what_is_published(depth: int, macs: int, params: int) -> None:
    assert count_cost(CifarResNet(depth), CIFAR) == (macs, params)


@pytest.mark.parametrize("name", list(RESNETS))
def test_the_resnets_of_li_et_al_cost_what_is_published(name: str) -> None:
    vector = RESNETS[name]
    network = CifarResNet(vector.depth)
    layout = find_layout(network, CIFAR, LayerPolicy())
    assert len(layout.groups) == (vector.depth - 2) // 2
    kept = {}
    for block, group in enumerate(layout.groups):
        if 2 * block + 2 not in vector.skipped:
            stage = block // (len(layout.groups) // 3)
            kept[group.name] = int(group.width * (1 - vector.ratios[stage]))
    plan = keep_first(layout, kept)
    before = count_cost(network, CIFAR)
    shrink(network, plan, layout)
    after = count_cost(network, CIFAR)
    assert after == (vector.macs, vector.params)
    assert predicted(layout, plan) == (vector.macs, vector.params)
    assert percent_removed(before.macs, after.macs) == vector.macs_reduction
    assert percent_removed(before.params, after.params) == vector.params_reduction


def vgg_16_a(network: nn.Module) -> tuple[Layout, PruningPlan]:
    layout = find_layout(network, CIFAR, LayerPolicy(protect_stem=False))
    names = [group.name for group in layout.groups]
    assert len(names) == 13
    return layout, keep_first(layout, {names[0]: 32, **dict.fromkeys(names[7:], 256)})


def parameters_without_norms(network: nn.Module, *kinds: type[nn.Module]) -> int:
    layers = (module for module in network.modules() if isinstance(module, kinds))
    return sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))


def test_the_vgg_16_of_li_et_al_costs_what_is_published() -> None:
    network = CifarVGG(16)
    layout, plan = vgg_16_a(network)
    before = count_cost(network, CIFAR).macs - 10 * 512  # what is published leaves out all but
    params_before = parameters_without_norms(network, nn.Conv2d)  # convolutions
    shrink(network, plan, layout)
    after = count_cost(network, CIFAR).macs - 10 * 256
    params_after = parameters_without_norms(network, nn.Conv2d)
    assert predicted(layout, plan) == count_cost(network, CIFAR)
    assert (before, params_before) == (313_196_544, 14_710_464)
    assert (after, params_after) == (206_143_488, 5_253_984)
    assert percent_removed(before, after) == 34.18
    assert percent_removed(params_before, params_after) == 64.28


def test_a_vgg_16_with_two_linear_layers_loses_64_percent_of_its_parameters() -> None:
    network = CifarVGG(16)
    head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    network.register_module("classifier", head)
    layout, plan = vgg_16_a(network)
    before = parameters_without_norms(network, nn.Conv2d, nn.Linear)
    shrink(network, plan, layout)
    after = parameters_without_norms(network, nn.Conv2d, nn.Linear)
    assert (round(before / 1e6, 2), round(after / 1e6, 2)) == (14.98, 5.39)
    assert round(100 * (1 - after / before), 1) == 64.0


@pytest.mark.parametrize(
    "network",
    [
        *(CifarResNet(depth) for depth in (20, 32, 44, 56, 110)),
        CifarResNet(20, shortcut="projection"),
        CifarVGG(16),
        CifarVGG(19),
        DigitsNet(in_channels=3),
    ],
    ids=lambda network: type(network).__name__,
)
def test_the_whole_zoo_costs_what_pytorch_counts(network: nn.Module) -> None:
    assert count_cost(network, CIFAR).macs == counted_by_torch(network, CIFAR)


def test_a_small_network_costs_what_a_count_by_hand_gives() -> None:
    network = EXAMPLES["plain"].network()
    layout = EXAMPLES["plain"].layout()
    kept = dict(zip(layout.widths, (5, 7, 9, 3), strict=True))
    shrink(network, keep_first(layout, kept), layout)
    macs = 64 * 9 * 3 * 5 + 16 * 9 * 5 * 7 + 16 * 9 * 7 * 9 + 4 * 9 * 9 * 3 + 3 * 4 * 4
    convolutions = 9 * (3 * 5 + 5 * 7 + 7 * 9 + 9 * 3)
    norms = 2 * (5 + 7 + 9 + 3)
    linear = 3 * 4 * 4 + 4
    assert count_cost(network, (3, 8, 8)) == (macs, convolutions + norms + linear)


def test_depthwise_layers_grow_with_the_filters_they_follow() -> None:
    example = EXAMPLES["inverted_residual"]
    layout = example.layout()
    dense = np.array(layout.cost.widths)
    one_less = dense - np.eye(len(dense), dtype=np.int64)[0]
    # 6 inputs, 9 weights of its own and 6 readers, at 64 positions each
    assert layout.cost.dense("macs") - layout.cost.cost("macs", one_less) == 64 * (6 + 9 + 6)
    assert layout.cost.dense("params") - layout.cost.cost("params", one_less) == 21 + 4


def test_a_convolution_with_bias_costs_its_bias() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).append(nn.Linear(6, 2))
    layout = find_layout(network, (3, 8, 8), LayerPolicy(protect_stem=False))
    plan = keep_first(layout, {"0": 3, "2": 5})
    shrink(network, plan, layout)
    assert predicted(layout, plan) == count_cost(network, (3, 8, 8))


def test_a_layer_that_runs_twice_costs_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.conv(self.conv(images))
            return output

    assert count_cost(Twice(), (3, 4, 4)) == (2 * 9 * 16, 9)


def test_evaluation_mode_gives_every_layer_its_mode_back() -> None:
    network = EXAMPLES["plain"].network()
    first = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    first.eval()
    before = [module.training for module in network.modules()]
    with evaluation_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == before
