"""Any two rows held against one another, of one sweep or of two that share what they must."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tracking.answers import Answers
from tracking.comparison.comparison import Comparison, Row, Table
from tracking.errors import TrackingError
from tracking.statistics.model import (
    SIGNIFICANCE,
    Difference,
    Reach,
    difference_of,
    images_variance,
    is_tie,
    reach_of,
)


class PairError(TrackingError, ValueError):
    """Two rows cannot be held against one another."""

    def __init__(self, first: str, second: str, problem: str) -> None:
        super().__init__(first, second, problem)
        self.first, self.second, self.problem = first, second, problem

    def __str__(self) -> str:
        return f"{self.first} and {self.second} cannot be compared: {self.problem}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One arm or control of one sweep."""

    comparison: Comparison
    arm: str
    answers: Mapping[str, Answers] = field(default_factory=dict)
    """Which test images its runs got right, ``[seeds, images]``, by target; empty: for all."""

    def __str__(self) -> str:
        return f"{self.comparison.sweep}/{self.arm}"

    @property
    def rows(self) -> dict[str, tuple[Table, Row]]:
        """Its rows with an accuracy, by target."""
        return {
            table.target: (table, row)
            for table in self.comparison.tables
            for row in table.rows
            if row.name == self.arm and row.accuracy is not None
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two rows at one target. They were named beforehand, so nothing is corrected for picking."""

    target: str
    same: bool  #: The very same trials by two names.
    test: Difference  #: First minus second; over test images too where both kept their answers.
    reach: Reach | None
    verdict: str  #: ``first``, ``second``, ``tie``, ``undecided`` or ``same``.

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return asdict(self)


def pairs_of(first: Side, second: Side, margin: float) -> tuple[Pair, ...]:
    """Hold two arms or controls against one another at every target that both were run at.

    Args:
        first: What the second is subtracted from.
        second: The other one.
        margin: Points that a tie is closer than.

    Raises:
        PairError: One of them has no result, there is no target they share, or they do not share
            baseline, recipe, images or layers.
    """
    return tuple(_pairs(first, second, margin))


def _pairs(first: Side, second: Side, margin: float) -> Iterator[Pair]:
    for side in (first, second):
        if not side.rows:
            known = sorted({r.name for table in side.comparison.tables for r in table.rows})
            names = ", ".join(known) or "none"
            raise PairError(str(first), str(second), f"{side} has no result. There are: {names}.")
    shared = [label for label in first.rows if label in second.rows]
    if not shared:
        asked = " and ".join(", ".join(side.rows) for side in (first, second))
        raise PairError(str(first), str(second), f"they share no target; they have {asked}.")
    for label in shared:
        (table, ours), (other, theirs) = first.rows[label], second.rows[label]
        _check_alike(first, second, table, other)
        yield _pair(label, ours, theirs, margin, (first, second))


def _images(label: str, ours: Row, theirs: Row, sides: tuple[Side, Side]) -> float | None:
    """Return the variance of the difference by the sampling of test images; None: not known."""
    kept = [side.answers.get(label, side.answers.get("")) for side in sides]
    if kept[0] is None or kept[1] is None or kept[0].shape[1] != kept[1].shape[1]:
        return None
    counts = [row.accuracy.n if row.accuracy else 0 for row in (ours, theirs)]
    if counts != [len(kept[0]), len(kept[1])]:
        return None
    return images_variance(kept[0], kept[1])


def _check_alike(first: Side, second: Side, table: Table, other: Table) -> None:
    one, two = asdict(table.identity), asdict(other.identity)
    odd = [name.replace("_", " ") for name in one if one[name] != two[name]]
    if odd:
        problem = f"their {' and '.join(odd)} differ, so a difference would not be the methods'."
        raise PairError(str(first), str(second), problem)


def _pair(label: str, ours: Row, theirs: Row, margin: float, sides: tuple[Side, Side]) -> Pair:
    if ours.spread is None or theirs.spread is None:
        problem = f"at {label} one of them has fewer than two seeds, or does not meet the target."
        raise PairError(str(sides[0]), str(sides[1]), problem)
    images = _images(label, ours, theirs, sides)
    test = difference_of(ours.spread, theirs.spread, images)
    is_one = sides[0].comparison.sweep == sides[1].comparison.sweep
    same = is_one and theirs.name in {ours.name, ours.same_as}
    same = same or (is_one and ours.name == theirs.same_as)
    if same:
        verdict = "same"
    elif test.p < SIGNIFICANCE:
        verdict = "first" if test.difference > 0 else "second"
    else:
        verdict = "tie" if is_tie(test, margin) else "undecided"
    reach = reach_of(ours.spread, theirs.spread, images, rows=2)
    return Pair(target=label, same=same, test=test, reach=reach, verdict=verdict)
