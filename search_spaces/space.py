"""What a sampler chooses: one number per group or per stage, and the limits of each ratio."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces.errors import (
    DuplicateGroupError,
    EmptySpaceError,
    ProposalError,
    RatioLimitsError,
    UnknownGroupError,
)
from search_spaces.grid import ROUNDING_SLACK, CountGrid, Counts, Reals

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class PrunableGroup(Protocol):
    """What a search space needs to know of a group of layers."""

    @property
    def name(self) -> str:
        """Unique name."""
        ...

    @property
    def width(self) -> int:
        """Filters of the dense network."""
        ...

    @property
    def stage(self) -> str:
        """Name shared by the groups that take one number when a search goes per stage."""
        ...


class SpaceSettings(BaseModel):
    """Which numbers a search chooses, and between which pruning ratios.

    The minimum share kept wins over every upper limit; between the other limits, the last pattern
    that matches a group holds for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    per: Literal["group", "stage"] = "group"  #: One number for each group, or for each stage.
    min_ratio: Share = 0.0  #: Every group loses at least this share of its filters.
    max_ratio: Share = 0.9  #: No group loses more than this share.
    limits: dict[str, tuple[Share, Share]] = {}  #: (min, max) ratio by pattern of group names.
    min_kept_share: Share = 0.0  #: Share every group keeps whatever ``limits`` says.
    round_to: Annotated[int, Field(ge=1)] = 1  #: Kept counts are multiples, if cap and target let.

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> Self:
        for name, (low, high) in {"": (self.min_ratio, self.max_ratio), **self.limits}.items():
            if low > high:
                where = f"limits[{name!r}]" if name else "min_ratio and max_ratio"
                raise ValueError(f"{where}: the minimum {low} is above the maximum {high}")
        return self


class RatioSpace:
    """The dimensions of a search and the limits of every group, as arrays over the groups.

    Args:
        groups: Prunable groups, in the order of the layout.
        settings: Dimensions and limits.

    Raises:
        EmptySpaceError: There is no group.
        DuplicateGroupError: Two groups have one name.
        UnknownGroupError: A pattern of limits matches no group.
        RatioLimitsError: The limits of a group contradict each other.
    """

    def __init__(
        self, groups: Sequence[PrunableGroup], settings: SpaceSettings | None = None
    ) -> None:
        settings = settings or SpaceSettings()
        if not groups:
            raise EmptySpaceError
        names = [group.name for group in groups]
        for name in names:
            if names.count(name) > 1:
                raise DuplicateGroupError(name)
        self.settings = settings
        self.groups: tuple[str, ...] = tuple(names)
        self.widths: Counts = np.array([group.width for group in groups], dtype=np.int64)
        chosen = names if settings.per == "group" else [group.stage for group in groups]
        self.dimensions: tuple[str, ...] = tuple(dict.fromkeys(chosen))
        self._dimension = np.array([self.dimensions.index(name) for name in chosen])
        self.floors, self.caps = _limits(names, settings)
        self.min_kept, self.max_kept = _counts(self.widths, self.floors, self.caps)

    def grid(self, *, rounded: bool = True) -> CountGrid:
        """Return the kept counts within the limits: multiples of ``round_to``, or all."""
        step = self.settings.round_to if rounded else 1
        return CountGrid.between(self.widths, self.min_kept, self.max_kept, step)

    def by_group(self, proposal: Mapping[str, float]) -> Reals:
        """Spread a proposal, one number in [0, 1] per dimension, over the groups.

        Raises:
            ProposalError: A dimension is missing, unknown or outside [0, 1].
        """
        for name in self.dimensions:
            if name not in proposal:
                raise ProposalError(name, "is missing; give every dimension a number in [0, 1].")
            if not 0.0 <= proposal[name] <= 1.0:
                raise ProposalError(name, f"is {proposal[name]}; it must be a number in [0, 1].")
        if len(proposal) > len(self.dimensions):
            unknown = next(name for name in proposal if name not in self.dimensions)
            raise ProposalError(unknown, "is not one of the search space; leave it out.")
        numbers: Reals = np.array([proposal[name] for name in self.dimensions], dtype=np.float64)
        spread: Reals = numbers[self._dimension]
        return spread

    def ratios(self, kept: Counts) -> dict[str, float]:
        """Return the share of filters removed, by group, that leaves ``kept`` filters.

        ``floor(ratio * width + 1e-6)`` gives back the filters removed.
        """
        return dict(zip(self.groups, ((self.widths - kept) / self.widths).tolist(), strict=True))


def _limits(names: Sequence[str], settings: SpaceSettings) -> tuple[Reals, Reals]:
    floors = np.full(len(names), settings.min_ratio)
    caps = np.full(len(names), settings.max_ratio)
    for pattern, (low, high) in settings.limits.items():
        hits = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
        if not hits:
            raise UnknownGroupError(pattern, names)
        floors[hits], caps[hits] = low, high
    caps = np.minimum(caps, 1.0 - settings.min_kept_share)
    for name, low, high in zip(names, floors.tolist(), caps.tolist(), strict=True):
        if low > high:
            raise RatioLimitsError(name, low, high)
    return floors, caps


def _counts(widths: Counts, floors: Reals, caps: Reals) -> tuple[Counts, Counts]:
    """Return the smallest and largest kept counts; where no integer fits, the cap wins."""
    most_removed = np.floor(caps * widths + ROUNDING_SLACK).astype(np.int64)
    most_removed = np.minimum(most_removed, widths - 1)  # every group keeps one filter
    least_removed = np.ceil(floors * widths - ROUNDING_SLACK).astype(np.int64)
    return widths - most_removed, widths - np.minimum(least_removed, most_removed)
