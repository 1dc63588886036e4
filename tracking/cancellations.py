"""What of a sweep was cancelled by hand: it will not be run any more, until it is restored."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from tracking.places import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellations:
    """Arms, controls and single trials that are not run any more, or the whole sweep."""

    arms: frozenset[str] = frozenset()  #: Names of arms and controls.
    uids: frozenset[str] = frozenset()  #: Of trials.
    whole: bool = False  #: Nothing of the sweep is run.

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self:
        """Read what `to_json` wrote; None: nothing was cancelled."""
        stored = stored or {}
        return cls(
            arms=frozenset(stored.get("arms", ())),
            uids=frozenset(stored.get("uids", ())),
            whole=bool(stored.get("whole")),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        return {"arms": sorted(self.arms), "uids": sorted(self.uids), "whole": self.whole}

    def __bool__(self) -> bool:
        return bool(self.whole or self.arms or self.uids)

    def __or__(self, other: Self) -> "Cancellations":
        return Cancellations(
            arms=self.arms | other.arms,
            uids=self.uids | other.uids,
            whole=self.whole or other.whole,
        )

    def covers(self, uid: str, places: Iterable[Place]) -> bool:
        """Say whether a trial is not run any more: nobody wants it who is not cancelled."""
        return self.whole or uid in self.uids or all(self.covers_place(place) for place in places)

    def covers_place(self, place: Place) -> bool:
        """Say whether the arm or control of a place was cancelled."""
        return self.whole or (place.arm in self.arms and not place.role.is_needed_by_all)
