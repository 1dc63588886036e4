"""Networks put together at random: what is cut computes, and costs, what is told before.

A failing example is printed as the recipe of its network, made small; the same networks come with
``pytest --hypothesis-seed=N``.
"""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods import LayerPolicy, Layout, PruningPlan, count_cost, find_layout, masked_difference
from methods.structure.groups import PolicyKind
from methods.structure.surgery import shrink

SHAPE = (3, 8, 8)
POLICIES: tuple[PolicyKind, ...] = ("inside_blocks", "coupled", "every_layer")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,  # and softplus: not 0 at 0
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "prelu": nn.PReLU,
}

Recipe = tuple[str, int, str]  #: Of a block: its kind, its width, its activation.


def conv(read: int, made: int, act: str, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(read, made, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2d(made),
        ACTIVATIONS[act](),
    )


class Block(nn.Module):
    """Layers that one of the functions below puts together."""

    width: int

    def __init__(self, read: int, width: int, act: str) -> None:
        super().__init__()
        self.width = width
        self.build(read, width, act)

    def build(self, read: int, width: int, act: str) -> None:
        raise NotImplementedError


class Chained(Block):
    def build(self, read: int, width: int, act: str) -> None:
        self.one, self.two = conv(read, width, act), conv(width, width, act)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))  # type: ignore[no-any-return]


class Residual(Block):
    def build(self, read: int, width: int, act: str) -> None:
        self.one, self.two = conv(read, width, act), conv(width, width, act)
        self.shortcut = nn.Identity() if read == width else nn.Conv2d(read, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.two(self.one(x))  # type: ignore[no-any-return]


class ReadsWhatItWrites(Block):
    """``x + f(x)`` with one convolution."""

    def build(self, read: int, width: int, act: str) -> None:
        self.first, self.one = conv(read, width, act), conv(width, width, act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.one(x)  # type: ignore[no-any-return]


class Concatenated(Block):
    def build(self, read: int, width: int, act: str) -> None:
        self.one, self.two = conv(read, width, act), conv(read, 4, act, kernel=1)
        self.width = width + 4

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.two(x)], dim=1)


class Dense(Block):
    """Concatenates what it reads with what it makes of that."""

    def build(self, read: int, width: int, act: str) -> None:
        self.one = conv(read, width, act)
        self.width = read + width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.one(x)], dim=1)


class Shared(Block):
    """One convolution, run twice in a row."""

    def build(self, read: int, width: int, act: str) -> None:
        self.first, self.twice = conv(read, width, act), nn.Conv2d(width, width, 3, padding=1)
        self.last = conv(width, width, act)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.twice(self.twice(self.first(x)).relu()))  # type: ignore[no-any-return]


class Depthwise(Block):
    def build(self, read: int, width: int, act: str) -> None:
        self.up, self.each = conv(read, width, act, kernel=1), conv(width, width, act, groups=width)
        self.down = conv(width, width, act, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.each(self.up(x)))  # type: ignore[no-any-return]


class InGroups(Block):
    def build(self, read: int, width: int, act: str) -> None:
        self.up, self.grouped = conv(read, width, act), conv(width, width, act, groups=2)
        self.norm, self.down = nn.GroupNorm(2, width), conv(width, width, act, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(self.grouped(self.up(x))))  # type: ignore[no-any-return]


class Gated(Block):
    """Channels scaled by what all of them are on average."""

    def build(self, read: int, width: int, act: str) -> None:
        self.one, self.last = conv(read, width, act), conv(width, width, act)
        self.squeeze, self.excite = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        gate = self.excite(self.squeeze(x.mean(dim=(2, 3), keepdim=True)).relu()).sigmoid()
        return self.last(x * gate)  # type: ignore[no-any-return]


class GatedInSpace(Block):
    """Pixels scaled by one map."""

    def build(self, read: int, width: int, act: str) -> None:
        self.one, self.map = conv(read, width, act), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return x * self.map(x).sigmoid()  # type: ignore[no-any-return]


