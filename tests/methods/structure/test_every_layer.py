"""The policy that prunes layers of every kind that can be cut exactly."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from methods import LayerPolicy, MethodError, create, find_layout, masked_difference
from methods.schedule import PRESETS
from methods.structure.surgery import is_plain, scale_filters
from methods.testing import INPUT_SHAPE, TinySession
from tests.methods.structure.test_proof import Chain, Learned, Through, exact

EVERY = LayerPolicy(kind="every_layer")

#: What lies between two convolutions, and into how many units its 8 channels fall.
UNITS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "group_norm": (lambda: nn.GroupNorm(4, 8), 4),
    "group_norm_of_each": (lambda: nn.GroupNorm(8, 8), 8),
    "instance_norm": (lambda: nn.InstanceNorm2d(8), 8),
    "instance_norm_affine": (
        lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        8,
    ),
    "scale_per_channel": (lambda: Learned(torch.rand(8, 1, 1)), 8),
    "scale_of_images": (lambda: Learned(torch.rand(1, 8, 1, 1)), 8),
    "transposed": (lambda: nn.ConvTranspose2d(8, 8, 2, stride=2), 8),
    "transposed_each": (lambda: nn.ConvTranspose2d(8, 8, 2, groups=8, bias=False), 8),
    "in_three_dimensions": (lambda: AsVolume(nn.Conv3d(8, 8, 3, padding=1)), 8),
    "grouped": (lambda: nn.Conv2d(8, 8, 3, groups=2), 2),
    "multiplier_and_back": (
        lambda: nn.Sequential(
            nn.Conv2d(8, 16, 3, groups=8), nn.GroupNorm(8, 16), nn.Conv2d(16, 8, 1)
        ),
        8,
    ),
    "grouped_and_normed": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.GroupNorm(2, 8)),
        2,
    ),
}
WHOLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "one_group": (lambda: nn.GroupNorm(1, 8), "takes one mean"),
    "layer_norm": (lambda: Through(_layer_normed), "the network fails"),
    "fixed": (lambda: Learned(torch.rand(8, 8, 1)[:, :6]), "cannot lose one"),
    "transposed_in_groups": (lambda: nn.ConvTranspose2d(8, 8, 2, groups=2), "cannot lose one"),
}


def _layer_normed(images: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(images.movedim(1, -1), (8,)).movedim(-1, 1)


class AsVolume(nn.Module):
    """Takes an image for a volume of one slice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        volume: Tensor = self.layer(images[:, :, None])
        return volume[:, :, 0]


@pytest.mark.parametrize("between", list(UNITS))
def test_channels_that_a_layer_keeps_in_groups_go_by_the_group(between: str) -> None:
    make, units = UNITS[between]
    layout = exact(Chain(make()), EVERY)
    assert layout.widths["first"] == units
    assert layout.widths["last"] == 6


@pytest.mark.parametrize("between", list(WHOLE))
def test_channels_that_share_a_mean_stay(between: str) -> None:
    make, reason = WHOLE[between]
    layout = exact(Chain(make()), EVERY)
    assert list(layout.widths) == ["last"]
    assert reason in layout.left_whole["first"]


class Classifier(nn.Module):
    """A convolution whose image is flattened, hidden linear layers with a norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.hidden, self.norm = nn.Linear(24, 12), nn.BatchNorm1d(12)
        self.deeper, self.head = nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, images: Tensor) -> Tensor:
        flat = self.pool(self.conv(self.stem(images).relu()).relu()).flatten(1)
        hidden = self.norm(self.hidden(flat)).relu()
        logits: Tensor = self.head(nn.functional.dropout(self.deeper(hidden).relu(), 0.0))
        return logits


class Attention(nn.Module):
    """A block of attention on tokens, behind it an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        tokens = tokens + self.out((q @ k.transpose(1, 2)).softmax(dim=-1) @ v)
        tokens = tokens + self.down(nn.functional.gelu(self.up(self.norm(tokens))))
        logits: Tensor = self.head(tokens.mean(dim=1))
        return logits


