"""An L1 penalty on factors of a network, stated by how far it pulls them.

A coefficient says little by itself: 1e-4 for 160 epochs at a learning rate of 0.1 and for two
epochs at 0.01 differ by a factor of 10,000 in what reaches a factor. The *pull* is that: how far
the penalty alone moves a factor in the whole training, relative to the factors' mean size at its
start. At 1 a factor that nothing else holds is at zero in the end.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from methods.base import Session

log = logging.getLogger(__name__)

VOID = 0.01  #: A pull below this moves no factor past another, other than by chance.


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """How hard an L1 penalty pulls in one training."""

    coefficient: float  #: Weight of the sum of sizes in the loss.
    total: float  #: The pull: distance over mean size at the start.

    @classmethod
    def of_total(
        cls, total: float, factors: Iterable[nn.Parameter], session: Session, epochs: int
    ) -> "Pull":
        """Find the coefficient for a pull within ``epochs`` from here."""
        reach = session.reach(epochs) / mean_size(factors)
        return cls(coefficient=total / reach, total=total)

    @classmethod
    def of_coefficient(
        cls, coefficient: float, factors: Iterable[nn.Parameter], session: Session, epochs: int
    ) -> "Pull":
        """Find the pull of a coefficient within ``epochs`` from here."""
        return cls(
            coefficient=coefficient,
            total=coefficient * session.reach(epochs) / mean_size(factors),
        )

    def record(self, method: str, session: Session) -> None:
        """Note both numbers in the result, and warn where the penalty cannot matter."""
        session.note("penalty_coefficient", self.coefficient)
        session.note("penalty_pull", self.total)
        if 0.0 < self.total < VOID:
            log.warning(
                "The L1 penalty of %r (coefficient %.2g) moves a factor by %.2g of its size in "
                "this budget: nothing is learned from it. Leave the coefficient out, so that it "
                "is chosen by the budget, or train longer.",
                *(method, self.coefficient, self.total),
            )


def mean_size(factors: Iterable[nn.Parameter]) -> float:
    """Return the mean absolute value over all factors; 1 where all are zero."""
    values = torch.cat([factor.detach().abs().flatten().double() for factor in factors])
    return float(values.mean()) or 1.0
