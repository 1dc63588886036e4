"""What can go wrong when ratios are proposed and fitted to a cost target."""

from collections.abc import Sequence

from methods.errors import nearest
from prunesweep import PrunesweepError


class SearchSpaceError(PrunesweepError):
    """Ratios cannot be searched or brought to their cost target as asked."""


class UnknownGroupError(SearchSpaceError, LookupError):
    """A pattern of ratio limits matches no prunable group."""

    def __init__(self, pattern: str, known: Sequence[str]) -> None:
        super().__init__(pattern, tuple(known))
        self.pattern, self.known = pattern, tuple(known)

    def __str__(self) -> str:
        return (
            f"The limits for {self.pattern!r} match no prunable group; "
            f"{nearest(self.pattern, self.known)}"
        )


class RatioLimitsError(SearchSpaceError, ValueError):
    """The limits of a group leave it no pruning ratio."""

    def __init__(self, group: str, floor: float, cap: float) -> None:
        super().__init__(group, floor, cap)
        self.group, self.floor, self.cap = group, floor, cap

    def __str__(self) -> str:
        return (
            f"Group {self.group!r} must lose at least {self.floor:.4g} and at most {self.cap:.4g} "
            "of its filters, which no ratio satisfies. Lower its minimum ratio, or raise its "
            "maximum ratio or lower the minimum share kept, whichever set the upper limit."
        )


class EmptySpaceError(SearchSpaceError, ValueError):
    """There is nothing to prune."""

    def __str__(self) -> str:
        return (
            "A search space needs at least one prunable group. Protect fewer layers or choose "
            "another layer policy."
        )


class NothingMayGoError(SearchSpaceError, ValueError):
    """The limits of a search space keep every filter."""

    def __str__(self) -> str:
        return (
            "The limits keep every filter of every group, so that nothing can be pruned. Raise "
            "max_ratio (or the upper limits of single groups), or let wider layers be pruned."
        )


class DuplicateGroupError(SearchSpaceError, ValueError):
    """Two groups carry one name."""

    def __init__(self, group: str) -> None:
        super().__init__(group)
        self.group = group

    def __str__(self) -> str:
        return f"Two groups are named {self.group!r}; a name stands for one. Rename one of them."


class ProposalError(SearchSpaceError, ValueError):
    """A proposal does not fit the search space."""

    def __init__(self, dimension: str, problem: str) -> None:
        super().__init__(dimension, problem)
        self.dimension, self.problem = dimension, problem

    def __str__(self) -> str:
        return f"Dimension {self.dimension!r} of the proposal {self.problem}"


class CostModelMismatchError(SearchSpaceError, ValueError):
    """A cost model and a search space describe different groups."""

    def __init__(self, group: str, widths: tuple[int | None, int | None]) -> None:
        super().__init__(group, widths)
        self.group, self.widths = group, widths

    def __str__(self) -> str:
        def say(width: int | None) -> str:
            return "no such group" if width is None else f"{width} filters"

        return (
            f"For group {self.group!r} the search space has {say(self.widths[0])} and the cost "
            f"model {say(self.widths[1])}. Build both from the same layout."
        )


class TargetInfeasibleError(SearchSpaceError, ValueError):
    """No ratios within the limits meet the cost target."""

    def __init__(self, axis: str, reduction: float, reachable: tuple[float, float]) -> None:
        super().__init__(axis, reduction, reachable)
        self.axis, self.reduction, self.reachable = axis, reduction, reachable

    def __str__(self) -> str:
        low, high = self.reachable
        if self.reduction > high:
            way_out = (
                "Raise max_ratio (or the upper limits of single groups), lower min_kept_share, "
                "let more layers be pruned, or ask for a smaller reduction."
            )
        else:
            way_out = (
                "Lower min_ratio (or the lower limits of single groups), or ask for a larger "
                "reduction."
            )
        return (
            f"The target removes {self.reduction:.2%} of the {self.axis}; the limits of the search "
            f"space allow {low:.2%} to {high:.2%}. {way_out}"
        )


class SearchSettingsError(SearchSpaceError, ValueError):
    """A search was given a setting it cannot use."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(setting, problem)
        self.setting, self.problem = setting, problem

    def __str__(self) -> str:
        return f"Search: {self.setting} {self.problem}"


class SearchOrderError(SearchSpaceError, ValueError):
    """A search was asked, told or restored out of order, which would change what it proposes."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(number, problem)
        self.number, self.problem = number, problem

    def __str__(self) -> str:
        return f"Proposal {self.number} {self.problem}"


class StudyStorageError(SearchSpaceError, ValueError):
    """An Optuna storage does not take a search."""

    def __init__(self, study: str, problem: str) -> None:
        super().__init__(study, problem)
        self.study, self.problem = study, problem

    def __str__(self) -> str:
        return (
            f"The study {self.study!r} cannot be written to this Optuna storage: {self.problem}. "
            "Name another one, as in --to sqlite:///studies.db."
        )
