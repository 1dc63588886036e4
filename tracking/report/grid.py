"""A table as text cells, and what keeps it short: no empty columns, no line twice; folded names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from rich.cells import cell_len
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.containers import Lines
from rich.text import Text

from tracking.comparison.comparison import Row, Verdict
from tracking.report.standing import standing_of
from tracking.report.wording import FEW, NOTHING, named

_WORD: Final = re.compile(r"\S+\s*")
_PIECE: Final = re.compile(r"[^-_/:]*[-_/:]+|[^-_/:]+")

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


class Folded(Text):
    """A text whose words go on in the next line after ``-``, ``_``, ``/`` or ``:``, if they must.

    ``rich`` breaks a word that is longer than a line wherever the line ends.
    """

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """Return it in lines of ``width`` cells at most."""
        lines = Lines()
        for line in self.split(allow_blank=True):
            for part in line.divide(() if no_wrap else _breaks(line.plain, width)):
                lines.extend(
                    part.wrap(
                        console,
                        width,
                        justify=justify,
                        overflow=overflow,
                        tab_size=tab_size,
                        no_wrap=no_wrap,
                    )
                )
        return lines


def _breaks(line: str, width: int) -> list[int]:
    """Return where new lines begin."""
    found, used = [], 0
    for start, piece in _pieces(line, width):
        if used and used + cell_len(piece.rstrip()) > width:
            found.append(start)
            used = 0
        used += cell_len(piece)
    return found


def _pieces(line: str, width: int) -> Iterator[tuple[int, str]]:
    """Yield words, and of those that are longer than a line their parts, each with its start."""
    for word in _WORD.finditer(line):
        if cell_len(word[0].rstrip()) <= width:
            yield word.start(), word[0]
        else:
            for piece in _PIECE.finditer(word[0]):
                yield word.start() + piece.start(), piece[0]
