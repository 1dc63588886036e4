"""The numbers of filters each group may keep, and steps between them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

ROUNDING_SLACK = 1e-6  #: Added before a removed count is cut to an integer, here and in plans.


@dataclass(frozen=True, kw_only=True, slots=True)
class CountGrid:
    """Allowed kept counts by group: multiples of a step within limits, and the dense width.

    The dense width belongs to the grid when the limits allow it, even if it is no multiple. All
    arrays are ``[groups]``.
    """

    widths: Counts  #: Dense filters.
    lowest: Counts  #: Smallest multiple allowed.
    highest: Counts  #: Largest multiple allowed.
    steps: Counts
    dense_allowed: npt.NDArray[np.bool_]

    @classmethod
    def between(cls, widths: Counts, min_kept: Counts, max_kept: Counts, step: int) -> "CountGrid":
        """Build the grid of multiples of ``step``; 1 for a group whose limits hold none."""
        lowest = -(-min_kept // step) * step
        highest = max_kept // step * step
        fits = lowest <= highest
        return cls(
            widths=widths,
            lowest=np.where(fits, lowest, min_kept),
            highest=np.where(fits, highest, max_kept),
            steps=np.where(fits, step, 1),
            dense_allowed=max_kept == widths,
        )

    def snap(self, removed: Reals) -> Counts:
        """Return the allowed count for each real number of filters removed.

        A step of 1 removes the whole filters only; a coarser one goes to the nearest count.
        """
        kept = self.widths - removed
        nearest = np.floor(kept / self.steps + 0.5).astype(np.int64) * self.steps
        whole = self.widths - np.floor(removed + ROUNDING_SLACK).astype(np.int64)
        counts = np.where(self.steps == 1, whole, nearest).clip(self.lowest, self.highest)
        dense_is_nearer = np.abs(self.widths - kept) < np.abs(counts - kept)
        return np.where(self.dense_allowed & dense_is_nearer, self.widths, counts)

    def below(self, kept: Counts) -> Counts:
        """Return the next smaller allowed count; ``kept`` itself where there is none."""
        lower = -(-kept // self.steps) * self.steps - self.steps
        return np.where(lower >= self.lowest, lower, kept)

    def above(self, kept: Counts) -> Counts:
        """Return the next larger allowed count; ``kept`` itself where there is none."""
        upper = kept // self.steps * self.steps + self.steps
        beyond = np.where(self.dense_allowed, self.widths, kept)
        return np.where(upper <= self.highest, upper, beyond)
