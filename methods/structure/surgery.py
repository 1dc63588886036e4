"""Making a plan come true: filters zeroed in place, or really removed."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.errors import PlanError
from methods.structure.groups import Group, Layout, Member
from methods.structure.narrowing import (
    PER_CHANNEL,
    blocks_of,
    emitted_channels,
    emitting_dim,
    narrow_inputs,
    narrow_outputs,
    narrow_scale,
    scaling_dim,
    silence_input,
    silence_output,
    uncompiled,
)
from methods.structure.plan import PruningPlan
from methods.structure.scatter import narrow_and_scatter
from methods.structure.stripes import break_convolution, hold_stripes, zero_stripes


def is_plain(network: nn.Module, group: Group) -> bool:
    """Say whether ``coupled`` prunes ``group`` too: single filters of ordinary convolutions."""
    layers = dict(network.named_modules())
    produced = [member for member in group.outputs if member.layer in group.producers]
    return (
        all(isinstance(layers[name], nn.Conv2d) for name in group.producers)
        and all(len(channels) == 1 for member in produced for channels in member.channels)
        and all(
            isinstance(layers.get(member.layer), PER_CHANNEL)
            and blocks_of(layers[member.layer]) == 1
            for member in (*group.outputs, *group.inputs)
        )
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterParameter:
    """A parameter that emits the channels of a group."""

    parameter: nn.Parameter
    rows: Tensor  #: Its channels by filter, ``[filters, r]``, on its device.
    dim: int = 0  #: Its dimension of channels; the weight of a transposed convolution has it as 1.

    def by_row(self, tensor: Tensor) -> Tensor:
        """View ``tensor``, of the parameter's shape, as ``[channels, ...]``."""
        return tensor.movedim(self.dim, 0)


def filter_parameters(network: nn.Module, group: Group) -> list[FilterParameter]:
    """Return every parameter that emits the group's channels.

    These are weights and biases of producers and depthwise convolutions, and scales and shifts of
    batch norms: a filter whose batch norm still shifts is not removed.
    """
    return [
        FilterParameter(parameter=p, rows=torch.tensor(member.channels, device=p.device), dim=dim)
        for member in group.outputs
        for p, dim in _emitting(network, member.layer)
    ]


def _emitting(network: nn.Module, name: str) -> Iterator[tuple[nn.Parameter, int]]:
    """Yield the parameters of a layer, or the one of that name, and their channels' dimension."""
    parent, _, last = name.rpartition(".")
    owner = network.get_submodule(parent)
    scale = owner._parameters.get(last)
    if scale is not None:
        yield scale, scaling_dim(scale) or 0
        return
    layer = owner.get_submodule(last)
    width = emitted_channels(layer)
    for own, parameter in layer.named_parameters(recurse=False):
        dim = emitting_dim(layer, own, parameter, width)
        if dim is not None:
            yield parameter, dim


@torch.no_grad()
def scale_filters(
    network: nn.Module, group: Group, filters: Sequence[int], factor: float = 0.0
) -> None:
    """Multiply some filters, and what their batch norms emit for them, by ``factor``."""
    if not filters:
        return
    for part in filter_parameters(network, group):
        part.by_row(part.parameter)[part.rows[list(filters)].flatten()] *= factor


@torch.no_grad()
def soften_filters(network: nn.Module, group: Group, filters: Sequence[int], factor: float) -> None:
    """Multiply the weights of some filters by ``factor``, so that they can still grow back.

    Batch norms and biases stay: were they zero as well, a rectifier would let no gradient through
    and a filter at zero could never leave it.
    """
    if not filters:
        return
    for member in group.outputs:
        if member.layer in group.producers:
            weight = network.get_parameter(f"{member.layer}.weight")
            dim = emitting_dim(network.get_submodule(member.layer), "weight", weight, len(weight))
            weight.movedim(dim or 0, 0)[_rows(network, member, filters)] *= factor


def _rows(network: nn.Module, member: Member, filters: Sequence[int]) -> Tensor:
    """Return the channels of some filters, on the device: a list would be brought there anew."""
    channels = [channel for index in filters for channel in member.channels[index]]
    return torch.tensor(channels, device=next(network.parameters()).device)


def shrink(network: nn.Module, plan: PruningPlan, layout: Layout) -> None:
    """Remove the filters and stripes that ``plan`` drops; ``network`` becomes smaller, in place.

    Raises:
        PlanError: The plan was made for other groups or widths.
    """
    remove_filters(network, plan, layout)
    break_stripes(network, plan, layout)


