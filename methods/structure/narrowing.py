"""Channels taken from one layer, or silenced at its door."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from methods.errors import LayoutError

#: Layers that may lose one channel and leave the rest as they were.
PER_CHANNEL = (nn.Conv1d, nn.Conv2d, nn.Linear, _BatchNorm, nn.PReLU)

#: Those that may lose channels under the policy ``every_layer``.
SEPARABLE = (*PER_CHANNEL, _InstanceNorm, nn.GroupNorm)

#: Layers whose filters a group may consist of, under the policy ``every_layer``.
PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Linear)

#: Attributes that tell a layer how many channels it emits, or reads.
_EMITTED = ("out_channels", "out_features", "num_features", "num_parameters", "num_channels")
_READ = ("in_channels", "in_features")


def is_depthwise(layer: nn.Module) -> bool:
    """Say whether each filter of a convolution reads one channel only, and so follows its input."""
    return isinstance(layer, _ConvNd) and (
        layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
    )


def blocks_of(layer: nn.Module) -> int:
    """Return how many groups of channels ``layer`` works in; 1 where it keeps all apart or none."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    return layer.groups if isinstance(layer, _ConvNd) and not is_depthwise(layer) else 1


def own_tensors(layer: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """Return the parameters and buffers of a layer itself, each with its owner and name.

    What a computed weight is computed from counts as the layer's own.
    """
    computed = getattr(layer, "parametrizations", None)
    owners = [layer, *(computed.modules() if isinstance(computed, nn.Module) else ())]
    return [
        (owner, name, tensor)
        for owner in owners
        for name, tensor in (
            *owner.named_parameters(recurse=False),
            *owner.named_buffers(recurse=False),
        )
    ]


def uncompiled(network: nn.Module) -> nn.Module:
    """Return what ``torch.compile`` wrapped, whose compiled form does not see new hooks."""
    inner = getattr(network, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else network


def emits_by_row(tensor: Tensor, channels: int) -> bool:
    """Say whether ``tensor`` holds one row for each channel that its layer emits."""
    return tensor.dim() > 0 and tensor.shape[0] == channels


@torch.no_grad()
def narrow_outputs(layer: nn.Module, channels: Sequence[int]) -> None:
    """Remove ``channels`` from what ``layer`` emits.

    A depthwise convolution, or one in groups, reads fewer as well.
    """
    width = emitted_channels(layer)
    kept = _others(channels, width)
    follows = is_depthwise(layer)
    blocks = blocks_of(layer)
    for owner, name, tensor in own_tensors(layer):
        if emits_by_row(tensor, width):
            _replace(owner, name, tensor, 0, kept)
    _tell(layer, (*_EMITTED, *(("in_channels", "groups") if follows else ())), len(kept))
    if blocks > 1:
        _tell(layer, ("groups", "num_groups"), blocks * len(kept) // width)
        if isinstance(layer, _ConvNd):
            layer.in_channels = layer.in_channels * len(kept) // width


@torch.no_grad()
def narrow_scale(network: nn.Module, name: str, channels: Sequence[int]) -> None:
    """Remove ``channels`` from a parameter that scales each channel, ``[C, ...]``."""
    owner, _, own = name.rpartition(".")
    scale = network.get_parameter(name)
    kept = _others(channels, scale.shape[0])
    _replace(network.get_submodule(owner), own, scale, 0, kept)


@torch.no_grad()
def narrow_inputs(layer: nn.Module, channels: Sequence[int]) -> None:
    """Remove ``channels`` from what ``layer`` reads."""
    weight = layer._parameters.get("weight")
    if weight is None or weight.dim() < 2:
        raise LayoutError(
            f"The weight of a layer of type {type(layer).__name__} is computed; it reads all."
        )
    kept = _others(channels, weight.shape[1])
    _replace(layer, "weight", weight, 1, kept)
    _tell(layer, _READ, len(kept))


def emitted_channels(layer: nn.Module) -> int:
    """Return how many channels ``layer`` emits.

    Raises:
        LayoutError: It is of no kind that can be narrowed.
    """
    for name in _EMITTED:
        if isinstance(count := getattr(layer, name, None), int):
            return count
    raise LayoutError(f"A layer of type {type(layer).__name__} cannot be narrowed; protect it.")


def silence_input(layer: nn.Module, channels: Sequence[int]) -> None:
    """Let ``layer`` read zeros in place of ``channels``."""
    silence = _silencer(channels, _channel_dim(layer))
    layer.register_forward_pre_hook(lambda _layer, given: (silence(given[0]), *given[1:]))


def silence_output(layer: nn.Module, channels: Sequence[int]) -> None:
    """Let ``layer`` emit zeros in place of ``channels``."""
    silence = _silencer(channels, 1)
    layer.register_forward_hook(lambda _layer, _given, output: silence(output))


def _silencer(channels: Sequence[int], dim: int) -> Callable[[Tensor], Tensor]:
    def silence(values: Tensor) -> Tensor:
        index = torch.tensor(list(channels), device=values.device)
        return values.index_fill(dim, index, 0.0)

    return silence


def _channel_dim(layer: nn.Module) -> int:
    return -1 - (len(layer.kernel_size) if isinstance(layer, _ConvNd) else 0)


def _others(channels: Sequence[int], width: int) -> list[int]:
    gone = set(channels)
    if not gone <= set(range(width)) or len(gone) == width:
        raise LayoutError(f"Channels {sorted(gone)} cannot go from a layer of {width}.")
    return [index for index in range(width) if index not in gone]


def _replace(layer: nn.Module, name: str, tensor: Tensor, dim: int, kept: list[int]) -> None:
    index = torch.tensor(kept, device=tensor.device)
    narrow = tensor.detach().index_select(dim, index)
    if isinstance(tensor, nn.Parameter):
        setattr(layer, name, nn.Parameter(narrow, tensor.requires_grad))
    else:
        setattr(layer, name, narrow)


def _tell(layer: nn.Module, attributes: Sequence[str], count: int) -> None:
    for name in attributes:
        if isinstance(getattr(layer, name, None), int):
            setattr(layer, name, count)
