"""Which filters can go: groups of layers that must lose the same ones, and what that saves.

Groups come from torch-pruning's dependency graph. The layer policy decides which of them may be
pruned: the same for every method of a comparison.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from methods.errors import LayoutError, nearest
from methods.structure.cost import evaluation_mode, input_like, output_positions
from methods.structure.groups import Group, LayerPolicy, Layout, Member, Shape
from methods.structure.predicted_cost import cost_model
from methods.structure.scatter import branch_ends, sole_norm, sole_readers
from methods.structure.stripes import by_stripe, can_lose_stripes

__all__ = ["Group", "LayerPolicy", "Layout", "Member", "Shape", "find_layout", "trace"]

#: Layers that may lose one channel and leave the rest as they were.
PER_CHANNEL = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.PReLU)


def trace(network: nn.Module, input_shape: Shape) -> tp.DependencyGraph:
    """Trace the dependency graph of ``network`` in evaluation mode.

    Raises:
        LayoutError: The network does not run on an image of this shape, or cannot be traced.
    """
    wanted_grad = [p.requires_grad for p in network.parameters()]
    network.requires_grad_(True)  # the tracer follows autograd
    try:
        with evaluation_mode(network), torch.enable_grad():
            return tp.DependencyGraph().build_dependency(
                network, example_inputs=input_like(network, input_shape), verbose=False
            )
    except (RuntimeError, LookupError, ArithmeticError, ValueError, TypeError) as error:
        raise LayoutError(
            f"{type(network).__name__} cannot be traced on an image of shape {input_shape}: {error}"
        ) from error
    finally:
        for parameter, wanted in zip(network.parameters(), wanted_grad, strict=True):
            parameter.requires_grad_(wanted)


def find_layout(network: nn.Module, input_shape: Shape, policy: LayerPolicy) -> Layout:
    """Find the groups of ``network`` that ``policy`` lets shrink, in the order they run.

    Raises:
        LayoutError: The network does not run on such images, nothing may be pruned, a protected
            pattern matches no layer, under ``coupled`` the residual streams do not carry their
            channels one to one, under ``scatter`` there is no residual block, or under ``stripes``
            no spatial convolution may be pruned.
    """
    graph = trace(network, input_shape)
    positions = output_positions(network, input_shape)
    convolutions = [n for n in positions if isinstance(network.get_submodule(n), nn.Conv2d)]
    protected = _protected(convolutions, policy)
    order = {name: i for i, name in enumerate(positions)}
    names = {module: name for name, module in network.named_modules()}
    found = list(_groups(network, graph, convolutions, names, policy))
    if policy.kind == "scatter":
        found += _scattered(network, graph, convolutions, names, found)
    groups = [
        group
        for group in found
        if not protected.intersection(group.producers) and not _reads_grouped(network, group)
    ]
    if policy.kind == "stripes":
        groups = list(_striped(network, graph, convolutions, names, protected, groups))
    if not groups:
        raise LayoutError(
            f"Under the layer policy {policy.kind!r} no layer of {type(network).__name__} may be "
            "pruned. Protect fewer layers or choose another policy."
        )
    groups.sort(key=lambda group: order[group.name])
    return Layout(
        groups=tuple(groups),
        cost=cost_model(network, positions, groups),
        policy=policy,
        input_shape=input_shape,
    )


def _protected(convolutions: list[str], policy: LayerPolicy) -> set[str]:
    protected = set(convolutions[:1]) if policy.protect_stem else set()
    for pattern in policy.protect:
        hits = {name for name in convolutions if fnmatchcase(name, pattern)}
        if not hits:
            raise LayoutError(
                f"The protected layer {pattern!r} matches no convolution; "
                f"{nearest(pattern, convolutions)}"
            )
        protected |= hits
    return protected


def _groups(
    network: nn.Module,
    graph: tp.DependencyGraph,
    convolutions: list[str],
    names: Mapping[nn.Module, str],
    policy: LayerPolicy,
) -> Iterator[Group]:
    seen: set[str] = set()
    for name in convolutions:
        conv = network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        if name in seen or is_depthwise(conv):
            continue
        group = _read_group(graph, name, conv, names, convolutions)
        seen.update(group.producers)
        if group.fused or not group.inputs:
            continue  # no filter of its own to remove, or the network's output
        if policy.kind != "coupled" and len(group.producers) > 1:
            continue  # a residual stream
        problem = _not_one_to_one(network, group)
        if problem is None:
            yield group
        elif policy.kind == "coupled":
            raise LayoutError(
                f"The group of {name!r} cannot be pruned as a whole: {problem}. This is so for "
                "residual streams with zero-padded shortcuts; use projection shortcuts, or the "
                "layer policy 'scatter' or 'inside_blocks'."
            )


def _scattered(
    network: nn.Module,
    graph: tp.DependencyGraph,
    convolutions: list[str],
    names: Mapping[nn.Module, str],
    found: list[Group],
) -> Iterator[Group]:
    """Yield groups for the ends of branches and the stem, where they feed a residual stream."""
    ends = set(branch_ends(graph, names))
    if not ends:
        raise LayoutError(
            f"{type(network).__name__} has no residual block whose last convolution the layer "
            "policy 'scatter' could narrow. Use 'inside_blocks', which prunes the same layers here."
        )
    taken = {producer for group in found for producer in group.producers}
    for name in convolutions:
        conv = _conv(network, name)
        if name in taken or conv.groups > 1 or (name not in ends and name != convolutions[0]):
            continue
        norm = sole_norm(graph, conv)
        layers = [name] if norm is None else [name, names[norm]]
        readers = [names[reader] for reader in sole_readers(graph, norm or conv)]
        one_to_one = tuple((i,) for i in range(conv.out_channels))
        yield Group(
            name=name,
            width=conv.out_channels,
            producers=(name,),
            norms=(names[norm] if norm else None,),
            outputs=tuple(Member(layer=layer, channels=one_to_one) for layer in layers),
            inputs=tuple(Member(layer=reader, channels=one_to_one) for reader in readers),
            scattered=True,
        )


def _striped(
    network: nn.Module,
    graph: tp.DependencyGraph,
    convolutions: list[str],
    names: Mapping[nn.Module, str],
    protected: set[str],
    inside: list[Group],
) -> Iterator[Group]:
    """Yield groups of stripes, and those of ``inside`` that have no stripes but whole filters.

    Raises:
        LayoutError: There are no stripes.
    """
    whole = {group.name: group for group in inside}
    open_to = [n for n in convolutions if n not in protected]
    if not any(can_lose_stripes(_conv(network, name)) for name in open_to):
        raise LayoutError(
            f"{type(network).__name__} has no convolution that may lose stripes: none of more than "
            "one tap that is neither grouped nor protected. Protect fewer layers, the stem for "
            "one, or use a method that prunes filters."
        )
    for name in open_to:
        conv = _conv(network, name)
        if can_lose_stripes(conv):
            yield by_stripe(name, conv, _norm_behind(graph, conv, names), whole.get(name))
        elif name in whole and conv.kernel_size == (1, 1):
            yield whole[name]


def _read_group(
    graph: tp.DependencyGraph,
    name: str,
    conv: nn.Conv2d,
    names: Mapping[nn.Module, str],
    convolutions: list[str],
) -> Group:
    everything = graph.get_pruning_group(
        conv, tp.prune_conv_out_channels, list(range(conv.out_channels))
    )
    outputs: dict[str, dict[int, set[int]]] = {}
    inputs: dict[str, dict[int, set[int]]] = {}
    fused = False
    for item in everything.items:
        dependency, layer = item.dep, item.dep.target.module
        fused |= isinstance(layer, nn.Parameter)
        if layer not in names:  # an operation such as add or reshape
            continue
        fused |= not isinstance(layer, PER_CHANNEL)
        reads = not graph.is_out_channel_pruning_fn(dependency.handler)
        channels = (inputs if reads else outputs).setdefault(names[layer], {})
        for filter_index, channel in zip(item.root_idxs, item.idxs, strict=True):
            channels.setdefault(filter_index, set()).add(channel)
    producers = tuple(
        n
        for n in convolutions
        if n in outputs and not is_depthwise(_conv(graph.model, n)) and n not in inputs
    )
    return Group(
        name=name,
        width=conv.out_channels,
        producers=producers,
        norms=tuple(_norm_behind(graph, graph.model.get_submodule(p), names) for p in producers),
        outputs=_members(outputs, conv.out_channels),
        inputs=_members({n: c for n, c in inputs.items() if n not in outputs}, conv.out_channels),
        fused=fused,
    )


def _members(channels: Mapping[str, Mapping[int, set[int]]], width: int) -> tuple[Member, ...]:
    return tuple(
        Member(
            layer=layer,
            channels=tuple(tuple(sorted(by_filter.get(i, ()))) for i in range(width)),
        )
        for layer, by_filter in channels.items()
    )


def _conv(network: Any, name: str) -> nn.Conv2d:
    conv = network.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    return conv


def _norm_behind(
    graph: tp.DependencyGraph, conv: nn.Module, names: Mapping[nn.Module, str]
) -> str | None:
    for node in graph.module2node[conv].outputs:
        if isinstance(node.module, nn.BatchNorm2d):
            return names[node.module]
    return None


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Say whether each filter of ``conv`` reads one channel only, so that it follows its input."""
    return conv.groups > 1 and conv.groups == conv.in_channels == conv.out_channels


def _not_one_to_one(network: nn.Module, group: Group) -> str | None:
    for producer in group.producers:
        width = _conv(network, producer).out_channels
        if width != group.width:
            return f"{group.name!r} has {group.width} filters and {producer!r} has {width}"
    for member in (*group.outputs, *group.inputs):
        if len({len(channels) for channels in member.channels}) != 1 or not member.channels[0]:
            return f"its filters do not map evenly onto the channels of {member.layer!r}"
    return None


def _reads_grouped(network: nn.Module, group: Group) -> bool:
    """Say whether the group feeds or holds a grouped convolution, which cannot lose one channel."""
    convs = [network.get_submodule(m.layer) for m in (*group.outputs, *group.inputs)]
    return any(isinstance(c, nn.Conv2d) and c.groups > 1 and not is_depthwise(c) for c in convs)
