"""The pruning plan: which filters stay, as data that can be stored and sent."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from methods.errors import PlanError, PruningRatioError

Ratios = Mapping[str, float]  #: Share of filters removed, by group, in [0, 1).

FORMAT = 1


def removed_count(group: str, width: int, ratio: float) -> int:
    """Return how many of ``width`` filters go at ``ratio``; at least one filter is kept.

    Raises:
        PruningRatioError: ``ratio`` is outside ``[0, 1)``.
    """
    if not 0.0 <= ratio < 1.0:
        raise PruningRatioError(group, ratio)
    return min(width - 1, math.floor(ratio * width + 1e-6))  # 0.1 * 10 must not become 0


def stated_ratio(group: str, width: int, ratio: float, *, gradual: bool) -> float:
    """Return the ratio that a trial states for what ``ratio`` removes: one for each count.

    That is ``count / width``. A schedule on which filters go at different times multiplies before
    it rounds; there it is the middle of the ratios that remove as many, so that the last filter
    does not wait for the very end.

    Raises:
        PruningRatioError: ``ratio`` is outside ``[0, 1)``.
    """
    count = removed_count(group, width, ratio)
    return (count + 0.5) / width if gradual and count else count / width


@dataclass(frozen=True, kw_only=True, slots=True)
class PruningPlan:
    """Which filters stay, per group.

    Raises:
        PlanError: Indices are out of range, unsorted, repeated, or a group would be emptied.
    """

    policy: str  #: Layer policy the groups were found under.
    widths: Mapping[str, int]  #: Filters of the dense network, by group.
    kept: Mapping[str, tuple[int, ...]]  #: Indices that stay, ascending, by group.

    def __post_init__(self) -> None:
        if self.kept.keys() != self.widths.keys():
            odd = sorted(self.kept.keys() ^ self.widths.keys())
            raise PlanError(f"A plan names the same groups twice; {odd} stand in one list only.")
        for group, indices in self.kept.items():
            width = self.widths[group]
            if not indices:
                raise PlanError(f"The plan keeps no filter of {group!r}; every group keeps one.")
            if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= width:
                raise PlanError(
                    f"The plan's indices for {group!r} must ascend without repeats within "
                    f"0..{width - 1}; they are {list(indices)}."
                )

    @property
    def ratios(self) -> dict[str, float]:
        """Share of filters removed, by group."""
        return {group: 1 - len(kept) / self.widths[group] for group, kept in self.kept.items()}

    def dropped(self, group: str) -> list[int]:
        """Return the indices that go, ascending."""
        kept = set(self.kept[group])
        return [index for index in range(self.widths[group]) if index not in kept]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able data."""
        return {
            "format": FORMAT,
            "policy": self.policy,
            "widths": dict(self.widths),
            "kept": {group: list(kept) for group, kept in self.kept.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PruningPlan":
        """Rebuild a plan.

        Raises:
            PlanError: ``data`` is not a plan of this format.
        """
        try:
            if data["format"] != FORMAT:
                raise PlanError(
                    f"The plan has format {data['format']!r}; this version reads format {FORMAT}."
                )
            return cls(
                policy=str(data["policy"]),
                widths={str(g): int(w) for g, w in data["widths"].items()},
                kept={str(g): tuple(int(i) for i in kept) for g, kept in data["kept"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"This is not a pruning plan: {error!r}.") from error
