"""Channels taken from one layer, or silenced at its door."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from methods.errors import LayoutError

#: Layers that may lose one channel and leave the rest as they were.
PER_CHANNEL = (nn.Conv1d, nn.Conv2d, nn.Linear, _BatchNorm, nn.PReLU)

#: Those that may lose channels under the policy ``every_layer``.
SEPARABLE = (*PER_CHANNEL, nn.Conv3d, _ConvTransposeNd, _InstanceNorm, nn.GroupNorm)

#: Layers whose filters a group may consist of, under the policy ``every_layer``.
PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, _ConvTransposeNd, nn.Linear)

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


def is_separable(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Say whether ``layer``, of one of ``kinds``, may lose a channel, or a whole group of them."""
    in_groups = isinstance(layer, _ConvTransposeNd) and blocks_of(layer) > 1
    one_mean = isinstance(layer, nn.GroupNorm) and layer.num_groups == 1
    return isinstance(layer, kinds) and not in_groups and not one_mean


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


def emitting_dim(layer: nn.Module, name: str, tensor: Tensor, channels: int) -> int | None:
    """Return the dimension of a layer's own tensor that has an entry for each emitted channel.

    Args:
        layer: Whose own it is.
        name: Its name there.
        tensor: The parameter or buffer.
        channels: How many ``layer`` emits.

    Returns:
        None where it has none.
    """
    if _is_turned(layer) and name == "weight":
        return 1
    return 0 if tensor.dim() > 0 and tensor.shape[0] == channels else None


def scaling_dim(scale: Tensor) -> int | None:
    """Return the dimension along which a parameter scales channels: its only one above 1."""
    long = [dim for dim, size in enumerate(scale.shape) if size > 1]
    return long[0] if len(long) == 1 else None


def _is_turned(layer: nn.Module) -> bool:
    """Say whether a layer's weight is ``[C_in, C_out, ...]``: of a transposed convolution."""
    return isinstance(layer, _ConvTransposeNd) and layer.groups == 1


def filters_first(layer: nn.Module) -> Tensor:
    """Return the weight of a convolution or linear layer as ``[C_out, C_in, K, K]``."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    turned = weight.transpose(0, 1) if _is_turned(layer) else weight
    by_tap = turned.flatten(3) if turned.dim() > 4 else turned  # of three dimensions
    return by_tap.reshape(*by_tap.shape, *(1,) * (4 - by_tap.dim()))


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
        dim = emitting_dim(owner, name, tensor, width)
        if dim is not None:
            _replace(owner, name, tensor, dim, kept)
    _tell(layer, (*_EMITTED, *(("in_channels", "groups") if follows else ())), len(kept))
    if blocks > 1:
        _tell(layer, ("groups", "num_groups"), blocks * len(kept) // width)
        if isinstance(layer, _ConvNd):
            layer.in_channels = layer.in_channels * len(kept) // width


@torch.no_grad()
def narrow_scale(network: nn.Module, name: str, channels: Sequence[int]) -> None:
    """Remove ``channels`` from a parameter that scales each channel, such as ``[1, C, 1, 1]``."""
    owner, _, own = name.rpartition(".")
    scale = network.get_parameter(name)
    dim = scaling_dim(scale)
    if dim is None:
        raise LayoutError(f"The parameter {name!r} is no scale per channel.")
    kept = _others(channels, scale.shape[dim])
    _replace(network.get_submodule(owner), own, scale, dim, kept)


@torch.no_grad()
def narrow_inputs(layer: nn.Module, channels: Sequence[int]) -> None:
    """Remove ``channels`` from what ``layer`` reads."""
    weight = layer._parameters.get("weight")
    if weight is None or weight.dim() < 2:
        raise LayoutError(
            f"The weight of a layer of type {type(layer).__name__} is computed; it reads all."
        )
    dim = 0 if _is_turned(layer) else 1
    kept = _others(channels, weight.shape[dim])
    _replace(layer, "weight", weight, dim, kept)
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
