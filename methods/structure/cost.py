"""What a network costs: MACs and parameters, counted on it and predicted from its widths.

One definition for the whole product: MACs of convolution and linear layers, batch 1, at the stated
input size; FLOPs are twice the MACs. Element-wise operations are left out.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.hooks import RemovableHandle

from methods.structure.narrowing import uncompiled
from methods.structure.stripe_conv import StripeConv

Axis = Literal["macs", "params", "latency"]  #: The last is known to latency models alone.
Counts = np.ndarray[tuple[int], np.dtype[np.int64]]


class Cost(NamedTuple):
    """Cost of one network."""

    macs: int  #: Multiply-accumulates of one image.
    params: int  #: Trainable parameters, biases and batch-norm scales included.


@dataclass(frozen=True, kw_only=True, slots=True)
class CostTarget:
    """The cost point a pruned network must meet."""

    axis: Axis
    reduction: float  #: Share removed from the dense network, in (0, 1).


def input_like(network: nn.Module, input_shape: tuple[int, int, int]) -> Tensor:
    """Return one black image, ``[1, C, H, W]``, on the device of ``network``."""
    return torch.zeros(1, *input_shape, device=next(network.parameters()).device)


def output_tensors(given: Any) -> Iterator[Tensor]:
    """Yield the tensors of a network's output: of sequences, mappings and dataclasses, in order."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        for each in given.values():
            yield from output_tensors(each)
    elif isinstance(given, list | tuple):
        for each in given:
            yield from output_tensors(each)
    elif is_dataclass(given) and not isinstance(given, type):
        yield from output_tensors(vars(given))


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Hold ``network`` in evaluation mode, then give every layer the mode it had."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def output_positions(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return, per convolution and linear layer in the order they run, the positions it computes.

    A position is one output pixel of a convolution, one input pixel of a transposed one, or one
    row given to a linear layer, for one image. A layer that runs twice counts twice; one that never
    runs is absent.
    """
    positions: dict[str, int] = {}

    def record(name: str, output: Tensor) -> None:
        last = isinstance(network.get_submodule(name), nn.Linear)
        channels = output.shape[-1 if last else 1]
        positions[name] = positions.get(name, 0) + output.numel() // channels

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        if isinstance(module, _ConvTransposeNd):
            return module.register_forward_pre_hook(lambda _m, given: record(name, given[0]))
        return module.register_forward_hook(lambda _m, _i, output: record(name, output))

    handles = [
        watch(name, module)
        for name, module in network.named_modules()
        if isinstance(module, _ConvNd | nn.Linear | StripeConv)
    ]
    try:
        with evaluation_mode(network), torch.no_grad():
            uncompiled(network)(input_like(network, input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return positions


def count_cost(network: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Count the cost of ``network`` as it stands, by running it once.

    Args:
        network: Network to count; a shrunk one gives the cost after pruning.
        input_shape: ``(C, H, W)`` of one image.
    """
    positions = output_positions(network, input_shape)
    macs = 0
    for name, count in positions.items():
        weight = network.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        macs += weight.numel() * count
    return Cost(macs=macs, params=sum(p.numel() for p in network.parameters()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """Cost of one layer as a product of two widths, each linear in the filters kept.

    ``cost = unit * (out_fixed + sum(out * kept)) * (in_fixed + sum(in * kept))``; a layer that
    grows with one width only (batch norm, depthwise, bias) has ``in_fixed = 1`` and no ``in``.
    """

    macs_unit: int
    params_unit: int
    out_fixed: int = 0
    out_by_group: Mapping[str, int]
    in_fixed: int = 1
    in_by_group: Mapping[str, int]


class CostModel:
    """Exact cost of every width a network can be pruned to, without building it.

    Args:
        widths: Dense filters by group, or stripes.
        terms: Cost of each layer.
        striped: Dense filters by group, for groups of stripes whose filters go with their last
            stripe; terms name them by :func:`filters_of`.
    """

    def __init__(
        self, widths: Mapping[str, int], terms: list[Term], striped: Mapping[str, int] | None = None
    ) -> None:
        striped = striped or {}
        self.groups: tuple[str, ...] = tuple(widths)
        self.widths: tuple[int, ...] = tuple(widths.values())
        self.striped: tuple[str, ...] = tuple(striped)
        self._filters: Counts = np.array([*striped.values()], dtype=np.int64)
        columns = (*self.groups, *map(filters_of, self.striped))
        self._out = _matrix(terms, columns, "out_by_group")
        self._in = _matrix(terms, columns, "in_by_group")
        self._out_fixed = np.array([t.out_fixed for t in terms], dtype=np.int64)
        self._in_fixed = np.array([t.in_fixed for t in terms], dtype=np.int64)
        self._unit = {
            "macs": np.array([t.macs_unit for t in terms], dtype=np.int64),
            "params": np.array([t.params_unit for t in terms], dtype=np.int64),
        }

    def cost(self, axis: Axis, kept: Counts, alive: Counts | None = None) -> int:
        """Return MACs or parameters of a pruned network.

        Args:
            axis: Which of the two.
            kept: Filters or stripes that stay, in the order of ``groups``.
            alive: Filters that have a stripe left, in the order of ``striped``; None: all.
        """
        if self.striped:
            kept = np.concatenate([kept, self._filters if alive is None else alive])
        outs = self._out_fixed + self._out @ kept
        ins = self._in_fixed + self._in @ kept
        return int((self._unit[axis] * outs * ins).sum())

    def soft_cost(self, axis: Axis, kept: Tensor) -> Tensor:
        """Return the same cost in a form that can be differentiated by ``kept``.

        Args:
            axis: MACs or parameters.
            kept: Filters that stay, ``[groups]``, floating; not necessarily whole.
        """
        outs = _constant(self._out_fixed, kept) + _constant(self._out, kept) @ kept
        ins = _constant(self._in_fixed, kept) + _constant(self._in, kept) @ kept
        return (_constant(self._unit[axis], kept) * outs * ins).sum()

    def dense(self, axis: Axis) -> int:
        """Return the cost of the unpruned network."""
        return self.cost(axis, np.array(self.widths, dtype=np.int64))


def _constant(values: np.ndarray[Any, np.dtype[np.int64]], like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def filters_of(group: str) -> str:
    """Name the filters of a group of stripes, as terms do."""
    return f"filters of {group}"


def _matrix(
    terms: list[Term], groups: tuple[str, ...], field: str
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    column = {group: i for i, group in enumerate(groups)}
    matrix = np.zeros((len(terms), len(groups)), dtype=np.int64)
    for row, term in enumerate(terms):
        for group, channels in getattr(term, field).items():
            matrix[row, column[group]] = channels
    return matrix
