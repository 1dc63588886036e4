import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import LayerPolicy, LayoutError, find_layout
from methods.testing import EXAMPLES, INPUT_SHAPE
from workers.models.cifar_resnet import CifarResNet

CIFAR = (3, 32, 32)


def groups(network: nn.Module, policy: LayerPolicy) -> list[str]:
    return [group.name for group in find_layout(network, INPUT_SHAPE, policy).groups]


def test_inside_blocks_takes_the_first_convolution_of_each_block() -> None:
    layout = find_layout(CifarResNet(20), CIFAR, LayerPolicy())
    expected = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)]
    assert [group.name for group in layout.groups] == expected
    assert [group.width for group in layout.groups] == [16] * 3 + [32] * 3 + [64] * 3
    assert [group.norms for group in layout.groups] == [
        (name.replace("conv1", "bn1"),) for name in expected
    ]


def test_groups_of_a_stage_share_its_name() -> None:
    layout = find_layout(CifarResNet(20), CIFAR, LayerPolicy())
    assert len({group.stage for group in layout.groups}) == 3


def test_coupled_leaves_streams_with_zero_padded_shortcuts_whole() -> None:
    layout = find_layout(CifarResNet(20), CIFAR, LayerPolicy(kind="coupled"))
    inside = find_layout(CifarResNet(20), CIFAR, LayerPolicy())
    assert layout.widths == inside.widths
    assert "'conv1' has 16 filters and 'layer2.0.conv2' has 32" in layout.left_whole["conv1"]


def test_coupled_takes_whole_residual_streams_of_projection_shortcuts() -> None:
    network = CifarResNet(20, shortcut="projection")
    layout = find_layout(network, CIFAR, LayerPolicy(kind="coupled"))
    streams = {group.name: group.producers for group in layout.groups if len(group.producers) > 1}
    assert streams == {
        f"layer{stage}.0.conv2": (
            f"layer{stage}.0.conv2",
            f"layer{stage}.0.shortcut.0",
            f"layer{stage}.1.conv2",
            f"layer{stage}.2.conv2",
        )
        for stage in (2, 3)  # the first stage carries the stem, which keeps its filters
    }


def test_depthwise_layers_follow_the_filters_they_read() -> None:
    layout = EXAMPLES["inverted_residual"].layout()
    assert [member.layer for member in layout.groups[0].outputs] == [
        "3.branch.0.0",
        "3.branch.0.1",
        "3.branch.2.0",
        "3.branch.2.1",
    ]
    assert layout.groups[0].producers == ("3.branch.0.0",)


def test_grouped_convolutions_and_what_they_read_keep_their_filters() -> None:
    assert list(EXAMPLES["grouped"].layout().widths) == ["3", "12"]


def test_a_flattened_channel_owns_its_positions() -> None:
    last = EXAMPLES["plain"].layout().groups[-1]
    assert last.inputs[0].channels[1] == (4, 5, 6, 7)


def test_the_stem_is_protected_unless_told_otherwise() -> None:
    network = EXAMPLES["plain"].network()
    assert groups(network, LayerPolicy()) == ["3", "6", "9"]
    assert groups(network, LayerPolicy(protect_stem=False)) == ["0", "3", "6", "9"]


def test_protected_patterns_keep_their_layers() -> None:
    network = EXAMPLES["bottleneck"].network()
    kept = groups(network, LayerPolicy(protect=("3.branch.*", "4.branch.2.0")))
    assert kept == ["4.branch.0.0"]


def test_a_protected_pattern_that_matches_nothing_is_named() -> None:
    with pytest.raises(LayoutError, match=r"'4.brunch.0.0' matches no .* '4.branch.0.0'"):
        groups(EXAMPLES["bottleneck"].network(), LayerPolicy(protect=("4.brunch.0.0",)))


def test_a_network_with_nothing_to_prune_is_refused() -> None:
    with pytest.raises(LayoutError, match="no layer of Sequential may be pruned"):
        groups(EXAMPLES["plain"].network(), LayerPolicy(protect=("*",)))


def test_a_network_that_cannot_run_on_the_images_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"shape \(3, 4, 4\)"):
        find_layout(EXAMPLES["plain"].network(), (3, 4, 4), LayerPolicy())


def test_looking_for_groups_leaves_the_network_as_it_was() -> None:
    network = EXAMPLES["residual_projection"].network()
    frozen = next(network.parameters())
    frozen.requires_grad_(False)
    next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    before = copy.deepcopy(network)
    find_layout(network, INPUT_SHAPE, LayerPolicy())
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
    assert [p.requires_grad for p in network.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    assert all(torch.equal(network.state_dict()[n], v) for n, v in before.state_dict().items())


class Concatenation(nn.Module):
    """Two branches side by side, as in Inception networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
        self.right, self.head = nn.Conv2d(4, 6, 1), nn.Conv2d(11, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        output: Tensor = self.head(torch.cat([self.left(stem), self.right(stem)], dim=1))
        return output


def test_concatenated_branches_read_their_own_columns() -> None:
    layout = find_layout(Concatenation(), INPUT_SHAPE, LayerPolicy())
    columns = {g.name: [c for (c,) in g.inputs[0].channels] for g in layout.groups}
    assert columns == {"left": [0, 1, 2, 3, 4], "right": [5, 6, 7, 8, 9, 10]}


class Scaled(nn.Module):
    """A learned factor per channel between two convolutions, which surgery does not narrow."""

    def __init__(self, between: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)
        self.between, self.head = between(), nn.Conv2d(6, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.head(self.between(self.conv(self.stem(images))))
        return output


def test_channels_that_a_layer_norm_mixes_keep_their_filters() -> None:
    with pytest.raises(LayoutError, match="no layer of Scaled may be pruned"):
        groups(Scaled(lambda: nn.GroupNorm(2, 6)), LayerPolicy())
    assert groups(Scaled(lambda: nn.BatchNorm2d(6)), LayerPolicy()) == ["conv"]
