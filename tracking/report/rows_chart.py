"""Figures of one row an arm: its name, a mark at its value, the interval, and the number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Transform, blended_transform_factory

from tracking.report.canvas import (
    BAND,
    CARD,
    INK,
    LEAD,
    LEVEL,
    LINE,
    MUTED,
    SIZE,
    WIDTH,
    Canvas,
    Mark,
    canvas,
    folded,
    text_width,
)

#: Colour, marker and its size, by kind: told apart by shape as well.
LOOKS: Final = {
    "lead": (LEAD, "o", 7.5),
    "level": (LEVEL, "D", 5.5),
    "worse": (MUTED, "o", 4.5),
    "control": (MUTED, "s", 5.5),
    "aside": (MUTED, "x", 5.5),
}
_OUT: Final = 4.0  #: Distances of the highest value from the median that an axis reaches down.


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row: an arm or control."""

    name: str
    kind: str
    value: float
    low: float | None = None
    high: float | None = None
    number: str  #: Shown at the right.
    tip: str
    hollow: bool = False
    start: float | None = None  #: A second value that a line leads from.


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Rows under a heading."""

    heading: str  #: Empty: none.
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """A vertical line across all rows."""

    value: float
    name: str
    style: str  #: As matplotlib names line styles.


def rows_chart(
    name: str,
    blocks: Sequence[Block],
    *,
    label: str,
    band: tuple[float, float] | None = None,
    guides: Sequence[Guide] = (),
) -> tuple[Canvas, dict[str, object]]:
    """Draw rows; return the canvas and what the page's script must know of it.

    What lies beyond the axis is not drawn elsewhere: an arrow at the border points to it, and the
    number at the right says where it is.
    """
    lines = [line for block in blocks for line in block.lines]
    names = [folded(line.name) for line in lines]
    longest = max((part for each in names for part in each.split("\n")), key=len, default="")
    pitch = 17.0 if not any("\n" in each for each in names) else 17.0 + 11.0 * _folds(names)
    count = len(lines) + sum(bool(block.heading) for block in blocks)
    margins = (text_width(longest) + 10.0, 46.0, 34.0, 8.0)
    width = max(WIDTH, margins[0] + margins[1] + 160.0)
    made = canvas(name, margins[2] + margins[3] + pitch * count, margins, width)
    limits = _limits(lines, band, guides)
    _frame(made, limits, count, label)
    if band is not None:
        made.axes.axvspan(*band, color=BAND, linewidth=0, zorder=0.5)
    for guide in guides:
        if limits[0] <= guide.value <= limits[1]:
            made.axes.axvline(guide.value, color=INK, linewidth=0.9, linestyle=guide.style)
    row = 0
    for block in blocks:
        if block.heading:
            heading = made.axes.text(
                *(0.0, row),
                block.heading,
                transform=_beside(made, 4.0),
                va="center_baseline",
                color=MUTED,
            )
            made.mark(Mark(kind="heading", row=row), heading)
            row += 1
        for line in block.lines:
            _draw(made, line, row, limits)
            row += 1
    return made, {"pitch": f"{pitch:g}", "rows": f"{count}"}


def _folds(names: Sequence[str]) -> int:
    return max(name.count("\n") for name in names)


def _frame(made: Canvas, limits: tuple[float, float], count: int, label: str) -> None:
    axes = made.axes
    axes.set_xlim(*limits)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(axis="x", length=0, labelsize=SIZE - 1, pad=2)
    axes.set_xlabel(label, fontsize=SIZE - 0.5, labelpad=3, color=INK)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.6)


def _beside(made: Canvas, points: float) -> Transform:
    """Return where x is points from the left border of the figure, and y a row."""
    left = Affine2D().translate(points, 0.0)
    return blended_transform_factory(left, made.axes.transData)


def _draw(made: Canvas, line: Line, row: int, limits: tuple[float, float]) -> None:
    axes, (low, high) = made.axes, limits
    colour, marker, size = LOOKS[line.kind]
    mark = Mark(arm=line.name, kind=line.kind, row=row, value=line.value, tip=line.tip)
    silent = replace(mark, tip="")
    label = axes.text(
        *(0.0, row),
        folded(line.name),
        transform=_beside(made, 4.0),
        va="center_baseline",
        color=MUTED if line.kind in {"control", "aside"} else INK,
        fontweight="bold" if line.kind == "lead" else "normal",
        linespacing=1.0,
    )
    number = axes.annotate(
        line.number,
        (1.0, row),
        xycoords=axes.get_yaxis_transform(),
        xytext=(42.0, 0.0),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        color=INK,
        annotation_clip=False,
    )
    made.mark(mark, label, number)
    ends = [line.low, line.high] if line.start is None else [line.start, line.value]
    if ends[0] is not None and ends[1] is not None:
        cut = [min(max(end, low), high) for end in ends if end is not None]
        made.line(silent, cut, [row, row], color=colour, linewidth=1.6)
    if line.start is not None and low <= line.start <= high:
        made.line(silent, [line.start], [row], marker="o", color=MUTED, markersize=4.5)
    face = CARD if line.hollow or line.kind == "control" else colour
    if low <= line.value <= high:
        look = {"marker": marker, "markersize": size, "markerfacecolor": face}
        made.line(mark, [line.value], [row], color=colour, markeredgewidth=1.5, **look)
        return
    is_left = line.value < low
    look = {"marker": "<" if is_left else ">", "markersize": 6.0, "clip_on": False}
    made.line(mark, [low if is_left else high], [row], color=colour, **look)


def _limits(
    lines: Sequence[Line], band: tuple[float, float] | None, guides: Sequence[Guide]
) -> tuple[float, float]:
    """Choose the axis so that the best are told apart; what is far below is pointed at."""
    values = [line.value for line in lines if line.kind not in {"control", "aside"}]
    values = values or [line.value for line in lines]
    middle, top = float(np.median(values)), max(values)
    lowest = middle - _OUT * max(top - middle, 0.5)
    highest = top + max(top - max(lowest, min(values)), 0.5)
    wanted = [v for line in lines for v in (line.value, line.low, line.high, line.start)]
    wanted += [*(band or ()), *(guide.value for guide in guides)]
    inside = [v for v in wanted if v is not None and lowest <= v <= highest] or [middle]
    margin = 0.05 * (max(inside) - min(inside)) or 0.5
    return min(inside) - margin, max(inside) + margin
