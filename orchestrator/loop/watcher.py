"""What a driver tells of a sweep, for a person to see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tracking.places import Place
from tracking.records import Loss, TrialState
from workers.settings import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A trial of the sweep that reached a final state."""

    trial_id: int
    uid: str
    places: tuple[Place, ...]
    spec: TrialSpec
    state: TrialState
    result: Mapping[str, Any] | None = None
    cause: str | None = None  #: Why it failed, in one line.
    reused: bool = False  #: The result was in the ledger already.


class Watcher(Protocol):
    """Is told what the driver does, for a person to see."""

    def started(self, trial_id: int, place: Place, spec: TrialSpec, worker: str) -> None:
        """A trial began on a worker."""

    def reported(self, trial_id: int, step: int) -> None:
        """A running trial is at this epoch."""

    def ended(self, trial: Ended) -> None:
        """A trial reached a final state."""

    def lost(self, trial_id: int, loss: Loss, reason: str) -> None:
        """An attempt was lost; its trial is run again."""

    def given_up(self, arm: str, cause: str) -> None:
        """An arm's first trials all failed alike; no more of them are run."""

    def waits(self, reason: str) -> None:
        """A trial waits for what surrounds it; told again and again while it does."""

    def tick(self, running: int, waiting: int) -> None:
        """The loop went round once."""
