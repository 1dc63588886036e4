"""What can go wrong when filters are chosen and removed."""

from collections.abc import Sequence
from difflib import get_close_matches

from prunesweep import PrunesweepError


class MethodError(PrunesweepError):
    """Filters cannot be chosen or removed as asked."""


def nearest(name: str, known: Sequence[str]) -> str:
    """Say which of ``known`` was probably meant, or list them all."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(sorted(known))}."


class UnknownMethodError(MethodError, LookupError):
    """No pruning method is registered under this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, tuple(known)

    def __str__(self) -> str:
        return f"There is no pruning method {self.name!r}; {nearest(self.name, self.known)}"


class SettingsError(MethodError, ValueError):
    """A method or schedule was given a setting it does not take, or a value it cannot use."""

    def __init__(self, owner: str, setting: str, problem: str) -> None:
        super().__init__(owner, setting, problem)
        self.owner, self.setting, self.problem = owner, setting, problem

    def __str__(self) -> str:
        return f"{self.owner}: setting {self.setting!r} {self.problem}"


class PruningRatioError(MethodError, ValueError):
    """A pruning ratio lies outside [0, 1)."""

    def __init__(self, layer: str, ratio: float) -> None:
        super().__init__(layer, ratio)  # plain args, so the error survives the trip from a worker
        self.layer, self.ratio = layer, ratio

    def __str__(self) -> str:
        return (
            f"Layer {self.layer!r} has pruning ratio {self.ratio}; it must be at least 0 and below "
            "1, because every layer keeps one filter. Lower its upper bound in the search space."
        )


class LayoutError(MethodError, ValueError):
    """A network cannot be pruned under the layer policy that was asked for."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class PlanError(MethodError, ValueError):
    """A pruning plan does not fit the network it is applied to."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem
