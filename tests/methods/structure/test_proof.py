"""Networks as people write them: cut right, or left whole with the reason."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from methods import (
    LayerPolicy,
    Layout,
    LayoutError,
    PruningPlan,
    count_cost,
    find_layout,
    masked,
    shrink,
)
from methods.structure.groups import PolicyKind
from methods.testing import INPUT_SHAPE
from methods.testing.example_networks import conv_norm


class Through(nn.Module):
    """Any function of its input."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


class Chain(nn.Module):
    """A stem, a convolution of 8 filters, something between, one more convolution, a head."""

    def __init__(self, between: nn.Module, read: int = 8) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1)
        self.between, self.last = between, nn.Conv2d(read, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        read = self.between(self.first(self.stem(images).relu()))
        logits: Tensor = self.head(self.last(read).relu().mean(dim=(2, 3)))
        return logits


class Learned(nn.Module):
    """A parameter or buffer that is multiplied in."""

    def __init__(self, value: Tensor, *, buffer: bool = False) -> None:
        super().__init__()
        if buffer:
            self.register_buffer("value", value)
        else:
            self.value = nn.Parameter(value)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.value


class Blur(nn.Module):
    """A fixed kernel for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.rand(8, 1, 3, 3))

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self.kernel, Tensor)
        return F.conv2d(images, self.kernel, groups=8)


def exact(network: nn.Module, policy: LayerPolicy | None = None) -> Layout:
    """Cut half of each group at random; hold outputs and cost, and train a step."""
    network.eval()
    layout = find_layout(network, INPUT_SHAPE, policy or LayerPolicy())
    draw = torch.Generator().manual_seed(1)
    kept = {
        group.name: tuple(sorted(torch.randperm(group.width, generator=draw)[::2].tolist()))
        for group in layout.groups
    }
    plan = PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)
    images = torch.randn(3, *INPUT_SHAPE, generator=draw)
    small = copy.deepcopy(network)
    shrink(small, plan, layout)
    with torch.no_grad():
        expected = masked(network, plan, layout)(images)
        got = small(images)
    spread = expected.max() - expected.min()
    assert (got - expected).abs().max() < 1e-4 * spread
    counted = count_cost(small, INPUT_SHAPE)
    assert counted == (layout.cost_of("macs", kept), layout.cost_of("params", kept))
    assert counted.macs < layout.cost.dense("macs")
    small.train()(images).sum().backward()
    return layout


PRUNED: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "plus_one": lambda: Through(lambda x: x.relu() + 1),
    "one_slope": nn.PReLU,
    "slope_per_channel": lambda: nn.PReLU(8),
    "norm_without_parameters": lambda: nn.BatchNorm2d(8, affine=False),
    "scalar": lambda: Learned(torch.tensor(0.7)),
    "scalar_of_one": lambda: Learned(torch.tensor([0.7])),
    "positions": lambda: Through(lambda x: x.transpose(2, 3)),
    "dropout": lambda: nn.Dropout2d(0.3),
}
WHOLE: dict[str, Callable[[], nn.Module]] = {
    "softmax_over_channels": lambda: nn.Softmax(1),
    "mean_over_channels": lambda: Through(lambda x: x * x.mean(1, keepdim=True).sigmoid()),
    "shuffle": lambda: nn.ChannelShuffle(2),
    "sort": lambda: Through(lambda x: x.sort(1).values),
    "flip": lambda: Through(lambda x: x.flip(1)),
    "cumulated": lambda: Through(lambda x: x.cumsum(1)),
    "indexed": lambda: Through(lambda x: x[:, [3, 1, 0, 2, 7, 6, 5, 4]]),
    "buffer_per_channel": lambda: Learned(torch.rand(8, 1, 1), buffer=True),
    "fixed_kernels": Blur,
    "written_down_width": lambda: Through(lambda x: x.reshape(-1, 8, *x.shape[2:])),
    "group_norm": lambda: nn.GroupNorm(2, 8),
}


@pytest.mark.parametrize("between", list(PRUNED))
def test_filters_behind_what_keeps_channels_apart_are_cut(between: str) -> None:
    assert list(exact(Chain(PRUNED[between]())).widths) == ["first", "last"]


@pytest.mark.parametrize("between", list(WHOLE))
def test_filters_whose_channels_are_mixed_or_fixed_stay_and_the_others_go(between: str) -> None:
    layout = exact(Chain(WHOLE[between]()))
    assert list(layout.widths) == ["last"]
    assert layout.left_whole["stem"] == "protected"
    assert layout.left_whole["first"]


class OneConvBlocks(nn.Module):
    """Residual blocks of a single convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.one, self.two = conv_norm(8, 8), conv_norm(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.down(self.stem(images).relu())
        stream = stream + self.one(stream).relu()
        stream = stream + self.two(stream).relu()
        logits: Tensor = self.head(stream.mean(dim=(2, 3)))
        return logits


def test_a_convolution_that_reads_the_stream_it_writes_is_a_producer_of_it() -> None:
    layout = exact(OneConvBlocks(), LayerPolicy(kind="coupled"))
    (group,) = layout.groups
    assert group.producers == ("down", "one.0", "two.0")
    assert {member.layer for member in group.inputs} == {"one.0", "two.0", "head"}
    with pytest.raises(LayoutError, match="'coupled' prunes as a whole"):
        find_layout(OneConvBlocks(), INPUT_SHAPE, LayerPolicy())


class SharedHead(nn.Module):
    """One head over two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fine, self.coarse = (
            nn.Conv2d(3, 6, 3),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, 2, 1),
        )
        self.inner, self.head = nn.Conv2d(8, 5, 1), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(self.stem(images).relu())
        scales = (fine, self.coarse(fine))
        read = sum(self.inner(scale).relu().mean(dim=(2, 3)) for scale in scales)
        logits: Tensor = self.head(read)
        return logits


def test_what_feeds_one_head_at_two_scales_is_one_group() -> None:
    assert list(exact(SharedHead()).widths) == ["inner"]
    layout = exact(SharedHead(), LayerPolicy(kind="coupled"))
    assert {group.name: group.producers for group in layout.groups} == {
        "fine": ("fine", "coarse"),
        "inner": ("inner",),
    }


class Computed(nn.Module):
    """Convolutions whose weights are computed."""

    def __init__(self, wrap: Callable[[nn.Conv2d], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.first, self.last = wrap(nn.Conv2d(6, 8, 3)), wrap(nn.Conv2d(8, 8, 3))
        self.mid, self.head = nn.Conv2d(8, 5, 1), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        read = self.last(self.first(self.stem(images).relu()).relu()).relu()
        logits: Tensor = self.head(self.mid(read).relu().mean(dim=(2, 3)))
        return logits


class Standardised(nn.Conv2d):
    """Weight standardisation with a gain for each filter."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, images: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        std = self.weight.std(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(images, (self.weight - mean) / std * self.gain, self.bias)


@pytest.mark.parametrize(
    ("wrap", "groups"),
    [
        (parametrizations.weight_norm, ["last", "mid"]),
        (parametrizations.spectral_norm, ["mid"]),
        (lambda conv: Standardised(conv.in_channels, conv.out_channels, 3), ["last", "mid"]),
    ],
    ids=["weight_norm", "spectral_norm", "standardised"],
)
def test_computed_weights_lose_rows_that_stand_alone_and_no_columns(
    wrap: Callable[[nn.Conv2d], nn.Module], groups: list[str]
) -> None:
    assert list(exact(Computed(wrap)).widths) == groups


class Tied(Chain):
    """Two convolutions that are one weight."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 8, 1), 8)
        self.again = nn.Conv2d(8, 8, 1)
        assert isinstance(self.between, nn.Conv2d)
        self.again.weight = self.between.weight

    def forward(self, images: Tensor) -> Tensor:
        read = self.again(self.between(self.first(self.stem(images).relu())).relu())
        logits: Tensor = self.head(self.last(read).relu().mean(dim=(2, 3)))
        return logits


def test_tied_weights_stay_whole_and_count_once() -> None:
    network = Tied()
    layout = exact(network)
    assert list(layout.widths) == ["last"]
    assert "shares its weight" in layout.left_whole["between"]
    assert layout.cost.dense("params") == sum(p.numel() for p in network.parameters())


class Auxiliary(Chain):
    """A head of its own while training."""

    def __init__(self) -> None:
        super().__init__(nn.ReLU())
        self.auxiliary = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        middle = self.between(self.first(self.stem(images).relu()))
        logits: Tensor = self.head(self.last(middle).relu().mean(dim=(2, 3)))
        if self.training:
            logits = logits + self.auxiliary(middle.mean(dim=(2, 3)))
        return logits


def test_what_only_a_training_head_reads_is_not_overlooked() -> None:
    layout = exact(Auxiliary())
    assert list(layout.widths) == ["last"]
    assert "fails" in layout.left_whole["first"]


class FrozenTrunk(Chain):
    """A trunk under ``no_grad``, as in transfer learning."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            read = self.between(self.first(self.stem(images).relu()))
        logits: Tensor = self.head(self.last(read).relu().mean(dim=(2, 3)))
        return logits


def test_a_trunk_that_learns_nothing_stays_whole() -> None:
    layout = exact(FrozenTrunk(nn.ReLU()))
    assert list(layout.widths) == ["last"]
    assert layout.left_whole["first"].startswith("no gradient")


class Outer(Chain):
    """Every channel times every other."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 24, 1), 24)
        self.head = nn.Linear(24 * 24, 4)

    def forward(self, images: Tensor) -> Tensor:
        read = self.between(self.first(self.stem(images).relu())).flatten(2)
        logits: Tensor = self.head((read @ read.transpose(1, 2)).flatten(1))
        return logits


def test_filters_that_cannot_be_told_apart_are_given_up_soon() -> None:
    layout = exact(Outer())
    assert list(layout.widths) == ["first"]
    assert layout.left_whole["between"]


def test_a_network_that_would_run_on_an_image_without_its_batch_is_traced_on_one_with_it() -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.LeakyReLU(0.2, inplace=True)),
        *(nn.Conv2d(6, 8, 3), nn.LeakyReLU(0.2, inplace=True)),
        *(nn.Conv2d(8, 4, 4), nn.Flatten()),
    )
    assert list(exact(network).widths) == ["2"]


@dataclass
class Found:
    """Logits among other things, as libraries return them."""

    logits: Tensor
    loss: Tensor | None = None


class Wrapped(Chain):
    """Returns its logits with something else, which may be nothing, and keeps what it saw."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__(nn.ReLU())
        self.wrap, self.seen = wrap, torch.zeros(0)
        self.order = nn.Parameter(torch.arange(8), requires_grad=False)

    def forward(self, images: Tensor) -> Any:
        read = self.seen = self.between(self.first(self.stem(images).relu()))
        logits = self.head(self.last(read).relu().mean(dim=(2, 3)))
        return self.wrap(logits, read)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits, read: (logits, None),
        lambda logits, read: {"logits": logits, "features": read.mean().detach(), "count": 3},
        lambda logits, read: Found(logits),
    ],
    ids=["none", "detached", "dataclass"],
)
def test_logits_are_found_among_other_things(wrap: Callable[[Tensor, Tensor], Any]) -> None:
    layout = find_layout(Wrapped(wrap), INPUT_SHAPE, LayerPolicy())
    assert list(layout.widths) == ["first", "last"]


