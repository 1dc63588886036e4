"""What else loses a channel when one filter goes: torch-pruning's dependencies, all of them.

Its own walk meets a channel again and again where a network mixes channels, and then takes hours;
this one meets each once, and stops at a limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning._helpers import _HybridIndex

from methods.errors import LayoutError
from methods.structure.limits import Watch

Channels = dict[int, set[int]]  #: Channel indices of one layer, by filter.

#: Channels that may go with each filter, on the average over its layers; a filter of a
#: one-to-one group takes as many as a flattened image has positions.
_CHANNELS_PER_FILTER = 4096


class TooCoupledError(LayoutError):
    """The filters of a convolution drag along more channels than can be followed."""


@dataclass(kw_only=True)
class Coupling:
    """The channels that go with each filter of one convolution, by layer."""

    outputs: dict[str, Channels] = field(default_factory=dict)  #: What emits them.
    inputs: dict[str, Channels] = field(default_factory=dict)  #: What reads them.
    passed: list[str] = field(default_factory=list)  #: What they pass that is neither.


def coupled_channels(
    graph: tp.DependencyGraph,
    conv: nn.Module,
    width: int,
    names: Mapping[nn.Module, str],
    per_channel: tuple[type[nn.Module], ...],
    watch: Watch,
) -> Coupling:
    """Follow the dependencies of every filter of ``conv``.

    Args:
        graph: The traced network.
        conv: Where to begin.
        width: Filters it has.
        names: Layers by name.
        per_channel: Kinds of layers that may lose one channel and leave the rest as they were.
        watch: Ends it at the limits.

    Raises:
        TooCoupledError: Each filter drags too many channels along.
    """
    coupling = Coupling()
    for (node, handler), pairs in _walk(graph, conv, width, watch).items():
        layer = node.module
        if isinstance(layer, nn.Parameter):
            coupling.passed.append(_name_of(graph, layer))
        if layer not in names:  # an operation such as add or reshape
            continue
        name = names[layer]
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            continue  # one slope for all channels
        if not isinstance(layer, per_channel):
            coupling.passed.append(name)
        emits = graph.is_out_channel_pruning_fn(handler)
        channels = (coupling.outputs if emits else coupling.inputs).setdefault(name, {})
        for channel, filter_index in pairs:
            channels.setdefault(filter_index, set()).add(channel)
    return coupling


def _walk(
    graph: tp.DependencyGraph, conv: nn.Module, width: int, watch: Watch
) -> dict[tuple[Any, Any], set[tuple[int, int]]]:
    """Return pairs of channel and filter, by node and pruning function, in the order met."""
    root, begin = graph.module2node[conv], tp.prune_conv_out_channels
    found = {(root, begin): {(i, i) for i in range(width)}}
    waiting = [(root, begin, found[root, begin])]
    left = _CHANNELS_PER_FILTER * width
    while waiting:
        watch.look()
        node, function, pairs = waiting.pop()
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(function):
                continue
            indices = [_HybridIndex(idx=channel, root_idx=root) for channel, root in pairs]
            for mapping in dependency.index_mapping:
                if mapping is not None:
                    indices = mapping(indices)
            known = found.setdefault((dependency.target, dependency.handler), set())
            fresh = {(i.idx, i.root_idx) for i in indices} - known
            if not fresh:
                continue
            known |= fresh
            left -= len(fresh)
            if left < 0:
                raise TooCoupledError("its filters cannot be told apart behind an operation on all")
            waiting.append((dependency.target, dependency.handler, fresh))
    return {key: pairs for key, pairs in found.items() if pairs}


def _name_of(graph: tp.DependencyGraph, parameter: nn.Parameter) -> str:
    named = graph.model.named_parameters()
    return next((name for name, p in named if p is parameter), "a parameter")
