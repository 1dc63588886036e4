"""Which arms are shown to beat the random control of their table."""

from collections.abc import Iterator
from dataclasses import dataclass

from tracking.comparison.comparison import Row, Table
from tracking.places import RANDOM
from tracking.statistics.model import SIGNIFICANCE, Difference, difference_of


@dataclass(frozen=True, kw_only=True, slots=True)
class AgainstRandom:
    """One arm held against the random control, over seeds alone."""

    arm: str
    test: Difference  #: Arm minus random control.
    p: float  #: Two-sided, corrected for all arms being held against it (Holm).

    @property
    def beats(self) -> bool:
        """The arm is shown to end above the random control."""
        return self.p < SIGNIFICANCE and self.test.difference > 0


def random_row(table: Table) -> Row | None:
    """Return the random control that arms can be held against; None: there is none on target."""
    found = (row for row in table.controls if row.arm == RANDOM)
    return next((row for row in found if row.accuracy and row.on_target is not False), None)


def against_random(table: Table) -> tuple[AgainstRandom, ...]:
    """Hold every ranked arm with two seeds or more against the random control.

    The leader keeps the test it has, which is corrected for its having been picked; the others are
    corrected among themselves.
    """
    control = random_row(table)
    if control is None or control.spread is None or table.is_front:
        return ()
    tests = {
        row.name: difference_of(row.spread, control.spread)
        for row in table.arms
        if row.spread is not None and not row.leads and row.same_as is None
    }
    p = _holm({name: test.p for name, test in tests.items()})
    held = [AgainstRandom(arm=name, test=test, p=p[name]) for name, test in tests.items()]
    return (*_leader(table, control), *held)


def _leader(table: Table, control: Row) -> Iterator[AgainstRandom]:
    lead = table.leader
    if lead is not None and control.test is not None and control.p is not None:
        yield AgainstRandom(arm=lead.name, test=control.test, p=control.p)


def _holm(p: dict[str, float]) -> dict[str, float]:
    """Correct p-values for as many tests having been made (Holm's step-down)."""
    found, largest = {}, 0.0
    for rank, (name, each) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = found[name] = max(largest, min(1.0, each * (len(p) - rank)))
    return found
