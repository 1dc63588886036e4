"""Group by group: what every arm kept, which ratios mattered in its search, and where."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tracking.comparison.comparison import Comparison, Row, SearchedRatios, Table
from tracking.report.canvas import (
    INK,
    LEAD,
    LINE,
    MUTED,
    SIZE,
    WIDTH,
    Canvas,
    Drawing,
    Mark,
    canvas,
    drawing,
    folded,
    text_width,
)
from tracking.report.overviews import merged_widths
from tracking.report.standing import standing_of
from tracking.report.wording import target

COLOURS = "cividis"  #: The same order to eyes that tell red from green and to those that do not.
_SMALL = SIZE - 2.5
_MOST_NAMED = 64  #: Groups beyond which only every other one, or third, is named.
SLICED_SEARCHES: Final = 12  #: The most whose slices are drawn.
SLICED_GROUPS: Final = 6  #: Of a search, the most important first.
_COLUMNS, _CELL = 3, 96.0  #: Slices in a row, and the height of one in points.


def heat_map(table: Table, number: int) -> Drawing | None:
    """Draw the share of filters kept: a row an arm, a column a group; None where none is known."""
    rows = merged_widths(table)
    groups = [width.group for width in rows[0][0].widths] if rows else []
    rows = [
        (row, names)
        for row, names in rows
        if len(row.widths) == len(groups) and all(w.share is not None for w in row.widths)
    ]
    if not rows or not groups:
        return None
    labels = [names[0] + (f" +{len(names) - 1}" if len(names) > 1 else "") for _, names in rows]
    marks = [Mark(arm=row.name, kind=standing_of(row), tip=", ".join(names)) for row, names in rows]
    return _heat(
        f"widths-{number}",
        list(zip(labels, marks, strict=True)),
        groups,
        np.array([[w.share or 0.0 for w in row.widths] for row, _ in rows]),
        caption=f"Filters kept: {target(table.axis, table.reduction, table.target)}",
        description=f"Share of filters kept by {len(rows)} arms in {len(groups)} groups; the "
        "numbers are in the table beneath.",
        unit="kept",
        note=_alike(rows),
    )


def _heat(
    name: str,
    rows: Sequence[tuple[str, Mark]],
    groups: Sequence[str],
    shares: NDArray[np.float64],
    *,
    caption: str,
    description: str,
    unit: str,
    note: str = "",
    most: float = 1.0,
) -> Drawing:
    """Draw shares as colours: a row an arm, a column a group.

    Args:
        name: Of the figure within the page.
        rows: Label of each row, and what it stands for.
        groups: Label of each column.
        shares: ``[rows, groups]``, in [0, 1].
        caption: Shown above it.
        description: What it shows in a sentence.
        unit: What a share is of, as hovering tells it: ``37 % kept``.
        note: How to read it.
        most: Share that the brightest colour stands for.
    """
    labels = [label for label, _ in rows]
    longest = max((part for each in labels for part in folded(each).split("\n")), key=len)
    pitch = 15.0 * (1 + max(folded(label).count("\n") for label in labels))
    left, top = text_width(longest) + 10.0, text_width(max(groups, key=len), _SMALL) + 8.0
    width = left + 10.0 + max(11.0 * len(groups), 240.0)
    made = canvas(name, top + pitch * len(rows) + 4.0, (left, 10.0, top, 4.0), width=width)
    axes = made.axes
    axes.imshow(
        shares, cmap=COLOURS, vmin=0.0, vmax=most, aspect="auto", interpolation="none", zorder=2
    )
    axes.grid(visible=False)
    axes.set_yticks([])
    every = -(-len(groups) // _MOST_NAMED)
    axes.xaxis.tick_top()
    axes.set_xticks(range(0, len(groups), every), groups[::every], rotation=90, fontsize=_SMALL)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for place, (label, mark) in enumerate(rows):
        text = axes.annotate(
            folded(label),
            (0.0, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-5.0, 0.0),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            color=INK,
            annotation_clip=False,
        )
        made.mark(mark, text)
    data = {
        "heat": [[round(100 * share) for share in line] for line in shares.tolist()],
        "names": labels,
        "groups": list(groups),
        "box": [left, top, width - left - 10.0, pitch * len(rows)],
        "unit": unit,
    }
    return drawing(made, caption, description, note=note, wide=True, data=data)


def _alike(rows: Sequence[tuple[Row, list[str]]]) -> str:
    shared = [f"{names[0]}: {', '.join(names[1:])}" for _, names in rows if len(names) > 1]
    return f"Equal widths, drawn once: {'; '.join(shared)}." if shared else ""


def importance_maps(comparison: Comparison) -> Iterator[Drawing]:
    """Draw, per target, each group's share of what sets an arm's best proposals apart."""
    words = _targets(comparison)
    by_target: dict[str, list[SearchedRatios]] = {}
    for search in comparison.searches:
        by_target.setdefault(search.target, []).append(search)
    for number, (label, searches) in enumerate(by_target.items()):
        groups = list(dict.fromkeys(group for one in searches for group in one.importance))
        shares = np.array([[one.importance.get(at, 0.0) for at in groups] for one in searches])
        yield _heat(
            f"importance-{number}",
            [(one.arm, Mark(arm=one.arm, kind="level", tip=_told(one))) for one in searches],
            groups,
            shares,
            caption=f"Importance of each group's ratio: {words.get(label, label)}",
            description=f"Importance of {len(groups)} groups in the searches of "
            f"{len(searches)} arms, as shares that add up to 100 %.",
            unit="of the importance",
            most=float(shares.max()),
        )


def slices(comparison: Comparison) -> list[Drawing]:
    """Draw validation accuracy along the most important ratios; none where searches are many."""
    if len(comparison.searches) > SLICED_SEARCHES:
        return []
    words = _targets(comparison)
    return [
        _slices(f"slices-{number}", search, words.get(search.target, search.target))
        for number, search in enumerate(comparison.searches)
    ]


def _targets(comparison: Comparison) -> Mapping[str, str]:
    return {at.target: target(at.axis, at.reduction, at.target) for at in comparison.tables}


def _told(search: SearchedRatios) -> str:
    ranked = _ranked(search)
    shown = ", ".join(f"{group} {100 * search.importance[group]:.0f} %" for group in ranked[:3])
    return f"{search.arm}: {shown}; {len(search.accuracies)} proposals"


def _ranked(search: SearchedRatios) -> list[str]:
    return sorted(search.importance, key=lambda group: -search.importance[group])


def _slices(name: str, search: SearchedRatios, words: str) -> Drawing:
    groups = _ranked(search)[:SLICED_GROUPS]
    rows = -(-len(groups) // _COLUMNS)
    made = canvas(name, _CELL * rows, (0.0, 0.0, 0.0, 0.0))
    made.axes.remove()
    for place, group in enumerate(groups):
        _slice(made, search, group, divmod(place, _COLUMNS), rows)
    return drawing(
        made,
        f"{search.arm}, {words}: proposals",
        f"Validation accuracy of {len(search.accuracies)} proposals against the pruning ratio of "
        f"{len(groups)} groups.",
        note="Across: share of filters removed; up: validation accuracy, %; blue: the best.",
    )


def _slice(
    made: Canvas, search: SearchedRatios, group: str, at: tuple[int, int], rows: int
) -> None:
    row, column = at
    width = WIDTH / _COLUMNS
    bottom = _CELL * (rows - row - 1)
    made.next_axes(column * width + 30.0, bottom + 18.0, width - 36.0, _CELL - 34.0)
    axes = made.axes
    ratios, values = search.ratios[group], search.accuracies
    best = int(np.argmax(values))
    share = f"{group}: {100 * search.importance[group]:.0f} %"
    tip = f"{search.arm}, {group}: best at {100 * ratios[best]:.0f} % removed"
    look = {"marker": "o", "linestyle": "none", "markeredgewidth": 0.0}
    mark = Mark(arm=search.arm, kind="level", tip=tip)
    made.line(mark, ratios, values, color=MUTED, markersize=2.6, alpha=0.6, **look)
    made.line(mark, [ratios[best]], [values[best]], color=LEAD, markersize=4.5, **look)
    for lowest, highest, limit in (
        (min(ratios), max(ratios), axes.set_xlim),
        (min(values), max(values), axes.set_ylim),
    ):
        margin = 0.06 * (highest - lowest) or 0.5
        limit(lowest - margin, highest + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.tick_params(length=0, labelsize=_SMALL, pad=2)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_title(_shortened(share), loc="left", x=-0.25, fontsize=_SMALL, pad=4, color=INK)


def _shortened(title: str, most: int = 24) -> str:
    """Keep the end of a long name, which tells groups apart."""
    return title if len(title) <= most else "\N{HORIZONTAL ELLIPSIS}" + title[1 - most :]


def note_on(searches: Sequence[SearchedRatios]) -> str:
    """Say how to read the figures, and what is not drawn."""
    note = (
        "Importance: share of what tells a search's best proposals, a tenth but at least five, "
        "from all of them (PED-ANOVA), from 20 proposals on. Ratios meet the target together, so "
        "one that matters may matter for what the others must give."
    )
    if len(searches) > SLICED_SEARCHES:
        note += (
            f" Accuracy along a ratio is drawn for {SLICED_SEARCHES} searches at most; "
            "`prunesweep study` writes all of them for optuna-dashboard."
        )
    return note
