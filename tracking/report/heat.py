"""What every arm kept, group by group, as a heat map."""

from collections.abc import Sequence

import numpy as np

from tracking.comparison.comparison import Row, Table
from tracking.report.canvas import INK, SIZE, Drawing, Mark, canvas, drawing, folded, text_width
from tracking.report.overviews import merged_widths
from tracking.report.standing import standing_of
from tracking.report.wording import target

COLOURS = "cividis"  #: The same order to eyes that tell red from green and to those that do not.
_SMALL = SIZE - 2.5
_MOST_NAMED = 64  #: Groups beyond which only every other one, or third, is named.


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
    longest = max((part for each in labels for part in folded(each).split("\n")), key=len)
    pitch = 15.0 * (1 + max(folded(label).count("\n") for label in labels))
    left, top = text_width(longest) + 10.0, text_width(max(groups, key=len), _SMALL) + 8.0
    width = left + 10.0 + max(11.0 * len(groups), 240.0)
    made = canvas(
        f"widths-{number}", top + pitch * len(rows) + 4.0, (left, 10.0, top, 4.0), width=width
    )
    shares = np.array([[w.share or 0.0 for w in row.widths] for row, _ in rows])
    axes = made.axes
    axes.imshow(
        shares, cmap=COLOURS, vmin=0.0, vmax=1.0, aspect="auto", interpolation="none", zorder=2
    )
    axes.grid(visible=False)
    axes.set_yticks([])
    every = -(-len(groups) // _MOST_NAMED)
    axes.xaxis.tick_top()
    axes.set_xticks(range(0, len(groups), every), groups[::every], rotation=90, fontsize=_SMALL)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for place, (row, names) in enumerate(rows):
        text = axes.annotate(
            folded(labels[place]),
            (0.0, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-5.0, 0.0),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            color=INK,
            annotation_clip=False,
        )
        made.mark(Mark(arm=row.name, kind=standing_of(row), tip=", ".join(names)), text)
    data = {
        "heat": [[round(100 * share) for share in line] for line in shares.tolist()],
        "names": labels,
        "groups": groups,
        "box": [left, top, width - left - 10.0, pitch * len(rows)],
    }
    return drawing(
        made,
        f"Filters kept: {target(table.axis, table.reduction, table.target)}",
        f"Share of filters kept by {len(rows)} arms in {len(groups)} groups; the numbers are in "
        "the table beneath.",
        note=_alike(rows),
        wide=True,
        data=data,
    )


def _alike(rows: Sequence[tuple[Row, list[str]]]) -> str:
    shared = [f"{names[0]}: {', '.join(names[1:])}" for _, names in rows if len(names) > 1]
    return f"Equal widths, drawn once: {'; '.join(shared)}." if shared else ""
