"""Layer settings applied to a network: what may shrink, and shapes trained from scratch."""

import math
from typing import Final

import torch
from torch import nn

from methods import LayerPolicy, Layout, LayoutError, PruningPlan, find_layout, remove_filters
from workers.settings import LayerSettings, PolicyName, Unit

#: Every one that prunes filters; where two let as much go, the first is taken.
POLICIES: Final[tuple[PolicyName, ...]] = ("inside_blocks", "scatter", "coupled", "every_layer")


def layout_of(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    layers: LayerSettings,
    unit: Unit = "filters",
) -> Layout:
    """Find what ``layers`` lets shrink in ``network``.

    Args:
        network: The dense network.
        input_shape: ``(C, H, W)`` of one image.
        layers: Their policy is that for filters, ``auto`` the one under which the most MACs can go;
            stripes have one of their own.
        unit: What is pruned.

    Raises:
        LayoutError: Nothing may be pruned, or the policy does not fit the network.
    """
    if unit == "filters" and layers.policy == "auto":
        return _widest(network, input_shape, layers)
    return find_layout(network, input_shape, policy_of(layers, unit))


def _widest(network: nn.Module, input_shape: tuple[int, int, int], layers: LayerSettings) -> Layout:
    found, refused = [], []
    for policy in POLICIES:
        try:
            named = layers.model_copy(update={"policy": policy})
            found.append(find_layout(network, input_shape, policy_of(named)))
        except LayoutError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return min(found, key=_least_macs)


def _least_macs(layout: Layout) -> int:
    return layout.cost_of("macs", {group.name: (0,) for group in layout.groups})


def policy_of(layers: LayerSettings, unit: Unit = "filters") -> LayerPolicy:
    """Return what ``layers`` says about what is pruned; stripes have a policy of their own."""
    kind = layers.policy if unit == "filters" else unit
    assert kind != "auto"  # settled before anything is pruned
    return LayerPolicy(
        kind=kind,
        protect=layers.protect,
        protect_stem=layers.protect_stem,
    )


@torch.no_grad()
def shrink_fresh(network: nn.Module, plan: PruningPlan, layout: Layout) -> None:
    """Give a freshly initialised network the shape of ``plan``, fit to be trained from scratch.

    Which filters stay does not matter, for none has learned anything. Layers that read fewer
    channels are scaled up as an initialisation for that many would have been. Convolutions that
    lose stripes are not broken yet.

    Raises:
        PlanError: The plan was made for other groups or widths.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    fan_in = {name: layer.weight[0].numel() for name, layer in layers.items()}
    remove_filters(network, plan, layout)
    striped = {group.name for group in layout.groups if group.taps > 1}
    for name, layer in layers.items():
        left = _fan_in_of_stripes(layer) if name in striped else layer.weight[0].numel()
        layer.weight.mul_(math.sqrt(fan_in[name] / left))


def _fan_in_of_stripes(layer: nn.Module) -> float:
    """Return the weights that a filter has on average, of those that have any."""
    assert isinstance(layer, nn.Conv2d)
    stripes = (layer.weight != 0.0).any(dim=1)  # [N, K, K]
    filters = int(stripes.flatten(1).any(dim=1).sum())
    return int(stripes.sum()) * layer.weight.shape[1] / filters
