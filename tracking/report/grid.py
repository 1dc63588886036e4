"""A table as text cells, and what keeps it short: no empty columns, no line twice."""

from dataclasses import dataclass, replace
from typing import Literal

from tracking.comparison.comparison import Row, Verdict
from tracking.report.standing import standing_of
from tracking.report.wording import FEW, NOTHING, named

Kind = Literal["lead", "arm", "control", "aside"]  #: ``aside``: shown, but not ranked.


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a grid."""

    kind: Kind
    cells: tuple[str, ...]
    arm: str = ""  #: The row it speaks of; empty: of none that could be hidden.
    standing: str = ""  #: Of that row, as `standing_of` gives it.


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A titled table of text."""

    title: str
    columns: tuple[str, ...]  #: The first one is left-aligned, the others right-aligned.
    lines: tuple[Line, ...]
    note: str = ""  #: How to read it.


def line_of(row: Row, cells: tuple[str, ...]) -> Line:
    """Return a line that speaks of a row."""
    return Line(kind=_kind(row), cells=cells, arm=row.name, standing=standing_of(row))


def without_empty(grid: Grid) -> Grid:
    """Leave out columns that hold nothing but zeros or nothing at all; the note names them."""
    if not grid.lines:
        return grid
    kept = [
        place
        for place in range(len(grid.columns))
        if not place or any(line.cells[place] not in {"0", "0 s", NOTHING} for line in grid.lines)
    ]
    gone = [name for place, name in enumerate(grid.columns) if place not in kept]
    lines = [replace(line, cells=tuple(line.cells[place] for place in kept)) for line in grid.lines]
    return replace(
        grid,
        columns=tuple(grid.columns[place] for place in kept),
        lines=tuple(lines),
        note=f"{grid.note} Nothing to show under: {', '.join(gone)}." if gone else grid.note,
    )


def alike(grid: Grid) -> Grid:
    """Put rows that say the same on one line, where that makes the table much shorter."""
    found: dict[tuple[str, ...], list[Line]] = {}
    for line in grid.lines:
        found.setdefault(line.cells[1:], []).append(line)
    if len(grid.lines) - len(found) < FEW:
        return grid
    lines = [
        same[0]
        if len(same) == 1
        else Line(kind="arm", cells=(named([one.cells[0] for one in same], "rows"), *cells))
        for cells, same in found.items()
    ]
    return replace(grid, lines=tuple(lines))


def _kind(row: Row) -> Kind:
    if row.role == "control":
        return "control"
    if row.verdict in {Verdict.OFF_TARGET, Verdict.MISSING}:
        return "aside"
    return "lead" if row.leads else "arm"
