"""Gates that open and close filters while a network trains, as functions of the filters' weights.

Source: Li et al., "Weight-Dependent Gates for Network Pruning", TCSVT 2022, arXiv:2007.02066, the
gate and the estimator of its gradient; see :mod:`methods.weight_gates.method` for the method.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.state import State
from methods.structure.layout import Group, Layout

Estimator = Literal["polynomial", "ste", "sigmoid"]

SUPPORT = 0.5  #: Logits at least this far from 0 get no gradient (``sigmoid``: little).
TEMPERATURE = 0.125  #: Of ``sigmoid``, whose slope at 0 is then the polynomial's.


def slope(logits: Tensor, estimator: Estimator) -> Tensor:
    """Return what stands in for the derivative of the step; each integrates to 1 over the logits.

    ``polynomial`` is ``2 - 4 |x|`` within the support, ``ste`` is 1 there, ``sigmoid`` the
    derivative of a steep one.
    """
    if estimator == "polynomial":
        return (2.0 - 4.0 * logits.abs()).clamp(min=0.0)
    if estimator == "ste":
        return (logits.abs() <= SUPPORT).to(logits.dtype)
    sigmoid = torch.sigmoid(logits / TEMPERATURE)
    return sigmoid * (1.0 - sigmoid) / TEMPERATURE


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.estimator = estimator
        return (logits >= 0.0).to(logits.dtype)  # sign(0) would be half open

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (logits,) = ctx.saved_tensors
        return gradients[0] * slope(logits, ctx.estimator), None


def step(logits: Tensor, estimator: Estimator = "polynomial") -> Tensor:
    """Return 1 where a logit is at least 0, else 0; differentiated by :func:`slope`."""
    opened: Tensor = _Step.apply(logits, estimator)
    return opened


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRule:
    """How gates are made and opened."""

    start: float = 0.25  #: Every logit at the start: open, and within the support.
    floor: float = 0.1  #: Share of a group's gates that cannot close; one at least.
    estimator: Estimator = "polynomial"
    weight_dependent: bool = True  #: False: logits differ by parameters of their own.
    detached: bool = True  #: No gradient reaches the weights through the gates that read them.

    def least(self, width: int) -> int:
        """Return how many of ``width`` gates stay open whatever their logits."""
        return max(1, math.floor(self.floor * width + 1e-6))


def standardised(rows: Tensor) -> Tensor:
    """Return how each filter differs from its layer mates.

    Args:
        rows: One flattened filter a row, ``[filters, fan_in]``.

    Returns:
        The same with columns of mean 0 and deviation 1, so that rows are about of length 1.
    """
    spread, mean = torch.std_mean(rows, dim=0, correction=0)
    return (rows - mean) / (spread + 1e-6) / math.sqrt(rows.shape[1])


class GroupGates:
    """The gates of one group.

    The logit of a filter is one linear function, shared by the filters of a layer, of its
    standardised weights, and an offset; a group with several producers takes the mean over them.
    Free gates have a parameter per filter, less their mean, in place of the function. Either way
    what presses on a whole group moves its offset alone.
    """

    def __init__(self, network: nn.Module, group: Group, rule: GateRule) -> None:
        self.group = group
        self._network, self._rule = network, rule
        device = next(network.parameters()).device
        channels = {member.layer: member.channels for member in group.outputs}
        self._rows = [
            torch.tensor(channels[producer], device=device)[:, 0] for producer in group.producers
        ]
        sizes = [self._weight(i).shape[1] for i in range(len(group.producers))]
        #: What tells the filters apart: a direction per producer, or a number per filter.
        self.directions = [
            nn.Parameter(torch.zeros(size, device=device))
            for size in (sizes if rule.weight_dependent else [group.width])
        ]
        self.offset = nn.Parameter(torch.full((1,), rule.start, device=device))

    def logits(self) -> Tensor:
        """Return one logit per filter as the weights are now, ``[filters]``, in float32."""
        if not self._rule.weight_dependent:
            (free,) = self.directions
            return free - free.mean() + self.offset
        parts = [
            standardised(self._weight(i)) @ direction for i, direction in enumerate(self.directions)
        ]
        return torch.stack(parts).mean(dim=0) + self.offset

    def gates(self, logits: Tensor) -> Tensor:
        """Return one gate per filter, 0 or 1, ``[filters]``."""
        least = self._rule.least(len(logits))
        forced = torch.zeros_like(logits, dtype=torch.bool)
        forced[logits.detach().topk(least).indices] = True
        forced &= logits.detach() < 0.0
        return torch.where(forced, 1.0, step(logits, self._rule.estimator))

    def _weight(self, place: int) -> Tensor:
        """Return the filters of one producer, flattened, ``[filters, fan_in]``."""
        weight = self._network.get_submodule(self.group.producers[place]).weight
        assert isinstance(weight, Tensor)
        rows = weight.float().flatten(1)[self._rows[place]]
        return rows.detach() if self._rule.detached else rows


class Gates:
    """The gates of a network, which act on it inside :meth:`attached`.

    They multiply what leaves the batch norms, so that a closed filter emits nothing, its shift
    included, and the gated network is the shrunk one. They are read off the weights anew whenever
    the network runs, and are no part of it.

    Args:
        network: Not changed.
        layout: Its groups.
        rule: How gates are made and opened.
    """

    def __init__(self, network: nn.Module, layout: Layout, rule: GateRule) -> None:
        self._network = network
        self._groups = [GroupGates(network, group, rule) for group in layout.groups]
        self._order = layout.cost.groups
        self._is_frozen = False
        self._logits: dict[str, Tensor] = {}
        self._gates: dict[str, Tensor] = {}
        self.refresh()

    @property
    def directions(self) -> list[nn.Parameter]:
        """What tells filters apart, of all groups."""
        return [direction for group in self._groups for direction in group.directions]

    @property
    def offsets(self) -> list[nn.Parameter]:
        """What opens or closes a group as a whole, ``[1]`` each."""
        return [group.offset for group in self._groups]

    @property
    def logits(self) -> dict[str, Tensor]:
        """Logits of the last time the network ran, by group, ``[filters]``."""
        return {name: logits.detach() for name, logits in self._logits.items()}

    @property
    def outside(self) -> float:
        """Share of the logits outside the support of the estimator, where no gradient flows."""
        logits = torch.cat([*self.logits.values()])
        return float((logits.abs() >= SUPPORT).float().mean())

    def state_dict(self) -> State:
        """Return what learns, and the gates and logits of the last time the network ran."""
        return {
            "is_frozen": self._is_frozen,
            **{f"parameter/{name}": value.detach() for name, value in self.named_parameters()},
            **{f"logit/{name}": logits.detach() for name, logits in self._logits.items()},
            **{f"gate/{name}": gates.detach() for name, gates in self._gates.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        """Take over what learns, and the gates and logits as they were."""
        self._is_frozen = state["is_frozen"]
        for name, parameter in self.named_parameters():
            parameter.copy_(state[f"parameter/{name}"])
        for kind, values in (("logit", self._logits), ("gate", self._gates)):
            for name, value in values.items():
                values[name] = state[f"{kind}/{name}"].to(value.device)

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return all that learns, by names that differ."""
        return [
            *((f"direction.{i}", direction) for i, direction in enumerate(self.directions)),
            *((f"offset.{i}", offset) for i, offset in enumerate(self.offsets)),
        ]

    def counts(self) -> Tensor:
        """Return the open gates, ``[groups]`` as in the cost model, on the CPU, differentiable."""
        return torch.stack([self._gates[name].sum() for name in self._order]).cpu().double()

    def freeze(self) -> None:
        """Keep every gate as it is from now on; nothing of them learns any more."""
        self._is_frozen = True
        for values in (self._logits, self._gates):
            values.update({name: tensor.detach() for name, tensor in values.items()})

    def refresh(self) -> None:
        """Read the gates off the weights as they are now, unless they are frozen."""
        if self._is_frozen:
            return
        device = next(self._network.parameters()).device
        with torch.autocast(device.type, enabled=False):
            for group in self._groups:
                logits = group.logits()
                self._logits[group.group.name] = logits
                self._gates[group.group.name] = group.gates(logits)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let the gates act while the context lasts."""
        handles = [self._network.register_forward_pre_hook(lambda *_: self.refresh())]
        try:
            for group in self._groups:
                for gated in gated_layers(self._network, group.group):
                    layer = self._network.get_submodule(gated.layer)
                    handles.append(layer.register_forward_hook(self._gate(group.group, gated)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _gate(self, group: Group, gated: "GatedLayer") -> Any:
        device = next(self._network.parameters()).device
        rows = gated.rows.to(device)  # [filters, r]

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            if torch.is_grad_enabled() and not gated.learns:
                return None
            gates = self._gates[group.name][:, None].expand(rows.shape)
            scale = output.new_ones(output.shape[1], dtype=gates.dtype)
            scale = scale.index_copy(0, rows.flatten(), gates.flatten())
            return output * scale.to(output.dtype)[:, None, None]

        return hook


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedLayer:
    """A layer whose output is gated."""

    layer: str
    rows: Tensor  #: Its channels, by filter, ``[filters, r]``.
    learns: bool  #: Gated while gradients are taken, too.


def gated_layers(network: nn.Module, group: Group) -> list[GatedLayer]:
    """Return where the gates of ``group`` act: behind everything that could emit its filters.

    Where depthwise convolutions and their norms follow the producers, gradients are taken at the
    last of them only: a batch norm takes out the scale of what a gate before it lets through.
    """
    behind = {norm or producer for producer, norm in zip(group.producers, group.norms, strict=True)}
    members = {
        member.layer: member
        for member in group.outputs
        if isinstance(network.get_submodule(member.layer), nn.Conv2d | nn.BatchNorm2d)
    }
    followers = [name for name in members if name not in {*group.producers, *behind}]
    norms = [n for n in followers if isinstance(network.get_submodule(n), nn.BatchNorm2d)]
    last = set(norms or followers or behind)
    return [
        GatedLayer(layer=name, rows=torch.tensor(members[name].channels), learns=name in last)
        for name in members
        if name in {*behind, *followers}
    ]
