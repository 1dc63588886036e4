"""Trials that are wanted: due and not handed out, out and not ended, or kept for the end."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces import Proposal
from tracking.places import Place
from workers.settings import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A trial the sweep wants, and the place it is wanted for."""

    place: Place
    trial: TrialSpec
    proposal: Proposal | None = None

    @property
    def is_exclusive(self) -> bool:
        """Nothing else may run meanwhile, because time is what is measured."""
        return self.trial.is_exclusive

    @property
    def stored_proposal(self) -> dict[str, Any] | None:
        """The proposal as the ledger takes it."""
        if self.proposal is None:
            return None
        return {"params": dict(self.proposal.params), "state": dict(self.proposal.state)}


class Queue:
    """Wanted trials by place: each place is wanted with one content, named by the trial's uid."""

    def __init__(self) -> None:
        self._due: deque[Wanted] = deque()
        self._last: deque[Wanted] = deque()  # due once all else has ended
        self._known: dict[Place, str] = {}  # places the ledger has: not handed out again
        self._open: dict[Place, str] = {}  # places that have not ended, due or out

    def know(self, places: Mapping[Place, str]) -> None:
        """Take in what the ledger holds already, uid by place."""
        self._known = dict(places)

    def forget(self, places: Iterable[Place]) -> None:
        """Hand places out again should they be wanted: the ledger says what became of them."""
        for place in places:
            del self._known[place]

    def add(self, place: Place, trial: TrialSpec, *, last: bool = False) -> None:
        """Want a trial at a place; ``last``: once all else has ended."""
        self._open[place] = trial.uid
        if self._known.get(place) != trial.uid:
            (self._last if last else self._due).append(Wanted(place=place, trial=trial))

    def hand_out(self, place: Place, uid: str) -> None:
        """Note a trial that is out without having been due."""
        self._open[place] = uid

    def take(self, limit: int) -> list[Wanted]:
        """Hand out up to ``limit`` trials that are due."""
        return [self._due.popleft() for _ in range(min(limit, len(self._due)))]

    def take_last(self) -> list[Wanted]:
        """Hand out one of those that were kept for the end, if all else has ended."""
        is_end = len(self._open) == len(self._last)
        return [self._last.popleft()] if is_end and self._last else []

    def ended(self, place: Place, uid: str) -> bool:
        """Say whether what ended at a place was wanted there, and want it no more."""
        if self._known.get(place) == uid:
            del self._known[place]
        if self._open.get(place) != uid:
            return False
        del self._open[place]
        return True

    def drop(self, arm: str, *, last: bool = False) -> list[Place]:
        """Want nothing more of an arm that is due, or kept for the end; return those places."""
        among = self._last if last else self._due
        mine = [
            wanted.place
            for wanted in among
            if wanted.place.arm == arm and not wanted.place.role.is_needed_by_all
        ]
        kept = [wanted for wanted in among if wanted.place not in mine]
        among.clear()
        among.extend(kept)
        for place in mine:
            del self._open[place]
        return mine

    @property
    def open(self) -> Collection[Place]:
        """Places that have not ended."""
        return self._open.keys()
