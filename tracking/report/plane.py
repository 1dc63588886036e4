"""Accuracy against what it costs: size, measured latency, device time; and fronts of searches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tracking.comparison.comparison import Comparison, Row, Table
from tracking.durations import duration
from tracking.places import DENSE
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
    text_width,
)
from tracking.report.standing import standing_of
from tracking.report.wording import milliseconds, percent, target, time_spent
from tracking.winners import front

HEIGHT = 300.0
COVERED = 5  #: Points of a front that its sentence names.


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One network: what it costs, and how accurate it is."""

    arm: str
    kind: str
    cost: float
    accuracy: float
    tip: str
    group: str = ""  #: Points of one group are joined by a line.


Cost: TypeAlias = Callable[[Row], float | None]


def planes(comparison: Comparison) -> Iterator[Drawing]:
    """Draw accuracy against MACs and against measured latency, and the fronts of searches."""
    if comparison.fronts:
        yield from _searched(comparison)
    costs: Sequence[tuple[str, str, str, Cost, Callable[[float], str]]] = (
        ("macs", "MACs left", "MACs left, % of the dense network", _macs, lambda v: f"{v:.1f} %"),
        ("latency", *_latency_words(comparison), _latency, milliseconds),
    )
    for name, what, label, cost, write in costs:
        found = list(_points(comparison.tables, cost, write, what))
        if len({point.cost for point in found}) > 1:
            yield _plane(f"plane-{name}", f"Accuracy against {what}", label, found)


def time_plane(table: Table, number: int) -> Drawing | None:
    """Draw accuracy against all that was spent to get it; None where it is not known."""
    found = list(_points([table], _seconds, time_spent, "device time"))
    if len({point.cost for point in found}) < 2:
        return None
    label = "Search and one run, device time"
    title = "Accuracy against everything spent"
    return _plane(f"plane-time-{number}", title, label, found, is_time=True)


def _macs(row: Row) -> float | None:
    return None if row.cost is None else 100 * (1 - row.cost.macs_reduction)


def _latency(row: Row) -> float | None:
    """Return the median at the smallest batch; None where something else ran beside."""
    good = [timing for timing in row.latency if not timing.shared_device]
    return good[0].median_ms if good else None


def _seconds(row: Row) -> float | None:
    return row.total_seconds or None


def _latency_words(comparison: Comparison) -> tuple[str, str]:
    timed = [row.latency[0] for t in comparison.tables for row in t.rows if row.latency]
    if not timed:
        return "measured latency", "Measured latency, ms"
    return "measured latency", f"Measured latency, ms, batch {timed[0].batch_size}"


def _points(
    tables: Sequence[Table], cost: Cost, write: Callable[[float], str], what: str
) -> Iterator[Point]:
    seen = set()
    for table in tables:
        at = "" if table.is_front else f" at {target(table.axis, table.reduction, table.target)}"
        for row in table.rows:
            spent = cost(row)
            if row.accuracy is None or spent is None or row.same_as or row.arm in seen:
                continue
            where = at
            if row.name == DENSE:  # one network, whatever the target
                where, seen = "", {DENSE}
            yield Point(
                arm=row.name,
                kind=standing_of(row),
                cost=spent,
                accuracy=row.accuracy.mean,
                tip=f"{row.name}{where}: {percent(row.accuracy.mean)} %, {what} {write(spent)}",
            )


def _searched(comparison: Comparison) -> Iterator[Drawing]:
    """Draw the fronts of a search without a target, one line an arm."""
    found = [
        Point(
            arm=one.arm,
            kind="level",
            cost=100 * (1 - point.macs_reduction),
            accuracy=point.val_accuracy,
            tip=f"{one.arm} #{point.index}: {percent(point.val_accuracy)} % on the validation "
            f"split, {100 * (1 - point.macs_reduction):.1f} % of the MACs left",
            group=one.arm,
        )
        for one in comparison.fronts
        for point in one.points
    ]
    if found:
        label, accuracy = "MACs left, % of the dense network", "Validation accuracy, %, one seed"
        yield _plane("front", "Fronts of the searches", label, found, accuracy=accuracy)


