"""Small networks with the structures that surgery gets wrong, to test methods on.

They take images of 3x8x8 and tell four classes apart. Batch norms have scales, shifts and running
statistics of a trained network's kind, so that a filter zeroed without its shift is noticed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.structure.layout import LayerPolicy, Layout, find_layout

INPUT_SHAPE = (3, 8, 8)
CLASSES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A network and the layer policy it shows."""

    build: Callable[[], nn.Module]
    policy: LayerPolicy = field(default_factory=LayerPolicy)

    def network(self, seed: int = 0) -> nn.Module:
        """Build the network with weights that depend on ``seed`` only, in training mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.build()
            _vary_norms(network)
        return network

    def layout(self) -> Layout:
        """Return the groups of the networks built here, found once."""
        return _find_layout(self)


@cache
def _find_layout(example: Example) -> Layout:
    return find_layout(example.network(), INPUT_SHAPE, example.policy)


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Build a convolution that keeps the resolution (but for its stride), and its batch norm."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """A branch added to a shortcut; a rectifier follows unless the block is ``linear``."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, *, linear: bool = False) -> None:
        super().__init__()
        self.branch, self.shortcut, self.linear = branch, shortcut, linear

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the sum of both branches."""
        total: Tensor = self.branch(images) + self.shortcut(images)
        return total if self.linear else F.relu(total)


class ZeroPad(nn.Module):
    """A shortcut without parameters: every other pixel, and ``extra`` channels of zeros."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.before, self.after = extra // 2, extra - extra // 2

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C + extra, H/2, W/2]``."""
        return F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def plain() -> nn.Module:
    """Build four convolutions; the last feeds a linear layer, four positions per channel."""
    return nn.Sequential(
        *conv_norm(3, 8),
        nn.ReLU(),
        *conv_norm(8, 12, stride=2),
        nn.ReLU(),
        *conv_norm(12, 16),
        nn.ReLU(),
        *conv_norm(16, 10, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(10 * 2 * 2, CLASSES),
    )


def _basic_branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(inputs, outputs, stride=stride), nn.ReLU(), conv_norm(outputs, outputs)
    )


def residual_pad() -> nn.Module:
    """Build basic blocks; where the width grows, the shortcut is padded with zeros."""
    return nn.Sequential(
        *conv_norm(3, 8),
        nn.ReLU(),
        Block(_basic_branch(8, 8, 1), nn.Identity()),
        Block(_basic_branch(8, 12, 2), ZeroPad(4)),
        _head(12),
    )


def residual_projection() -> nn.Module:
    """Build basic blocks; where the width grows, the shortcut is a 1x1 convolution."""
    return nn.Sequential(
        *conv_norm(3, 8),
        nn.ReLU(),
        Block(_basic_branch(8, 12, 2), conv_norm(8, 12, 1, stride=2)),
        Block(_basic_branch(12, 12, 1), nn.Identity()),
        _head(12),
    )


def bottleneck() -> nn.Module:
    """Build blocks of 1x1, 3x3 and 1x1 convolutions around a narrow middle."""

    def branch(inputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            conv_norm(inputs, 8, 1),
            nn.ReLU(),
            conv_norm(8, 8, stride=stride),
            nn.ReLU(),
            conv_norm(8, 16, 1),
        )

    return nn.Sequential(
        *conv_norm(3, 8),
        nn.ReLU(),
        Block(branch(8, 2), conv_norm(8, 16, 1, stride=2)),
        Block(branch(16, 1), nn.Identity()),
        _head(16),
    )


def inverted_residual() -> nn.Module:
    """Build blocks that widen, filter each channel by itself (depthwise), and narrow again."""

    def branch(width: int, outputs: int, inner: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            conv_norm(width, inner, 1),
            nn.ReLU6(),
            conv_norm(inner, inner, stride=stride, groups=inner),
            nn.ReLU6(),
            conv_norm(inner, outputs, 1),
        )

    return nn.Sequential(
        *conv_norm(3, 6),
        nn.ReLU6(),
        Block(branch(6, 6, 12, 1), nn.Identity(), linear=True),
        branch(6, 8, 18, 2),
        _head(8),
    )


def grouped() -> nn.Module:
    """Build a chain with a grouped convolution, whose own and whose inputs' filters must stay."""
    return nn.Sequential(
        *conv_norm(3, 8),
        nn.ReLU(),
        *conv_norm(8, 10),
        nn.ReLU(),
        *conv_norm(10, 8),
        nn.ReLU(),
        *conv_norm(8, 12, groups=4),
        nn.ReLU(),
        *conv_norm(12, 9, 1, stride=2),
        nn.ReLU(),
        _head(9),
    )


#: What the contract of every method is asked on.
EXAMPLES: Mapping[str, Example] = {
    "plain": Example(build=plain, policy=LayerPolicy(protect_stem=False)),
    "residual_pad": Example(build=residual_pad),
    "residual_projection": Example(build=residual_projection),
    "residual_stream": Example(build=residual_projection, policy=LayerPolicy(kind="coupled")),
    "bottleneck": Example(build=bottleneck),
    "inverted_residual": Example(build=inverted_residual),
    "grouped": Example(build=grouped),
}


@torch.no_grad()
def _vary_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
