"""The report's figures as inline SVG: reproducible, readable on a light and on a dark page.

Colours are drawn as placeholders and then become CSS variables of the page (``--ink``, ``--line``,
``--c0`` ...), so one figure serves both. Text stays text.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tracking.comparison.comparison import Comparison, Front, Row, Table
from tracking.places import DENSE, kind_of_control
from tracking.report.wording import AXES, target

INK, LINE, MUTED = "#010203", "#020304", "#030405"
COLOURS: Final = tuple(f"#0a0b{number:02x}" for number in range(8))
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "h")
CONTROL_MARKERS: Final = ("d", "p", "<", ">", "8", "H")
STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prunesweep",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
MOST_DEVIATIONS: Final = 4.0  #: An interval reaches at most this far into the choice of the axis.


def accuracy_figure(comparison: Comparison, axis: str) -> str | None:
    """Draw accuracy against size for the targets on ``axis``; None without a result."""
    tables = [t for t in comparison.tables if t.axis == axis or (t.is_front and axis == "macs")]
    rows = [row for table in tables for row in table.rows if row.accuracy and row.cost]
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        colours = _colours(comparison)
        step = 0.0 if comparison.fronts else 0.5  # points of fronts do not share a place
        arms = list(dict.fromkeys(row.arm for row in rows if row.role == "arm"))
        controls = list(dict.fromkeys(_family(row) for row in rows if row.role == "control"))
        for place, name in enumerate(arms):
            points = [row for row in rows if row.arm == name and row.role == "arm"]
            nudge = step * (place - (len(arms) - 1) / 2)
            _draw_curve(axes, points, axis, nudge, colours[name], name)
        for place, name in enumerate(controls):
            found = [row for row in rows if row.role == "control" and _family(row) == name]
            nudge = step * (len(arms) / 2 + 1 + place) if name != DENSE else 0.0
            _draw_control(axes, found[:1] if name == DENSE else found, axis, nudge, place, name)
        if comparison.dense is not None:
            accuracy = comparison.dense.test_accuracy
            axes.axhline(accuracy, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
            axes.plot([100], [accuracy], "*", color=INK, markersize=12, label="dense baseline")
        axes.set_xlabel(f"{AXES[axis]} left, % of the dense network")
        axes.set_ylabel("Test accuracy, %")
        axes.set_ylim(*_limits(rows, comparison))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure, f"accuracy-{axis}")


def cost_figure(comparison: Comparison, table: Table, number: int) -> str | None:
    """Draw accuracy against everything that was spent to get it; None without a result."""
    rows = [row for row in table.rows if row.accuracy and row.total_seconds]
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        colours = _colours(comparison)
        unit, size = _time_unit(max(row.total_seconds or 0.0 for row in rows))
        controls = [row.name for row in rows if row.role == "control"]
        for row in rows:
            if row.accuracy is None or row.total_seconds is None:
                continue
            is_arm = row.role == "arm"
            mark = "" if is_arm else CONTROL_MARKERS[controls.index(row.name) % 6]
            axes.errorbar(
                [row.total_seconds / size],
                [row.accuracy.mean],
                yerr=row.accuracy.std,
                fmt=mark or _marker(colours[row.arm]),
                color=colours[row.arm] if is_arm else MUTED,
                markerfacecolor=None if is_arm else "none",
                capsize=3,
                label=row.name,
            )
        spent = [row.total_seconds for row in rows if row.total_seconds]
        if max(spent) > 10 * min(spent):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(f"Search and one run, {unit} of device time")
        axes.set_ylabel("Test accuracy, %")
        axes.set_title(target(table.axis, table.reduction, table.target))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure, f"cost-{number}")


def width_figure(comparison: Comparison, table: Table, number: int) -> str | None:
    """Draw the share of filters the leader keeps per group, with the other arms as points."""
    lead = table.leader
    if lead is None or not any(width.share is not None for width in lead.widths):
        return None
    groups = [width.group for width in lead.widths]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(8.6, min(13.0, 1.8 + 0.32 * len(groups))), 3.4))
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        colours = _colours(comparison)
        axes.bar(
            range(len(groups)),
            [100 * (width.share or 0.0) for width in lead.widths],
            color=colours[lead.arm],
            alpha=0.75,
            label=lead.name,
        )
        for row in table.arms:
            if row.leads or not row.widths:
                continue
            by_group = {width.group: width.share for width in row.widths}
            shares = [by_group.get(group) for group in groups]
            axes.plot(
                range(len(groups)),
                [math.nan if share is None else 100 * share for share in shares],
                _marker(colours[row.arm]),
                color=colours[row.arm],
                markersize=5,
                label=row.name,
            )
        axes.set_xticks(range(len(groups)), groups, rotation=60, ha="right", fontsize=8)
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, 105)
        axes.set_ylabel("Filters kept, %")
        axes.set_title(target(table.axis, table.reduction, table.target))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure, f"widths-{number}")


def front_figure(comparison: Comparison) -> str | None:
    """Draw the fronts of a search without a target; None without a point."""
    fronts: Sequence[Front] = [front for front in comparison.fronts if front.points]
    if not fronts:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        colours = _colours(comparison)
        for front in fronts:
            axes.plot(
                [100 * (1 - point.macs_reduction) for point in front.points],
                [point.val_accuracy for point in front.points],
                marker=_marker(colours[front.arm]),
                color=colours[front.arm],
                drawstyle="steps-pre",
                label=front.arm,
            )
        dense = comparison.dense
        if dense is not None and dense.val_accuracy is not None:
            axes.plot([100], [dense.val_accuracy], "*", color=INK, markersize=12, label=DENSE)
        axes.set_xlabel("MACs left, % of the dense network")
        axes.set_ylabel("Validation accuracy, %, one seed")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure, "front")


def _draw_curve(
    axes: Axes, rows: Sequence[Row], axis: str, nudge: float, colour: str, name: str
) -> None:
    """Draw one arm: a mean per target with its interval, joined by a line and a band."""
    found = [(_left(row, axis) + nudge, row.accuracy) for row in rows if row.accuracy]
    found.sort(key=lambda point: point[0])
    xs = [x for x, _ in found]
    means = [summary.mean for _, summary in found]
    lows = [summary.mean if summary.low is None else summary.low for _, summary in found]
    highs = [summary.mean if summary.high is None else summary.high for _, summary in found]
    if len(found) > 1:
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.10, linewidth=0)
    axes.errorbar(
        xs,
        means,
        yerr=[
            [mean - low for mean, low in zip(means, lows, strict=True)],
            [high - mean for mean, high in zip(means, highs, strict=True)],
        ],
        color=colour,
        marker=_marker(colour),
        capsize=3,
        linewidth=1.6,
        label=name,
    )


def _draw_control(
    axes: Axes, rows: Sequence[Row], axis: str, nudge: float, place: int, name: str
) -> None:
    found = [(_left(row, axis) + nudge, row.accuracy) for row in rows if row.accuracy]
    axes.errorbar(
        [x for x, _ in found],
        [summary.mean for _, summary in found],
        yerr=[summary.half_width or 0.0 for _, summary in found],
        fmt=CONTROL_MARKERS[place % 6],
        color=MUTED,
        markerfacecolor="none",
        markersize=7,
        capsize=3,
        label=f"control: {name}",
    )


def _family(row: Row) -> str:
    """Name the kind of control: which arm's shape is trained from scratch makes no difference."""
    return kind_of_control(row.arm)


