"""What can go wrong on the way to a sweep, and while it runs."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from prunesweep import PrunesweepError
from tracking.plain_text import one_line

MOST_PROBLEMS: Final = 20  #: Lines in which the mistakes of one specification are told.


class InputError(PrunesweepError):
    """What was asked for cannot be done as it is; nothing was begun."""


class SweepError(PrunesweepError):
    """A sweep does not get going, or cannot go on."""


class Problem(NamedTuple):
    """One mistake in a specification."""

    place: str  #: Where it stands: ``sweep.yaml:12: recipe.epoch``, or the key path alone.
    message: str  #: What is wrong and the way out; never shows a password.

    def __str__(self) -> str:
        return one_line(f"{self.place}: {self.message}")


class SpecError(InputError, ValueError):
    """A specification cannot be used; every problem found is listed, one line each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = list(dict.fromkeys(map(str, self.problems)))
        more = [f"and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
        return "\n".join([*lines[:MOST_PROBLEMS], *more])


class SpecChangeError(InputError, ValueError):
    """A sweep of this name exists, and what was asked for now would give other results."""

    def __init__(self, name: str, changes: Sequence[str]) -> None:
        super().__init__(name, changes)
        self.name, self.changes = name, tuple(changes)

    def __str__(self) -> str:
        lines = "\n".join(f"  {change}" for change in self.changes)
        return (
            f"The name {self.name!r} is already used by a sweep with another specification:\n"
            f"{lines}\nGive this sweep another name, or take the changes back. Resuming may change "
            "resources and tracking; extending may also raise search.trials and append seeds, arms "
            "and targets."
        )


class SweepFailedError(SweepError):
    """A sweep cannot go on."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return (
            f"The sweep {self.name!r} cannot go on: {self.problem} `prunesweep status "
            f"{self.name}` shows what failed, and the command that goes on where one can help."
        )


class SweepCancelledError(SweepError):
    """A sweep was cancelled as a whole, so none of it is run."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"The sweep {self.name!r} was cancelled. What has a result is kept; "
            f"`prunesweep resume {self.name} --restore` takes it back and goes on."
        )


class StoreLostError(SweepError):
    """The artifact store was there when the sweep began, and does not come back."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return (
            f"{self.problem} The sweep {self.name!r} has stopped, and no trial has failed of it; "
            "run the same command again when the store is back, and it goes on where it was."
        )


class LedgerLostError(SweepError):
    """The ledger was there when the sweep began, and does not come back."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return (
            f"{self.problem} The sweep {self.name!r} has stopped; run the same command again when "
            "the ledger is back, and it goes on where it was."
        )
