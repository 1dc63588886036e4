"""A comparison as people take it along: terminal, plain text, Markdown, JSON and one HTML file.

Everything shown is taken from the comparison, which is computed from stored records alone.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from tracking.comparison.comparison import Comparison, Table
from tracking.report.grid import Folded, Grid
from tracking.report.grids import (
    failure_grid,
    front_grid,
    grids_of,
    predictor_grids,
)
from tracking.report.overviews import overview_grid, width_grid
from tracking.report.verdicts import (
    Story,
    failed_story,
    front_story,
    interval_note,
    method_note,
    stories,
    story_of,
)
from tracking.report.wording import FEW, amount, listed, markdown_safe, percent, target

STYLES = {"lead": "bold", "arm": "", "control": "dim", "aside": "dim italic"}
TEXT_WIDTH = 120  #: Columns of the plain text.


def to_renderable(comparison: Comparison, *, brief: bool = False) -> RenderableType:
    """Return what ``rich`` prints: the verdicts, then the tables; of accuracy and cost if brief."""
    parts: list[RenderableType] = [Text(_title(comparison), style="bold")]
    parts += [part for story in failed_story(comparison) for part in _told(story)]
    parts += _told(front_story(comparison.fronts)) if comparison.fronts else []
    for table in comparison.tables:
        parts += [] if table.is_front else _told(story_of(table))
        parts += [Text(f"  Warning: {line}", style="yellow") for line in table.warnings]
        parts += [_rich(grid) for grid in grids_of(table)[: 2 if brief else None]]
    parts += [_rich(front_grid(front)) for front in comparison.fronts]
    if not brief:
        for grid in predictor_grids(comparison.predictors):
            parts += [_rich(grid), Text(grid.note, style="dim")]
    if comparison.failures:
        parts.append(_rich(failure_grid(comparison.failures)))
    if note := method_note(comparison):
        parts.append(Text(note, style="dim"))
    parts += [Text(f"Warning: {line}", style="yellow") for line in comparison.warnings]
    if comparison.missing:
        parts.append(Text("Still to come", style="bold"))
        parts += [Text(f"  {line}") for line in comparison.missing]
    return Group(*parts)


def to_text(comparison: Comparison, width: int = TEXT_WIDTH) -> str:
    """Return the same as plain text without colours, ``width`` columns wide."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, force_terminal=False)
    console.print(to_renderable(comparison))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def to_markdown(comparison: Comparison) -> str:
    """Return verdicts and tables as GitHub-flavoured Markdown."""
    lines = [f"# {markdown_safe(_title(comparison))}", ""]
    lines += [line for story in failed_story(comparison) for line in _markdown_story(story)]
    lines += _markdown_story(front_story(comparison.fronts)) if comparison.fronts else []
    if (overview := overview_grid(comparison)) is not None:
        lines += _markdown(overview)
    for table in comparison.tables:
        lines += [] if table.is_front else _markdown_story(story_of(table))
        lines += [
            line for warning in table.warnings for line in (f"> {markdown_safe(warning)}", "")
        ]
        for grid in grids_of(table):
            lines += _markdown(grid)
    for front in comparison.fronts:
        lines += _markdown(front_grid(front))
    for grid in predictor_grids(comparison.predictors):
        lines += _markdown(grid)
    if comparison.failures:
        lines += _markdown(failure_grid(comparison.failures))
    if note := method_note(comparison):
        lines += [markdown_safe(note), ""]
    for title, items in (
        ("Warnings", comparison.warnings),
        ("Still to come", comparison.missing),
    ):
        if items:
            lines += [f"## {title}", "", *(f"- {markdown_safe(item)}" for item in items), ""]
    facts = [*_facts(comparison), *_provenance(comparison)]
    lines += [
        "## Provenance",
        "",
        *(f"- {what}: {markdown_safe(text)}" for what, text in facts),
        "",
    ]
    return "\n".join(lines)


def to_json(comparison: Comparison) -> str:
    """Return the comparison and its verdicts as indented JSON."""
    told = [
        {
            "title": story.title,
            "headline": story.headline,
            "details": list(story.details),
            "folds": {fold.title: list(fold.names) for fold in story.folds},
        }
        for story in stories(comparison)
    ]
    return (
        json.dumps(
            {**comparison.to_json(), "verdicts": told, "method": method_note(comparison)}, indent=2
        )
        + "\n"
    )


