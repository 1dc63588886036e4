"""What else loses a channel when one filter goes: torch-pruning's dependencies, all of them.

Its own walk meets a channel again and again where a network mixes channels, and then takes hours;
this one meets each once, and stops at a limit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency.shape_infer import infer_out_channels_recursively

from methods.errors import LayoutError
from methods.structure.cost import evaluation_mode, input_like, output_tensors
from methods.structure.groups import Shape
from methods.structure.limits import GroupingLimitError, Watch
from methods.structure.narrowing import blocks_of, is_separable, scaling_dim

Channels = dict[int, set[int]]  #: Channel indices of one layer, by filter.

#: Channels that may go with each filter, on the average over its layers; a filter of a
#: one-to-one group takes as many as a flattened image has positions.
_CHANNELS_PER_FILTER = 4096


#: How autograd's names of what attention does to its values begin; cut channels show up elsewhere.
_OF_ATTENTION = ("Softmax", "ScaledDotProduct", "Bmm", "Baddbmm")


class _WatchedGraph(tp.DependencyGraph):  # type: ignore[misc]  # torch-pruning has no types
    """A dependency graph that is built within limits: it asks for a pruner at every step."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def get_pruner_of_module(self, module: nn.Module) -> Any:
        self._watch.look()
        return super().get_pruner_of_module(module)

    def get_out_channels(self, module_or_node: Any) -> int | None:
        """Return what is emitted; an activation with one slope emits what it is given.

        torch-pruning asks the last input of such a one, which is the slope, and has no answer.
        """
        node = self.module2node.get(module_or_node, module_or_node)
        module = getattr(node, "module", None)
        if isinstance(module, nn.PReLU) and module.num_parameters == 1 and node.inputs:
            found: int | None = infer_out_channels_recursively(self, node.inputs[0], [0])
        else:
            found = super().get_out_channels(module_or_node)
        return found