BLOCKS: dict[str, type[Block]] = {
    kind.__name__: kind
    for kind in (
        *(Chained, Residual, ReadsWhatItWrites, Concatenated, Dense, Shared),
        *(Depthwise, InGroups, Gated, GatedInSpace),
    )
}


class Network(nn.Module):
    """A stem, some blocks, a convolution behind them, a hidden layer and a head."""

    def __init__(self, recipes: Sequence[Recipe], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        blocks, width = [], 4
        for kind, made, act in recipes:
            blocks.append(BLOCKS[kind](width, made, act))
            width = blocks[-1].width
        self.stem, self.blocks = conv(3, 4, "relu"), nn.Sequential(*blocks)
        self.last = conv(width, 6, "relu", kernel=1)
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):  # as trained ones are: 0 does not stay 0
                for value in (norm.running_mean, norm.weight.data, norm.bias.data):
                    assert value is not None
                    value.add_(torch.randn(value.shape) * 0.3)

    def forward(self, images: Tensor) -> Tensor:
        found = self.last(self.blocks(self.stem(images))).mean(dim=(2, 3))
        return self.head(self.hidden(found).relu())  # type: ignore[no-any-return]


def cut_at_random(layout: Layout, seed: int) -> PruningPlan:
    """Keep any number of each group's filters, anywhere in it."""
    draw = torch.Generator().manual_seed(seed)
    kept = {}
    for name, width in layout.widths.items():
        count = int(torch.randint(1, width + 1, (), generator=draw))
        kept[name] = tuple(sorted(torch.randperm(width, generator=draw)[:count].tolist()))
    return PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)


def hold(recipes: Sequence[Recipe], seed: int, policy: PolicyKind) -> None:
    network = Network(recipes, seed).eval()
    layout = find_layout(network, SHAPE, LayerPolicy(kind=policy))
    assert "last.0" in layout.widths
    made = [
        (member.layer, channel)
        for group in layout.groups
        for member in group.outputs
        for channel in itertools.chain.from_iterable(member.channels)
    ]
    assert len(made) == len(set(made)), "a channel belongs to two groups"
    plan, dense = cut_at_random(layout, seed), tuple(count_cost(network, SHAPE))
    predicted = (layout.cost_of("macs", plan.kept), layout.cost_of("params", plan.kept))
    assert all(0 < cost <= most for cost, most in zip(predicted, dense, strict=True))
    images = torch.rand(4, *SHAPE, dtype=torch.float64)
    assert masked_difference(network.double(), plan, layout, images) < 1e-9
    shrink(network.float(), plan, layout)
    assert tuple(count_cost(network, SHAPE)) == predicted


networks = st.lists(
    st.tuples(
        st.sampled_from(list(BLOCKS)), st.sampled_from([4, 6, 8]), st.sampled_from([*ACTIVATIONS])
    ),
    min_size=1,
    max_size=4,
)
seeds = st.integers(0, 2**31 - 1)
no_hurry = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@settings(no_hurry, max_examples=20, derandomize=True)
@given(recipes=networks, seed=seeds, policy=st.sampled_from(POLICIES))
def test_what_is_cut_of_any_network_computes_and_costs_what_is_told(
    recipes: list[Recipe], seed: int, policy: PolicyKind
) -> None:
    hold(recipes, seed, policy)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_kind_of_block_is_cut_exactly_where_it_follows_itself(
    kind: str, policy: PolicyKind
) -> None:
    hold([(kind, 6, "softplus"), (kind, 6, "relu")], 0, policy)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["Concatenated", "Dense"])
def test_activations_with_one_slope_are_followed(kind: str, policy: PolicyKind) -> None:
    hold([(kind, 6, "prelu"), ("Residual", 6, "prelu")], 0, policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@settings(no_hurry, max_examples=150)
@given(recipes=networks, seed=seeds)
def test_hundreds_of_networks(policy: PolicyKind, recipes: list[Recipe], seed: int) -> None:
    hold(recipes, seed, policy)