def _left(row: Row, axis: str) -> float:
    if row.cost is None:
        return math.nan
    removed = row.cost.macs_reduction if axis == "macs" else row.cost.params_reduction
    return 100 * (1 - removed)


def _limits(rows: Sequence[Row], comparison: Comparison) -> tuple[float, float]:
    """Choose the accuracy axis; intervals of two seeds are wide enough to hide all else."""
    values = [comparison.dense.test_accuracy] if comparison.dense else []
    for row in rows:
        if row.accuracy is not None:
            reach = min(row.accuracy.half_width or 0.0, MOST_DEVIATIONS * (row.accuracy.std or 0.0))
            values += [row.accuracy.mean - reach, row.accuracy.mean + reach]
    margin = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _colours(comparison: Comparison) -> dict[str, str]:
    """Give every arm one colour in all figures."""
    rows = [row for table in comparison.tables for row in table.rows if row.role == "arm"]
    names = dict.fromkeys(
        [
            *(arm["name"] for arm in comparison.spec.get("arms", ())),
            *(row.arm for row in rows),
            *(front.arm for front in comparison.fronts),
        ]
    )
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def _marker(colour: str) -> str:
    return MARKERS[COLOURS.index(colour)]


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def _svg(figure: Figure, name: str) -> str:
    """Render without dates, scope the ids to this figure, and hand the colours to the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>\s*", ""),
        (r"<style.*?</style>\s*", ""),  # it would reach the whole page
        (r"font-family: [^;]*; ?", ""),
        (r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-"),
        (r'<svg (.*?)width="([\d.]+)pt" height="[\d.]+pt"', r'<svg \1style="max-width:\2pt"'),
    ):
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    for number, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{number})")
    for colour, variable in ((INK, "--ink"), (LINE, "--line"), (MUTED, "--muted")):
        text = text.replace(colour, f"var({variable})")
    return text
