"""Tables over all arms at once: every target, and every group of filters."""

from dataclasses import replace

from tracking.comparison.comparison import Comparison, Row, Table
from tracking.report.grid import Grid, Line, line_of
from tracking.report.standing import STANDINGS, standing_of
from tracking.report.wording import AXES, NOTHING, listed, percent, share


def overview_grid(comparison: Comparison) -> Grid | None:
    """Return every arm at every target; None where there are not several of both."""
    tables = [table for table in comparison.tables if not table.is_front and table.drop is None]
    names = list(dict.fromkeys(row.name for table in tables for row in table.arms))
    if len({table.target for table in tables}) < 2 or len(names) < 2:
        return None
    found = [{row.name: row for row in table.rows} for table in tables]
    worst = len(names)
    ranks = {
        name: sum(
            next((n for n, row in enumerate(table.arms) if row.name == name), worst)
            for table in tables
        )
        for name in names
    }
    controls = list(dict.fromkeys(row.name for table in tables for row in table.controls))
    lines = []
    for name in [*sorted(names, key=lambda one: ranks[one]), *controls]:
        rows = [by_name.get(name) for by_name in found]
        first = next(row for row in rows if row is not None)
        best = min((standing_of(row) for row in rows if row), key=STANDINGS.index)
        line = line_of(first, (name, *(_standing_cell(row) for row in rows)))
        lines.append(replace(line, standing=best, kind="arm" if line.kind == "lead" else line.kind))
    return Grid(
        title="Every arm at every target",
        columns=("Arm or control", *(_short(table) for table in tables)),
        lines=tuple(lines),
        note="Test accuracy, %. By mean rank. \N{BLACK STAR}: highest mean; =: not told from it; "
        "in brackets: off target, not ranked.",
    )


def _short(table: Table) -> str:
    if table.axis is None or table.reduction is None:
        return table.target
    return f"\N{MINUS SIGN}{100 * table.reduction:g} % {AXES.get(table.axis, table.axis)}"


def _standing_cell(row: Row | None) -> str:
    if row is None or row.accuracy is None:
        return NOTHING
    mean = percent(row.accuracy.mean)
    if standing_of(row) == "aside":
        return f"({mean})"
    if row.role == "control":
        return mean
    return mean + {"lead": " \N{BLACK STAR}", "level": " ="}.get(standing_of(row), "")


def width_grid(table: Table) -> Grid:
    """Return the filters each arm kept: a line an arm, equal ones once, a column a group."""
    rows = merged_widths(table)
    groups = {w.group: w.dense for row, _ in rows for w in row.widths}
    dense = ("dense", *(NOTHING if n is None else str(n) for n in groups.values()))
    lines = [Line(kind="control", cells=dense)] if rows else []
    for row, names in rows:
        found = {w.group: f"{w.kept:g} ({share(w.share)})" for w in row.widths}
        lines.append(line_of(row, (listed(names), *(found.get(g, NOTHING) for g in groups))))
    return Grid(
        title="Filters kept",
        columns=("Arm", *groups),
        lines=tuple(lines),
        note="Mean over the fresh-seed runs. Arms with equal widths share a line.",
    )


def merged_widths(table: Table) -> list[tuple[Row, list[str]]]:
    """Return the arms with widths, each once a shape, with the names of those that share it."""
    found: dict[tuple[tuple[str, float], ...], tuple[Row, list[str]]] = {}
    for row in table.arms:
        if row.widths:
            shape = tuple((width.group, width.kept) for width in row.widths)
            found.setdefault(shape, (row, []))[1].append(row.name)
    return list(found.values())
