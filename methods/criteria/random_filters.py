"""Random ranking: the control that says how much a criterion adds.

Source: as in Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710,
which compares with filters drawn at random.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import Filters, PruningMethod, Session, register
from methods.criteria.allocation import across_layers
from methods.structure.cost import CostTarget
from methods.structure.plan import Ratios


@register()
@dataclass(frozen=True, kw_only=True)
class RandomPruning(PruningMethod):
    """Draw each filter's score, the same for the same trial seed and layer."""

    name: ClassVar[str] = "random"
    source: ClassVar[str] = "control; Li et al., ICLR 2017, arXiv:1608.08710"
    allocates: ClassVar[bool] = True
    any_layer: ClassVar[bool] = True

    def score(self, filters: Filters) -> Tensor:
        """Return one score per filter, ``[C_out]``, uniform in [0, 1)."""
        drawn = torch.rand(len(filters.weight), generator=filters.generator)
        return drawn.to(filters.weight)

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Rank the filters of all layers by their scores as they are."""
        return across_layers(session.layout, target, self.scores(network, session))
