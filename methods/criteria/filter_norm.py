"""Filter ranking by the norm of the weights.

Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710, sec. 3.1.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from methods.base import Filters, PruningMethod, Session, register
from methods.criteria.allocation import across_layers
from methods.structure.cost import CostTarget
from methods.structure.plan import Ratios


@register(aliases={"l1": {"p": 1.0}, "l2": {"p": 2.0}})
@dataclass(frozen=True, kw_only=True)
class FilterNorm(PruningMethod):
    """Score each filter by the norm of its own weights."""

    name: ClassVar[str] = "filter_norm"
    source: ClassVar[str] = "Li et al., ICLR 2017, arXiv:1608.08710"
    allocates: ClassVar[bool] = True
    any_layer: ClassVar[bool] = True
    p: Annotated[float, Field(gt=0.0)] = 1.0  #: Order of the norm; 1 in the paper.
    largest_first: bool = False  #: Prune the largest norms instead: a control that ought to lose.

    def score(self, filters: Filters) -> Tensor:
        """Return the norm of each filter, ``[C_out]``; the lowest is pruned first."""
        norms = filters.weight.abs().pow(self.p).sum(dim=(1, 2, 3)).pow(1 / self.p)
        return -norms if self.largest_first else norms

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Rank the filters of all layers, each score relative to the mean of its group."""
        scores = self.scores(network, session)
        return across_layers(session.layout, target, scores, relative=True)
