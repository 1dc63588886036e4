"""Networks with half of their MACs, without training: what is left out does not matter to time."""

import math

import numpy as np
import torch
from torch import nn

from benchmarks.loops import Case, Prepare
from methods import Layout, PruningPlan
from methods.criteria.allocation import meet_target
from methods.structure.cost import CostTarget, Counts
from methods.structure.surgery import shrink
from workers.networks.shapes import layout_of
from workers.settings import LayerSettings, Unit

HALF = CostTarget(axis="macs", reduction=0.5)


def layout_for(case: Case, network: nn.Module, unit: Unit = "filters") -> Layout:
    """Find what may go of a network under the policy that is the default."""
    return layout_of(network, case.info.input_shape, LayerSettings(), unit)


def uniform_ratios(layout: Layout, target: CostTarget) -> dict[str, float]:
    """Return one ratio for all groups, rounded to whole filters, that meets a target."""
    model = layout.cost

    def counts(scale: float) -> Counts:
        share = scale / (1.0 + scale)
        kept = [max(1, math.floor(share * width)) for width in model.widths]
        return np.array(kept, dtype=np.int64)

    return meet_target(model, target, counts)


def halved(case: Case, unit: Unit = "filters") -> Prepare:
    """Return what takes half of the MACs from a network, filters or stripes drawn at random."""

    def halve(network: nn.Module) -> None:
        layout = layout_for(case, network, unit)
        ratios = uniform_ratios(layout, HALF)
        draws = torch.Generator().manual_seed(0)
        kept = {}
        for name, width in layout.widths.items():
            order = torch.randperm(width, generator=draws)
            kept[name] = tuple(sorted(order[: width - round(ratios[name] * width)].tolist()))
        shrink(
            network, PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept), layout
        )

    return halve