def remove_filters(network: nn.Module, plan: PruningPlan, layout: Layout) -> None:
    """Do what :func:`shrink` does, but for convolutions that lose stripes: they stay dense.

    Their stripes that go are zeros that training leaves zeros, so that the network computes and
    learns what the shrunk one does, in a fraction of the time; :func:`break_stripes` does the rest.

    Raises:
        PlanError: The plan was made for other groups or widths.
    """
    _check_fit(plan, layout)
    smaller = [group for group in layout.groups if plan.dropped(group.name)]
    _cut(network, [g for g in smaller if not g.scattered], plan)
    for group in smaller:
        if group.scattered:
            readers = [member.layer for member in group.inputs]
            kept = plan.kept[group.name]
            narrow_and_scatter(network, group.name, group.norms[0], readers, kept)
        elif group.taps > 1:
            hold_stripes(network, group, plan.kept[group.name])
    network.zero_grad(set_to_none=True)


def break_stripes(network: nn.Module, plan: PruningPlan, layout: Layout) -> None:
    """Replace convolutions that lost stripes by what is left of them, after ``remove_filters``."""
    for group in layout.groups:
        if group.taps > 1 and plan.dropped(group.name):
            break_convolution(network, group, plan.kept[group.name])
    network.zero_grad(set_to_none=True)


def _cut(network: nn.Module, groups: Sequence[Group], plan: PruningPlan) -> None:
    """Remove the channels of whole filters from every layer that emits or reads them."""
    emitted: dict[str, set[int]] = {}
    read: dict[str, set[int]] = {}
    for group in groups:
        gone = group.filters_gone(plan.kept[group.name])
        for members, channels in ((group.outputs, emitted), (group.inputs, read)):
            for member in members:
                for index in gone:
                    channels.setdefault(member.layer, set()).update(member.channels[index])
    layers = dict(network.named_modules())
    follow = [name for name in read if blocks_of(layers[name]) > 1]  # what they emit
    for name, gone_there in emitted.items():
        if name in layers:
            narrow_outputs(layers[name], sorted(gone_there))
        else:
            narrow_scale(network, name, sorted(gone_there))
    for name, gone_there in read.items():
        if name in follow:
            continue
        narrow_inputs(network.get_submodule(name), sorted(gone_there))


def masked(network: nn.Module, plan: PruningPlan, layout: Layout) -> nn.Module:
    """Return a copy of full width in which nobody reads what ``plan`` drops.

    A filter is silenced where it is read, for what lies between may make something of nothing: a
    sigmoid, say, or a batch norm without parameters. One that is added into a stream of full width
    is silenced where it enters it.
    """
    _check_fit(plan, layout)
    twin = copy.deepcopy(network)
    for group in layout.groups:
        zero_stripes(twin, group, plan.dropped(group.name))
        gone = group.filters_gone(plan.kept[group.name])
        if not gone:
            continue
        if group.scattered:
            silence_output(twin.get_submodule(group.norms[0] or group.name), gone)
            continue
        for member in group.inputs:
            channels = [channel for index in gone for channel in member.channels[index]]
            silence_input(twin.get_submodule(member.layer), channels)
    return uncompiled(twin)


@torch.no_grad()
def masked_difference(
    network: nn.Module, plan: PruningPlan, layout: Layout, images: Tensor
) -> float:
    """Compare the masked network with the shrunk one on a few images.

    Args:
        network: Network of full width.
        plan: Filters that stay.
        layout: Layout of ``network``.
        images: ``[N, C, H, W]``, on the device of ``network``.

    Returns:
        Largest difference of two logits, relative to the largest logit (or to 1 if that is less).
    """
    full = masked(network, plan, layout).eval()
    small = copy.deepcopy(network).eval()
    shrink(small, plan, layout)
    expected, got = full(images), small(images)
    return float((expected - got).abs().max() / expected.abs().max().clamp(min=1.0))


def _check_fit(plan: PruningPlan, layout: Layout) -> None:
    if dict(plan.widths) != layout.widths:
        odd = sorted(set(plan.widths.items()) ^ set(layout.widths.items()))[:4]
        raise PlanError(
            f"The plan was made for another network or layer policy: {odd} differ between the "
            "plan's groups and this network's."
        )
    if plan.policy != layout.policy.kind:
        raise PlanError(
            f"The plan was made under the layer policy {plan.policy!r}, not {layout.policy.kind!r}."
        )