def to_html(comparison: Comparison) -> str:
    """Return one page without network: light and dark, any width, reproducible.

    Without scripts it shows everything; with them, tables sort, and arms can be found and hidden.
    """
    # Only here: every other format does without matplotlib, which takes half a second.
    from tracking.report.by_group import importance_maps, note_on, slices
    from tracking.report.plane import planes
    from tracking.report.plots import by_target

    environment = Environment(
        loader=PackageLoader("tracking.report", "templates"),
        autoescape=select_autoescape(["j2", "html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = list(by_target(comparison))
    searches = comparison.searches
    return environment.get_template("report.html.j2").render(
        title=_title(comparison),
        comparison=comparison,
        facts=_facts(comparison),
        stories=stories(comparison),
        method=method_note(comparison),
        covers=interval_note(comparison),
        overview=overview_grid(comparison),
        forests=[one for _, one, _ in drawn if one is not None],
        with_costs=any(table.drop is None for table, one, _ in drawn if one is not None),
        with_drops=any(table.drop is not None for table, one, _ in drawn if one is not None),
        gains=[one for _, _, one in drawn if one is not None],
        planes=list(planes(comparison)),
        importances=list(importance_maps(comparison)),
        slices=slices(comparison),
        on_searches=note_on(searches) if searches else "",
        sections=[_section(number, table) for number, table in enumerate(comparison.tables)],
        fronts=[front_grid(front) for front in comparison.fronts],
        predictors=predictor_grids(comparison.predictors),
        failures=failure_grid(comparison.failures) if comparison.failures else None,
        provenance=_provenance(comparison),
    )


def _section(number: int, table: Table) -> dict[str, Any]:
    """Gather what the page shows of one table."""
    from tracking.report.by_group import heat_map
    from tracking.report.plane import time_plane

    return {
        "title": _heading(table),
        "warnings": table.warnings,
        "grids": grids_of(table),
        "time": time_plane(table, number),
        "widths": heat_map(table, number),
        "width_grid": width_grid(table),
    }


def _heading(table: Table) -> str:
    if table.is_front:
        return "Points of the fronts, re-run with fresh seeds"
    return target(table.axis, table.reduction, table.target)


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Say in figures what was compared."""
    dense, spec = comparison.dense, comparison.spec
    facts = [
        ("Network", str((spec.get("model") or {}).get("name", "unknown"))),
        ("Data", str((spec.get("data") or {}).get("name", "unknown"))),
        ("Arms", str(len(spec.get("arms", ())))),
        ("Seeds", ", ".join(str(seed) for seed in comparison.seeds) or "none yet"),
    ]
    rows = [row.accuracy for table in comparison.tables for row in table.rows if row.accuracy]
    if images := sorted({summary.images for summary in rows if summary.images is not None}):
        facts.append(("Test images", listed([f"{count:,}" for count in images])))
    if dense is not None:
        facts += [
            ("Dense accuracy", f"{percent(dense.test_accuracy)} %"),
            ("Dense MACs", amount(dense.macs)),
            ("Dense parameters", amount(dense.params)),
        ]
    return facts


def _provenance(comparison: Comparison) -> list[tuple[str, str]]:
    """List where the numbers come from."""
    found = [("Sweep", comparison.sweep), ("Specification", comparison.spec_hash)]
    if comparison.last_change:
        found.append(("Newest result", comparison.last_change))
    if comparison.dense is not None:
        found.append(("Baseline weights", comparison.dense.weights))
    for name in ("recipe", "data", "policy"):
        hashes = {getattr(table.identity, name) for table in comparison.tables} - {None}
        if hashes:
            found.append((f"{name.capitalize()} hash", ", ".join(sorted(hashes))))
    for number, environment in enumerate(comparison.environments, start=1):
        label = "Environment" + (f" {number}" if len(comparison.environments) > 1 else "")
        found.append((label, _environment(environment)))
    return found


def _environment(environment: Mapping[str, Any]) -> str:
    """Describe an environment on one line."""
    parts = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            parts += [f"{name} {version}" for name, version in value.items() if version]
        elif value is not None and value is not False:
            parts.append(key if value is True else f"{key.replace('_', ' ')} {value}")
    return ", ".join(parts)


def _title(comparison: Comparison) -> str:
    return f"{comparison.sweep} ({comparison.state})"


def _told(story: Story) -> list[RenderableType]:
    return [
        Text(""),
        Text.assemble((f"{story.title}: ", "bold"), (story.headline, "bold cyan")),
        Text(" ".join(story.details)),
    ]


def _rich(grid: Grid) -> RichTable:
    table = RichTable(title=grid.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(grid.columns):
        table.add_column(Folded(column), justify="right" if place else "left", overflow="fold")
    for line in grid.lines:
        table.add_row(*map(Folded, line.cells), style=STYLES[line.kind])
    return table


def _markdown_story(story: Story) -> list[str]:
    details = [markdown_safe(" ".join(story.details)), ""] if story.details else []
    details += [
        f"- {markdown_safe(fold.title)} ({len(fold.names)}): {names}"
        for fold in story.folds
        if len(fold.names) > FEW  # fewer are named in the sentences
        for names in (markdown_safe(", ".join(fold.names)),)
    ]
    details += [""] if details and details[-1] else []
    return [
        f"## {markdown_safe(story.title)}",
        "",
        f"**{markdown_safe(story.headline)}**",
        "",
        *details,
    ]


def _markdown(grid: Grid) -> list[str]:
    lines = [f"### {markdown_safe(grid.title)}", ""]
    lines.append("| " + " | ".join(markdown_safe(name) for name in grid.columns) + " |")
    lines.append(
        "|" + "|".join("---:" if place else ":---" for place in range(len(grid.columns))) + "|"
    )
    for line in grid.lines:
        cells = [markdown_safe(cell) for cell in line.cells]
        if line.kind == "lead":
            cells[0] = f"**{cells[0]}**"
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", *([f"{markdown_safe(grid.note)}", ""] if grid.note else [])]
