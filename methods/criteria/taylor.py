"""Filter ranking by what removing a filter would change in the loss, to first order.

Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019,
arXiv:1906.10771, sec. 3.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.base import PruningMethod, Session, register
from methods.criteria.allocation import across_layers
from methods.structure.cost import CostTarget, evaluation_mode
from methods.structure.layout import Layout
from methods.structure.plan import Ratios

Gates = dict[str, Tensor]  #: One factor per filter, by group, ``[N or 1, filters, 1, 1]``.


@register()
@dataclass(frozen=True, kw_only=True)
class Taylor(PruningMethod):
    """Score each filter by the squared first-order change of the loss when a gate closes on it.

    The gate multiplies the output of the batch norm (of the convolution, where there is none);
    a group with several producers has one gate for all, and the score is divided by their number.
    Departures: scored at once, in evaluation mode and on images as they are, where the authors
    accumulate while they train. Ranked across the network, as published, where the method
    allocates; within a group otherwise.
    """

    name: ClassVar[str] = "taylor"
    source: ClassVar[str] = "Molchanov et al., CVPR 2019, arXiv:1906.10771"
    allocates: ClassVar[bool] = True
    images: Annotated[int, Field(ge=1)] = 2048  #: Training images to score on.
    batch_size: Annotated[int, Field(ge=1)] = 32  #: Images per gradient that is squared.
    per_example: bool = False  #: Square the gradient of each image instead.

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return the mean squared change of the loss, by group, ``[filters]``."""
        found = session.statistics(
            network, repr(self), lambda: self._measure(network, session)
        )  # shared by all ratios
        return {name: score.float().cpu() for name, score in found.items()}

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Rank the filters of all layers by their scores as they are."""
        return across_layers(session.layout, target, self.scores(network, session))

    def _measure(self, network: nn.Module, session: Session) -> dict[str, Tensor]:
        layout = session.layout
        totals = {g.name: torch.zeros(g.width, device=session.device) for g in layout.groups}
        seen = 0
        with evaluation_mode(network), torch.enable_grad():
            for images, labels in session.batches(self.images, self.batch_size):
                rows = len(labels) if self.per_example else 1
                with _gates(network, layout, rows, session.device) as gates:
                    loss = F.cross_entropy(
                        network(images), labels, reduction="sum" if self.per_example else "mean"
                    )
                    gradients = torch.autograd.grad(loss, list(gates.values()))
                for name, gradient in zip(gates, gradients, strict=True):
                    squares = gradient.flatten(1).float().square()  # [N or 1, filters]
                    totals[name] += squares.mean(dim=0) * len(labels)
                seen += len(labels)
        uses = {group.name: len(group.producers) for group in layout.groups}
        return {name: total / (seen * uses[name]) for name, total in totals.items()}


@contextmanager
def _gates(network: nn.Module, layout: Layout, rows: int, device: torch.device) -> Iterator[Gates]:
    """Multiply what every group emits by ones that record gradients, while the context lasts."""
    gates: Gates = {}
    handles = []
    for group in layout.groups:
        gate = torch.ones(rows, group.width, 1, 1, device=device, requires_grad=True)
        gates[group.name] = gate
        handles += [
            network.get_submodule(norm or producer).register_forward_hook(
                lambda _module, _inputs, output, gate=gate: output * gate
            )
            for producer, norm in zip(group.producers, group.norms, strict=True)
        ]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()