def trace(network: nn.Module, input_shape: Shape, watch: Watch) -> tp.DependencyGraph:
    """Trace the dependency graph of ``network`` in evaluation mode.

    Raises:
        LayoutError: The network does not run on an image of this shape, or cannot be traced.
        GroupingLimitError: It takes too long, or too much memory.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise LayoutError(
            f"{type(network).__name__} is compiled by TorchScript, whose layers cannot be "
            "narrowed. Give the network before it is scripted."
        )
    wanted_grad = [p.requires_grad for p in network.parameters()]
    for parameter in network.parameters():  # the tracer follows autograd
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    try:
        with evaluation_mode(network), torch.enable_grad():
            graph = _WatchedGraph(watch)
            return graph.build_dependency(
                network,
                example_inputs=input_like(network, input_shape),
                forward_fn=lambda traced, images: traced(images),  # not one image, without its N
                output_transform=_learned,
                verbose=False,
            )
    except GroupingLimitError:
        raise
    except Exception as error:  # a user's network raises anything
        raise LayoutError(
            f"{type(network).__name__} cannot be traced on an image of shape {input_shape}: {error}"
        ) from error
    finally:
        for parameter, wanted in zip(network.parameters(), wanted_grad, strict=True):
            parameter.requires_grad_(wanted)


def _learned(given: Any) -> list[Tensor]:
    """Return the tensors that came of what a network learns, wherever they are in its outputs."""
    return [tensor for tensor in output_tensors(given) if tensor.grad_fn is not None]


class TooCoupledError(LayoutError):
    """The filters of a convolution drag along more channels than can be followed."""


@dataclass(kw_only=True)
class Coupling:
    """The channels that go with each filter of one convolution, by layer."""

    outputs: dict[str, Channels] = field(default_factory=dict)  #: What emits them.
    inputs: dict[str, Channels] = field(default_factory=dict)  #: What reads them.
    passed: list[str] = field(default_factory=list)  #: What they pass that is neither.
    mixed_by: str | None = None  #: An operation of attention that they go through.


def coupled_channels(
    graph: tp.DependencyGraph,
    conv: nn.Module,
    width: int,
    names: Mapping[nn.Module, str],
    per_channel: tuple[type[nn.Module], ...],
    watch: Watch,
    *,
    by_block: bool = False,
) -> Coupling:
    """Follow the dependencies of every filter of ``conv``.

    Args:
        graph: The traced network.
        conv: Where to begin.
        width: Filters it has.
        names: Layers by name.
        per_channel: Kinds of layers that may lose one channel and leave the rest as they were.
        watch: Ends it at the limits.
        by_block: A convolution or norm in groups loses whole groups: all channels of one go
            together, and so do scales per channel.

    Raises:
        TooCoupledError: Each filter drags too many channels along.
    """
    coupling = Coupling()
    for (node, handler), pairs in _walk(graph, conv, width, watch, by_block).items():
        layer = node.module
        if isinstance(layer, nn.Parameter):
            name = _name_of(graph, layer)
            if by_block and scaling_dim(layer) is not None:
                _add(coupling.outputs, name, pairs)
            else:
                coupling.passed.append(name)
        operation = node.grad_fn.name() if hasattr(node.grad_fn, "name") else ""
        if operation.startswith(_OF_ATTENTION) and not isinstance(layer, nn.Linear):
            coupling.mixed_by = operation
        if layer not in names:  # an operation such as add or reshape
            continue
        name = names[layer]
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            continue  # one slope for all channels
        if not is_separable(layer, per_channel):
            coupling.passed.append(name)
        emits = graph.is_out_channel_pruning_fn(handler)
        _add(coupling.outputs if emits else coupling.inputs, name, pairs)
    return coupling


def _add(members: dict[str, Channels], name: str, pairs: Iterable[tuple[int, int]]) -> None:
    channels = members.setdefault(name, {})
    for channel, filter_index in pairs:
        channels.setdefault(filter_index, set()).add(channel)


def in_units(coupling: Coupling, width: int) -> tuple[Coupling, int]:
    """Put filters that share a channel somewhere together; return what goes with each such unit.

    Returns:
        The coupling by unit, in the order of their first filters, and how many units there are.
    """
    leader = list(range(width))

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for members in (*coupling.outputs.values(), *coupling.inputs.values()):
        owner: dict[int, int] = {}
        for filter_index, channels in members.items():
            for channel in channels:
                one, other = lead(filter_index), lead(owner.setdefault(channel, filter_index))
                leader[max(one, other)] = min(one, other)
    place = {index: n for n, index in enumerate(sorted({lead(i) for i in range(width)}))}

    def by_unit(layers: Mapping[str, Channels]) -> dict[str, Channels]:
        found: dict[str, Channels] = {}
        for name, members in layers.items():
            for index, channels in members.items():
                found.setdefault(name, {}).setdefault(place[lead(index)], set()).update(channels)
        return found

    units = replace(coupling, outputs=by_unit(coupling.outputs), inputs=by_unit(coupling.inputs))
    return units, len(place)


def _walk(
    graph: tp.DependencyGraph, conv: nn.Module, width: int, watch: Watch, by_block: bool
) -> dict[tuple[Any, Any], set[tuple[int, int]]]:
    """Return pairs of channel and filter, by node and pruning function, in the order met."""
    root = graph.module2node[conv]
    begin = graph.get_pruner_of_module(conv).prune_out_channels
    found = {(root, begin): {(i, i) for i in range(width)}}
    waiting = [(root, begin, found[root, begin])]
    left = _CHANNELS_PER_FILTER * width
    while waiting:
        watch.look()
        node, function, pairs = waiting.pop()
        if by_block and (blocks := blocks_of(node.module)) > 1:
            for side, whole in _whole_blocks(graph, node.module, function, pairs, blocks):
                known = found.setdefault((node, side), set())
                more = whole - known
                if more:
                    known |= more
                    left -= len(more)
                    waiting.append((node, side, more))
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(function):
                continue
            indices = _mapped(dependency, pairs)
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


def _mapped(dependency: Any, pairs: set[tuple[int, int]]) -> list[_HybridIndex]:
    """Return what becomes of channels on the way to what depends on them.

    Raises:
        TooCoupledError: torch-pruning has taken an operation for another one.
    """
    indices = [_HybridIndex(idx=channel, root_idx=root) for channel, root in pairs]
    try:
        for mapping in dependency.index_mapping:
            if mapping is not None:
                indices = mapping(indices)
    except Exception as error:  # of a kind that it did not foresee
        raise TooCoupledError(
            f"its channels cannot be followed through {dependency.source.name}"
        ) from error
    return indices


def _whole_blocks(
    graph: tp.DependencyGraph,
    layer: nn.Module,
    function: Any,
    pairs: set[tuple[int, int]],
    blocks: int,
) -> list[tuple[Any, set[tuple[int, int]]]]:
    """Return all channels of the groups that ``pairs`` touch in ``layer``, read and emitted."""
    pruner = graph.get_pruner_of_module(layer)
    emits, reads = pruner.prune_out_channels, pruner.prune_in_channels
    counts = {emits: pruner.get_out_channels(layer), reads: pruner.get_in_channels(layer)}
    size = counts[function] // blocks
    touched = {(channel // size, filter_index) for channel, filter_index in pairs}
    return [
        (
            side,
            {
                (channel, filter_index)
                for block, filter_index in touched
                for channel in range(block * count // blocks, (block + 1) * count // blocks)
            },
        )
        for side, count in counts.items()
    ]


def _name_of(graph: tp.DependencyGraph, parameter: nn.Parameter) -> str:
    named = graph.model.named_parameters()
    return next((name for name, p in named if p is parameter), "a parameter")
