"""Filter ranking by distance to the geometric median of a layer.

Source: He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
Acceleration", CVPR 2019, arXiv:1811.00250 (FPGM).
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Filters, PruningMethod, Session, register
from methods.criteria.allocation import across_layers
from methods.structure.cost import CostTarget
from methods.structure.plan import Ratios


@register(aliases={"fpgm": {}})
@dataclass(frozen=True, kw_only=True)
class GeometricMedian(PruningMethod):
    """Score each filter by its summed distance to all filters; the most replaceable goes first.

    With ``norm_share`` above 0 that share of the filters to go is taken by the smallest L2 norm
    and the rest by distance, which the paper calls FPGM-mix. Departure: the authors' code measures
    distances among the filters that the norm left over, which depends on how many go; here they
    are measured among all filters, so that one score ranks them for every ratio.
    """

    name: ClassVar[str] = "geometric_median"
    source: ClassVar[str] = "He et al., CVPR 2019, arXiv:1811.00250"
    allocates: ClassVar[bool] = True
    any_layer: ClassVar[bool] = True
    norm_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  #: Share taken by L2 norm; 0: none.

    def score(self, filters: Filters) -> Tensor:
        """Return one score per filter, ``[C_out]``; the lowest is pruned first.

        It is the sum of distances or, with ``norm_share``, the place in the order of removal.
        """
        flat = filters.weight.flatten(1).double()  # [C_out, C_in * K * K]
        # Through a matrix product equal filters would not be at distance 0.
        distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
        if self.norm_share == 0.0:
            return distances.to(filters.weight.dtype)
        places = torch.empty_like(distances)
        order = _mixed_order(flat.norm(dim=1), distances, self.norm_share)
        places[order] = torch.arange(len(order), dtype=places.dtype, device=places.device)
        return places.to(filters.weight.dtype)

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Rank the filters of all layers, each score relative to the mean of its group."""
        scores = self.scores(network, session)
        return across_layers(session.layout, target, scores, relative=True)


def _mixed_order(norms: Tensor, distances: Tensor, norm_share: float) -> list[int]:
    """Return the order of removal in which the first ``n``, for every ``n``, are the mix of ``n``.

    That mix is the ``floor(norm_share * n)`` smallest norms and the smallest distances of the
    others. Removing one more never gives one back, so the mixes of all sizes form one order.
    """
    by_norm = torch.argsort(norms, stable=True).tolist()
    by_distance = iter(torch.argsort(distances, stable=True).tolist())
    order: dict[int, None] = {}  # insertion-ordered set
    taken_by_norm = 0
    for size in range(1, len(by_norm) + 1):
        wanted_by_norm = math.floor(norm_share * size + 1e-6)
        nearest_norm = by_norm[wanted_by_norm - 1]
        if wanted_by_norm > taken_by_norm and nearest_norm not in order:
            order[nearest_norm] = None
        else:
            order[next(index for index in by_distance if index not in order)] = None
        taken_by_norm = wanted_by_norm
    return list(order)
