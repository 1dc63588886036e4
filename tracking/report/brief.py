"""The verdicts in short: a sentence and a small table per target, for a notebook and for MLflow."""

from html import escape

from tracking.comparison.comparison import Comparison, Row, Table
from tracking.report.grid import Grid, line_of
from tracking.report.grids import told_verdict
from tracking.report.verdicts import interval_note, stories
from tracking.report.wording import (
    interval,
    markdown_safe,
    points,
    share,
    spread,
    target,
)

_COLUMNS = ("Arm", "Test accuracy, %", "95 % interval", "vs dense", "MACs less", "Verdict")
_CUT = "*The rest is in the report.*"


def verdict_grid(table: Table) -> Grid:
    """Return accuracy, cost and verdict of every row of a table."""
    return Grid(
        title=target(table.axis, table.reduction, table.target),
        columns=_COLUMNS,
        lines=tuple(line_of(row, _cells(row)) for row in table.rows),
    )


def brief_markdown(comparison: Comparison, longest: int) -> str:
    """Return verdicts and small tables as Markdown.

    Args:
        comparison: What to tell.
        longest: Characters it may have; whole parts are left out from the end, and it says so.
    """
    parts = [
        f"**{markdown_safe(story.title)}**: {markdown_safe(story.headline)}"
        for story in stories(comparison)
    ]
    parts += [grid_markdown(verdict_grid(table)) for table in comparison.tables if table.rows]
    parts += [markdown_safe(note)] if (note := interval_note(comparison)) else []
    text = ""
    for part in parts:
        if len(text) + len(part) + len(_CUT) + 4 > longest:
            return f"{text}{_CUT}"
        text += f"{part}\n\n"
    return text.rstrip()


def brief_html(comparison: Comparison) -> str:
    """Return verdicts and small tables as HTML without styles or scripts, for a notebook's cell."""
    parts = [f"<h3>{escape(comparison.sweep)} ({escape(comparison.state)})</h3>"]
    parts += [
        f"<p><b>{escape(story.title)}</b>: {escape(story.headline)}</p>"
        for story in stories(comparison)
    ]
    parts += [_html(verdict_grid(table)) for table in comparison.tables if table.rows]
    note = interval_note(comparison)
    parts += [f"<p><small>{escape(note)}</small></p>"] if note else []
    if comparison.missing:
        parts.append("<p>Still to come:</p><ul>")
        parts += [f"<li>{escape(line)}</li>" for line in comparison.missing]
        parts.append("</ul>")
    return "\n".join(parts)


def _cells(row: Row) -> tuple[str, ...]:
    drop = row.test_accuracy_drop
    return (
        row.name,
        spread(row.accuracy),
        interval(row.accuracy),
        points(None if drop is None else -drop),
        share(row.cost.macs_reduction if row.cost else None),
        told_verdict(row),
    )


def grid_markdown(grid: Grid) -> str:
    """Return a grid as a Markdown table under its title."""
    lines = [
        f"**{markdown_safe(grid.title)}**",
        "",
        "| " + " | ".join(grid.columns) + " |",
        "|" + "|".join("---:" if place else ":---" for place in range(len(grid.columns))) + "|",
    ]
    lines += ["| " + " | ".join(map(markdown_safe, line.cells)) + " |" for line in grid.lines]
    return "\n".join(lines)


def _html(grid: Grid) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in grid.columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line.cells) + "</tr>"
        for line in grid.lines
    )
    caption = f"<caption>{escape(grid.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
