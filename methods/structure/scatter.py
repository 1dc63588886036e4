"""Branches that end narrow: their channels are added into a residual stream of full width by index.

Source: what the soft pruning family, FPGM and SCOP publish. He et al., "Soft Filter Pruning",
IJCAI 2018, arXiv:1808.06866, and Tang et al., "SCOP", NeurIPS 2020, arXiv:2010.10732, prune the
last convolution of a residual block and leave the stream as wide as it is.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

#: Operations, as autograd names them, through which a channel of zeros stays one.
_ZERO_TO_ZERO = (
    "Relu",
    "LeakyRelu",
    "Hardtanh",
    "Hardswish",
    "Silu",
    "Gelu",
    "Elu",
    "MaxPool2D",
    "AvgPool2D",
)


class Scatter(nn.Module):
    """Runs a narrowed layer and puts its channels where they stood among zeros.

    Args:
        layer: Gives ``[N, len(kept), H, W]``.
        kept: Channels of the dense layer that are left, ascending.
        width: Channels of the dense layer.
    """

    index: Tensor

    def __init__(self, layer: nn.Module, kept: Sequence[int], width: int) -> None:
        super().__init__()
        self.layer = layer
        self.width = width
        self.register_buffer("index", torch.tensor(kept, dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, width, H', W']``."""
        narrow: Tensor = self.layer(images)
        count, _, height, width = narrow.shape
        wide = narrow.new_zeros(count, self.width, height, width)
        return wide.index_copy(1, self.index, narrow)

    def extra_repr(self) -> str:
        """Say how many channels of how many are left."""
        return f"{len(self.index)} of {self.width} channels"


class Gather(nn.Module):
    """Runs a narrowed layer on those channels of a wide input that can be other than zero.

    Args:
        layer: Reads ``[N, len(kept), H, W]``.
        kept: Channels it reads, ascending.
    """

    index: Tensor

    def __init__(self, layer: nn.Module, kept: Sequence[int]) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("index", torch.tensor(kept, dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, width, H, W]`` to what the layer gives."""
        output: Tensor = self.layer(images.index_select(1, self.index))
        return output


def narrow_and_scatter(
    network: nn.Module,
    conv: str,
    norm: str | None,
    readers: Sequence[str],
    kept: Sequence[int],
) -> None:
    """Narrow a convolution and the batch norm behind it; the stream they feed stays as wide.

    Args:
        network: Changed in place.
        conv: Name of the convolution.
        norm: Name of the batch norm that alone reads it, if there is one.
        readers: Names of convolutions that read nothing else; they are narrowed too.
        kept: Filters that stay, ascending.
    """
    layer = _inner(network, conv)
    assert isinstance(layer, nn.Conv2d)
    width = layer.out_channels
    dropped = sorted(set(range(width)).difference(kept))
    tp.prune_conv_out_channels(layer, dropped)
    if norm:
        tp.prune_batchnorm_out_channels(_inner(network, norm), dropped)
    last = norm or conv
    _wrap(network, last, Scatter(network.get_submodule(last), kept, width))
    for reader in readers:
        tp.prune_conv_in_channels(_inner(network, reader), dropped)
        _wrap(network, reader, Gather(network.get_submodule(reader), kept))


def _inner(network: nn.Module, name: str) -> nn.Module:
    """Return a layer by its name in the dense network, wrapped or not."""
    layer = network.get_submodule(name)
    while isinstance(layer, Scatter | Gather):
        layer = layer.layer
    return layer


def _wrap(network: nn.Module, name: str, wrapper: Scatter | Gather) -> None:
    weight = _inner(network, name).weight
    assert isinstance(weight, Tensor)
    wrapper.training = wrapper.layer.training
    network.set_submodule(name, wrapper.to(weight.device))


def branch_ends(graph: tp.DependencyGraph, names: Mapping[nn.Module, str]) -> Iterator[str]:
    """Find the convolutions that end the longer branch of a residual block.

    Their output, behind a batch norm of their own if there is one, goes into an addition and
    nowhere else. Of the two branches that meet there, counted from where they part, the one with
    fewer convolutions is the shortcut; where both have as many, there is none, and neither is
    taken.

    Yields:
        Their names.
    """
    for node in list(graph.module2node.values()):
        if not _is_addition(node) or len(node.inputs) != 2:
            continue
        one, other = (_convolutions_behind(side) for side in node.inputs)
        meeting = one.keys() & other.keys()
        if not meeting:
            continue
        fork = min(meeting, key=lambda place: one[place] + other[place])
        if one[fork] != other[fork]:
            end = _last_convolution(node.inputs[0 if one[fork] > other[fork] else 1])
            if end is not None:
                yield names[end]


def sole_readers(graph: tp.DependencyGraph, layer: nn.Module) -> Iterator[nn.Conv2d]:
    """Find the convolutions that read ``layer`` before anything is added to what it emits.

    Only operations that map zero to zero may lie between.
    """
    waiting = list(graph.module2node[layer].outputs)
    while waiting:
        node = waiting.pop()
        if isinstance(node.module, nn.Conv2d):
            if node.module.groups == 1 and len(node.inputs) == 1:
                yield node.module
        elif node.grad_fn is not None and node.grad_fn.name().startswith(_ZERO_TO_ZERO):
            waiting += node.outputs


def sole_norm(graph: tp.DependencyGraph, conv: nn.Module) -> nn.BatchNorm2d | None:
    """Return the batch norm that reads ``conv``, if nothing else does."""
    readers = graph.module2node[conv].outputs
    if len(readers) == 1 and isinstance(readers[0].module, nn.BatchNorm2d):
        return readers[0].module
    return None


def _is_addition(node: Any) -> bool:
    return node.grad_fn is not None and node.grad_fn.name().startswith("AddBackward")


def _last_convolution(node: Any) -> nn.Conv2d | None:
    """Return the convolution that ends with ``node``, if its output goes only this way."""
    while len(node.outputs) == 1:
        if isinstance(node.module, nn.Conv2d):
            return node.module if node.module.groups == 1 else None
        if not isinstance(node.module, nn.BatchNorm2d) or len(node.inputs) != 1:
            return None
        node = node.inputs[0]
    return None


def _convolutions_behind(node: Any) -> dict[Any, int]:
    """Return, by place upstream of ``node``, the fewest convolutions on the way from there."""
    fewest = {node: 0}
    waiting = deque([node])
    while waiting:
        place = waiting.popleft()
        is_conv = isinstance(place.module, nn.Conv2d)
        for source in place.inputs:
            count = fewest[place] + is_conv
            if count < fewest.get(source, count + 1):
                fewest[source] = count
                (waiting.append if is_conv else waiting.appendleft)(source)
    return fewest