def _plane(
    name: str,
    title: str,
    label: str,
    found: Sequence[Point],
    *,
    accuracy: str = "Test accuracy, %",
    is_time: bool = False,
) -> Drawing:
    made = canvas(name, HEIGHT, (44.0, 10.0, 24.0, 40.0))
    best = front(
        [point for point in found if point.kind != "aside" and point.arm != DENSE],
        lambda point: (point.accuracy, point.cost),
    )
    _lines(made, found)
    for point in found:
        is_best = point in best
        colour = LEAD if is_best else MUTED
        made.line(
            Mark(arm=point.arm, kind=point.kind, tip=point.tip),
            [point.cost],
            [point.accuracy],
            marker="s" if point.kind == "control" else "o",
            color=colour,
            markersize=6.5 if is_best else 4.0,
            markerfacecolor="none" if point.kind == "control" else colour,
            alpha=1.0 if is_best else 0.6,
        )
    costs, accuracies = [point.cost for point in best], [point.accuracy for point in best]
    steps = {"drawstyle": "steps-post", "zorder": 1.5}
    made.line(None, costs, accuracies, color=LEAD, linewidth=1.2, **steps)
    _scale(made, found, label, accuracy, is_time=is_time)
    _names(made, best, found)
    named = [point.tip for point in best[::-1]]
    more = f" and {len(named) - COVERED} more" if len(named) > COVERED else ""
    return drawing(
        made,
        title,
        f"{len(found)} points; {len(best)} of them on the front.",
        note=f"On the front (blue): {'; '.join(named[:COVERED])}{more}.",
    )


def _lines(made: Canvas, found: Sequence[Point]) -> None:
    for group in dict.fromkeys(point.group for point in found if point.group):
        own = sorted((p.cost, p.accuracy) for p in found if p.group == group)
        costs, accuracies = zip(*own, strict=True)
        look = {"color": MUTED, "linewidth": 0.8, "alpha": 0.6, "drawstyle": "steps-post"}
        made.line(Mark(arm=group, kind="level", tip=group), costs, accuracies, **look)


def _scale(
    made: Canvas, found: Sequence[Point], label: str, accuracy: str, *, is_time: bool
) -> None:
    axes = made.axes
    costs = [point.cost for point in found]
    accuracies = [point.accuracy for point in found]
    margin = 0.05 * (max(costs) - min(costs))
    axes.set_xlim(min(costs) - margin, max(costs) + margin)
    margin = 0.05 * (max(accuracies) - min(accuracies)) or 0.5
    axes.set_ylim(min(accuracies) - margin, max(accuracies) + 2.2 * margin)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    if is_time and min(costs) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 1.2, max(costs) * 1.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
    axes.tick_params(length=0, labelsize=SIZE - 1)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_xlabel(label, fontsize=SIZE - 0.5, color=INK)
    axes.set_title(
        accuracy, loc="left", x=-44.0 / (WIDTH - 54.0), fontsize=SIZE - 0.5, pad=8, color=INK
    )


def _names(made: Canvas, best: Sequence[Point], found: Sequence[Point]) -> None:
    """Name the front's points above them, where no point lies; without room, hovering tells."""
    axes = made.axes
    drawn = [axes.transData.transform((point.cost, point.accuracy)) for point in found]
    taken: list[tuple[float, float, float, float]] = [(x, y, x, y) for x, y in drawn]
    for point in best[::-1]:
        x, y = axes.transData.transform((point.cost, point.accuracy))
        width = text_width(point.arm, SIZE - 1)
        for ha, shift in (("right", -5.0), ("left", 5.0)):
            start = x + shift - (width if ha == "right" else 0.0)
            box = (start, y + 3.0, start + width, y + 3.0 + SIZE)
            if start > 46.0 and box[2] < WIDTH and not any(_meet(box, other) for other in taken):
                break
        else:
            continue
        taken.append(box)
        text = axes.annotate(
            point.arm,
            (point.cost, point.accuracy),
            xytext=(shift, 3.0),
            textcoords="offset points",
            ha=ha,
            va="bottom",
            fontsize=SIZE - 1,
            color=INK,
        )
        made.mark(Mark(arm=point.arm, kind=point.kind, tip=point.tip), text)


def _meet(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