def test_a_network_that_gives_no_tensor_is_not_cut_unproven() -> None:
    with pytest.raises(LayoutError, match="no layer of Wrapped may be pruned"):
        find_layout(Wrapped(lambda logits, _: logits.tolist()), INPUT_SHAPE, LayerPolicy())


@pytest.mark.parametrize("kind", ["scatter", "stripes"])
def test_a_frozen_trunk_stays_whole_under_every_policy(kind: PolicyKind) -> None:
    class FrozenResidual(Chain):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                read = self.first(self.stem(images).relu())
            read = self.between(read).relu()
            logits: Tensor = self.head((self.last(read) + read).mean(dim=(2, 3)))
            return logits

    network = FrozenResidual(nn.Conv2d(8, 8, 3, padding=1))
    network.last, network.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
    layout = find_layout(network, INPUT_SHAPE, LayerPolicy(kind=kind))
    assert list(layout.widths)[-1] == "last"


class Recurrent(Chain):
    """Reads its rows one after another."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.unit, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        read = self.last(self.first(self.stem(images).relu()).relu()).mean(dim=3)
        logits: Tensor = self.head(self.unit(read.transpose(1, 2))[0][:, -1])
        return logits


def test_what_a_recurrent_unit_reads_stays_whole_and_the_others_go() -> None:
    layout = exact(Recurrent())
    assert list(layout.widths) == ["first"]
    assert "cannot be followed" in layout.left_whole["last"]


def test_a_scripted_network_is_refused_with_the_way_out() -> None:
    with pytest.warns(FutureWarning, match="jit"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)))
    with pytest.raises(LayoutError, match="before it is scripted"):
        find_layout(scripted, INPUT_SHAPE, LayerPolicy())


def test_a_branch_that_begins_at_zero_hides_nothing() -> None:
    layout = find_layout(Chain(Learned(torch.zeros(1))), INPUT_SHAPE, LayerPolicy())
    assert list(layout.widths) == ["first", "last"]
    with torch.no_grad():
        network = Chain(nn.Sequential(nn.ChannelShuffle(2), Learned(torch.zeros(1))))
    assert list(find_layout(network, INPUT_SHAPE, LayerPolicy()).widths) == ["last"]
