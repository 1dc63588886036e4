"""Filter ranking by batch-norm scale, after training that drives scales to zero.

Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV
2017, arXiv:1708.06519, sec. 3.
"""

import logging
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Filters, PruningMethod, Session, register
from methods.criteria.allocation import across_layers
from methods.criteria.pull import Pull
from methods.errors import MethodError
from methods.hooks import Step
from methods.state import NO_STATE
from methods.structure.cost import CostTarget
from methods.structure.layout import Layout
from methods.structure.plan import PruningPlan, Ratios

log = logging.getLogger(__name__)


@register(aliases={"network_slimming": {"pull": 0.5}})
@dataclass(frozen=True, kw_only=True)
class BatchNormScale(PruningMethod):
    """Score each filter by the size of the batch-norm scale behind it.

    With ``sparsity`` 0 the scales are taken as they are: a weaker baseline than the paper's method.
    There is one threshold for the whole network, as published, where the method allocates; at given
    ratios scales are ranked within a group. Departures: every group keeps a filter; only the scales
    of filters that may go are driven to zero; they start from the baseline's values, not from 0.5.
    """

    name: ClassVar[str] = "bn_scale"
    source: ClassVar[str] = "Liu et al., ICCV 2017, arXiv:1708.06519"
    allocates: ClassVar[bool] = True
    added: ClassVar[tuple[str, ...]] = ("pull",)
    #: Weight of the sum of scales in the loss; above 0 it takes the place of ``pull``.
    sparsity: Annotated[float, Field(ge=0.0)] = 0.0
    #: How far the penalty pulls a scale while it trains, in mean scales; it sets the weight.
    pull: Annotated[float, Field(ge=0.0)] = 0.0
    sparse_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5  #: Epochs trained sparsely.

    @property
    def trains(self) -> bool:
        """Sparse training comes before the choice."""
        return self.sparsity > 0.0 or self.pull > 0.0

    def check(self, network: nn.Module, layout: Layout) -> None:
        """Refuse a network in which a prunable convolution has no batch norm with a scale.

        Raises:
            MethodError: Which convolution it is.
        """
        _scales(network, layout)

    def score(self, filters: Filters) -> Tensor:
        """Return the absolute scale of each filter, ``[C_out]``; the lowest is pruned first."""
        if filters.scale is None:
            raise MethodError(f"The method {self.name!r} scores only filters with a batch norm.")
        return filters.scale.abs()

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Rank the filters of all layers by their scores as they are."""
        return across_layers(session.layout, target, self.scores(network, session))

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        """Train with sparse scales if asked, then choose by the session's schedule.

        Raises:
            MethodError: A prunable convolution has no batch norm with a scale behind it.
        """
        scales = _scales(network, session.layout)
        if self.sparsity or self.pull:
            self._train_sparsely(network, scales, session)
        return super().select(network, ratios, session)

    def _train_sparsely(
        self, network: nn.Module, scales: list[nn.Parameter], session: Session
    ) -> None:
        epochs = round(self.sparse_share * session.epochs_left)
        if not epochs:
            log.warning("%s has no epoch to train sparsely: scales stay as they are.", self.name)
            return
        if self.sparsity:
            pull = Pull.of_coefficient(self.sparsity, scales, session, epochs)
        else:
            pull = Pull.of_total(self.pull, scales, session, epochs)
        pull.record(self.name, session)

        def add_subgradient(_step: Step) -> None:
            for scale in scales:
                if scale.grad is not None:
                    scale.grad.add_(torch.sign(scale.detach()), alpha=pull.coefficient)

        session.train(network, epochs, after_backward=add_subgradient, state=NO_STATE)


def _scales(network: nn.Module, layout: Layout) -> list[nn.Parameter]:
    found = []
    for group in layout.groups:
        for producer, norm in zip(group.producers, group.norms, strict=True):
            scale = network.get_submodule(norm).weight if norm else None
            if not isinstance(scale, nn.Parameter):
                raise MethodError(
                    f"The method 'bn_scale' needs a batch norm with a scale behind every "
                    f"convolution it prunes, and {producer!r} has none. Protect that layer, or "
                    "choose another method."
                )
            found.append(scale)
    return found
