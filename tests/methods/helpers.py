"""What several tests of this folder need."""

import torch
from torch import Tensor, nn

from methods.base import Filters
from methods.structure.layout import Group, Layout


def filters(weight: Tensor, *, scale: Tensor | None = None, seed: int = 0) -> Filters:
    """Return filters as a criterion sees them, without a shift."""
    generator = torch.Generator().manual_seed(seed)
    return Filters(weight=weight, scale=scale, shift=None, generator=generator)


def same_ratio(layout: Layout, ratio: float) -> dict[str, float]:
    """Give every group the same ratio."""
    return dict.fromkeys(layout.widths, ratio)


def norm_of(network: nn.Module, group: Group) -> nn.BatchNorm2d:
    """Return the batch norm behind the first producer of ``group``."""
    norm = network.get_submodule(group.norms[0] or "")
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def logits(network: nn.Module, images: Tensor) -> Tensor:
    """Run ``network`` in evaluation mode."""
    with torch.no_grad():
        output: Tensor = network.eval()(images)
    return output
