"""Which filters can go: groups of layers that must lose the same ones, and what that saves.

Groups come from torch-pruning's dependency graph. The layer policy decides which of them may be
pruned: the same for every method of a comparison.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch_pruning as tp
from torch import nn

from methods.errors import LayoutError, nearest
from methods.structure.cost import output_positions
from methods.structure.coupling import (
    Coupling,
    TooCoupledError,
    coupled_channels,
    in_units,
    trace,
)
from methods.structure.groups import Group, LayerPolicy, Layout, Member, Shape
from methods.structure.limits import GroupingLimits, Watch
from methods.structure.narrowing import (
    PER_CHANNEL,
    PRODUCERS,
    SEPARABLE,
    emitted_channels,
    is_depthwise,
)
from methods.structure.predicted_cost import cost_model
from methods.structure.proof import Proof, prove
from methods.structure.scatter import branch_ends, sole_norm, sole_readers
from methods.structure.stripes import by_stripe, can_lose_stripes

__all__ = ["Group", "LayerPolicy", "Layout", "Member", "Shape", "find_layout"]


def find_layout(network: nn.Module, input_shape: Shape, policy: LayerPolicy) -> Layout:
    """Find the groups of ``network`` that ``policy`` lets shrink, in the order they run.

    Each is tried before it is believed: a group that cannot be cut keeps all its filters, and
    ``left_whole`` of the layout says why.

    Raises:
        LayoutError: The network does not run on such images, nothing may be pruned, a protected
            pattern matches no layer, under ``scatter`` there is no residual block, or under
            ``stripes`` no spatial convolution may be pruned.
        GroupingLimitError: It takes too long, or too much memory.
    """
    watch = _watch(network)
    graph = trace(network, input_shape, watch)
    positions = output_positions(network, input_shape)
    kinds = PRODUCERS if policy.kind == "every_layer" else (nn.Conv2d,)
    convolutions = [n for n in positions if isinstance(network.get_submodule(n), kinds)]
    protected = _protected(convolutions, policy)
    order = {name: i for i, name in enumerate(positions)}
    names = {module: name for name, module in network.named_modules()}
    left: dict[str, str] = {}
    found = list(_groups(network, graph, convolutions, names, policy, left, watch))
    if policy.kind == "scatter":
        found += _scattered(network, graph, convolutions, names, found)
    groups = list(_allowed(network, found, protected, left, policy))
    groups, unsound = prove(_proof(network, positions, input_shape, policy, watch), groups)
    left |= unsound
    if policy.kind == "stripes":
        groups = list(_striped(network, graph, convolutions, names, protected, groups))
    if not groups:
        raise LayoutError(_nothing_left(network, policy, left))
    groups.sort(key=lambda group: order[group.name])
    chosen = {group.name for group in groups}
    return Layout(
        groups=tuple(groups),
        cost=cost_model(network, positions, groups),
        policy=policy,
        input_shape=input_shape,
        left_whole={name: why for name, why in left.items() if name not in chosen},
    )


def _proof(
    network: nn.Module,
    positions: Mapping[str, int],
    input_shape: Shape,
    policy: LayerPolicy,
    watch: Watch,
) -> Proof:
    def layout_of(groups: Sequence[Group]) -> Layout:
        return Layout(
            groups=tuple(groups),
            cost=cost_model(network, positions, list(groups)),
            policy=policy,
            input_shape=input_shape,
        )

    return Proof(network, layout_of, watch)


def _watch(network: nn.Module) -> Watch:
    return Watch(type(network).__name__, GroupingLimits.from_environment())


def _allowed(
    network: nn.Module,
    found: list[Group],
    protected: set[str],
    left: dict[str, str],
    policy: LayerPolicy,
) -> Iterator[Group]:
    """Yield the groups that may and can be cut, each channel in one of them only."""
    taken: set[tuple[str, int, bool]] = set()
    tied = _tied(network)
    for group in found:
        layers = {m.layer for m in (*group.outputs, *group.inputs)}
        channels = {
            (member.layer, channel, emitted)
            for members, emitted in ((group.outputs, True), (group.inputs, False))
            for member in members
            for each in member.channels
            for channel in each
        }
        if protected.intersection(group.producers):
            left[group.name] = "protected"
        elif policy.kind != "every_layer" and _reads_grouped(network, group):
            left[group.name] = "a grouped convolution reads or holds its channels"
        elif layers & tied:
            left[group.name] = f"{sorted(layers & tied)[0]!r} shares its weight with another layer"
        elif taken & channels:
            left[group.name] = "some of its channels belong to another group"
        else:
            taken |= channels
            yield group


def _tied(network: nn.Module) -> set[str]:
    """Return the layers that hold a parameter which another layer holds too."""
    owners: dict[int, list[str]] = {}
    for name, layer in network.named_modules():
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _nothing_left(network: nn.Module, policy: LayerPolicy, left: Mapping[str, str]) -> str:
    why = "; ".join(f"{name}: {reason}" for name, reason in list(left.items())[:4])
    more = f" ({why}{'; ...' if len(left) > 4 else ''})" if left else ""
    return (
        f"Under the layer policy {policy.kind!r} no layer of {type(network).__name__} may be "
        f"pruned{more}. Protect fewer layers or choose another policy."
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
    left: dict[str, str],
    watch: Watch,
) -> Iterator[Group]:
    seen: set[str] = set()
    every = policy.kind == "every_layer"
    for name in convolutions:
        conv = network.get_submodule(name)
        if name in seen or is_depthwise(conv):
            continue
        if conv not in graph.module2node:
            left[name] = "no gradient reaches it, so what reads it cannot be followed"
            continue
        try:
            width, kinds = emitted_channels(conv), SEPARABLE if every else PER_CHANNEL
            coupling = coupled_channels(graph, conv, width, names, kinds, watch, by_block=every)
            if every:
                coupling, width = in_units(coupling, width)
        except TooCoupledError as error:
            left[name] = str(error)
            continue
        group = _read_group(graph, name, width, names, convolutions, coupling)
        seen.update(group.producers)
        problem = _problem(network, group, coupling, policy)
        if problem is None:
            yield group
        else:
            left[name] = problem


def _problem(
    network: nn.Module, group: Group, coupling: Coupling, policy: LayerPolicy
) -> str | None:
    """Say why ``group`` must stay whole, if it must."""
    if group.fused:
        return _why_whole(network, coupling.passed[0])
    if coupling.mixed_by and isinstance(network.get_submodule(group.name), nn.Linear):
        return "its channels are mixed by attention"
    if policy.kind == "every_layer" and group.width == 1:
        return "all of its channels stand in one group of a layer"
    if not group.inputs:
        return "its channels leave the network"
    if policy.kind not in {"coupled", "every_layer"} and len(group.producers) > 1:
        return "it feeds a residual stream, which the layer policy 'coupled' prunes as a whole"
    return _not_one_to_one(network, group, by_unit=policy.kind == "every_layer")


def _why_whole(network: nn.Module, name: str) -> str:
    layer = dict(network.named_modules()).get(name)
    if isinstance(layer, nn.LayerNorm | nn.GroupNorm):
        return f"its channels pass {name!r}, which takes one mean over several of them"
    return f"its channels pass {name!r}, which cannot lose one of them"


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
        if conv not in graph.module2node:  # no gradient reaches it
            continue
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
    width: int,
    names: Mapping[nn.Module, str],
    convolutions: list[str],
    coupling: Coupling,
) -> Group:
    producers = tuple(
        n
        for n in convolutions
        if n in coupling.outputs and not is_depthwise(graph.model.get_submodule(n))
    )
    return Group(
        name=name,
        width=width,
        producers=producers,
        norms=tuple(_norm_behind(graph, graph.model.get_submodule(p), names) for p in producers),
        outputs=_members(coupling.outputs, width),
        inputs=_members(coupling.inputs, width),
        fused=bool(coupling.passed),
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
    if conv not in graph.module2node:  # no gradient reaches it
        return None
    for node in graph.module2node[conv].outputs:
        if isinstance(node.module, nn.BatchNorm2d):
            return names[node.module]
    return None


def _not_one_to_one(network: nn.Module, group: Group, *, by_unit: bool) -> str | None:
    for producer in group.producers if not by_unit else ():
        width = _conv(network, producer).out_channels
        if width != group.width:
            return f"{group.name!r} has {group.width} filters and {producer!r} has {width}"
    for member in (*group.outputs, *group.inputs):
        channels = [channel for each in member.channels for channel in each]
        if len({len(each) for each in member.channels}) != 1 or not channels:
            return f"its filters do not map evenly onto the channels of {member.layer!r}"
        if len(set(channels)) != len(channels):
            return f"several of its filters share channels of {member.layer!r}"
    return None


def _reads_grouped(network: nn.Module, group: Group) -> bool:
    """Say whether the group feeds or holds a grouped convolution, which cannot lose one channel."""
    convs = [network.get_submodule(m.layer) for m in (*group.outputs, *group.inputs)]
    return any(isinstance(c, nn.Conv2d) and c.groups > 1 and not is_depthwise(c) for c in convs)