def test_hidden_linear_layers_lose_neurons_and_the_head_none() -> None:
    layout = exact(Classifier(), EVERY)
    assert layout.widths == {"conv": 6, "hidden": 12, "deeper": 10}
    assert layout.left_whole["head"] == "its channels leave the network"


def test_of_a_transformer_the_mlp_is_cut_and_attention_left_whole() -> None:
    layout = exact(Attention(), EVERY)
    assert layout.widths == {"up": 16}
    assert layout.left_whole["qkv"] == "its channels are mixed by attention"
    assert "'norm', which takes one mean" in layout.left_whole["patches"]


def test_groups_that_coupled_prunes_too_are_told_from_those_of_other_layers() -> None:
    network = Classifier()
    plain = {g.name: is_plain(network, g) for g in find_layout(network, INPUT_SHAPE, EVERY).groups}
    assert plain == {"conv": True, "hidden": False, "deeper": False}


@pytest.mark.parametrize("method", ["l1", "l2", "geometric_median", "random"])
def test_criteria_of_weights_take_every_layer(method: str) -> None:
    network = Chain(nn.GroupNorm(4, 8))
    create(method).accept(network, find_layout(network, INPUT_SHAPE, EVERY))


def test_methods_that_know_convolutions_alone_say_so() -> None:
    network = Classifier()
    with pytest.raises(MethodError, match=r"'taylor' prunes filters of ordinary.*'hidden'"):
        create("taylor").accept(network, find_layout(network, INPUT_SHAPE, EVERY))


class Decoder(nn.Module):
    """A transposed convolution behind one of stride 2, scaled by channel, joined with what it read.

    As many channels go in as come out, so that a wrong dimension of the weight is not noticed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 2, stride=2)
        self.up, self.norm = nn.ConvTranspose2d(6, 6, 2, stride=2), nn.BatchNorm2d(6)
        self.gamma = nn.Parameter(torch.full((1, 6, 1, 1), 0.5))
        self.last, self.head = nn.Conv2d(10, 5, 1), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.stem(images).relu()
        wide = self.gamma * self.norm(self.up(self.down(fine).relu()))
        last = self.last(torch.cat([fine, wide], dim=1)).relu()
        return self.head(last.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_transposed_convolutions_lose_filters_and_inputs_as_pytorch_counts_them() -> None:
    network = Decoder()
    layout = exact(network, EVERY)
    assert layout.widths == {"down": 6, "up": 6, "last": 5}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *INPUT_SHAPE))
    assert counter.get_total_flops() // 2 == layout.cost.dense("macs")


@pytest.mark.parametrize("schedule", list(PRESETS))
@pytest.mark.parametrize("make", [Classifier, Decoder])
def test_every_schedule_prunes_layers_of_every_kind(
    schedule: str, make: Callable[[], nn.Module]
) -> None:
    network = make()
    layout = find_layout(network, INPUT_SHAPE, EVERY)
    session = TinySession(layout, classes=4, epochs=4, schedule=schedule, images=16)
    ratios = dict.fromkeys(layout.widths, 0.5)
    plan = create("l2").select(network, ratios, session)
    left = {name: len(kept) for name, kept in plan.kept.items()}
    assert left == {name: width - width // 2 for name, width in layout.widths.items()}
    assert masked_difference(network, plan, layout, torch.rand(4, *INPUT_SHAPE)) < 1e-5


def test_hard_filters_of_transposed_convolutions_and_their_scales_are_zero() -> None:
    network = Decoder()
    (group,) = (g for g in find_layout(network, INPUT_SHAPE, EVERY).groups if g.name == "up")
    scale_filters(network, group, [1, 4], 0.0)
    rest = [0, 2, 3, 5]
    for emitted in (network.up.weight[0], network.norm.weight, network.gamma[0]):
        assert not emitted[[1, 4]].any()
        assert emitted[rest].flatten(1).any(dim=1).all() if emitted.dim() > 1 else True
