"""Where every arm stands at a target, and what its search gave: a row an arm, best first."""

from collections.abc import Iterator, Sequence

from tracking.comparison.comparison import Comparison, Row, Table, Verdict
from tracking.places import DENSE, RANDOM
from tracking.report.canvas import Drawing, drawing
from tracking.report.headlines import not_above_random
from tracking.report.rows_chart import Block, Guide, Line, rows_chart
from tracking.report.standing import standing_of
from tracking.report.wording import interval, percent, points, spread, target
from tracking.statistics.summary import Summary


def forest(table: Table, number: int) -> Drawing | None:
    """Draw every arm's mean and interval, best first, the controls apart; None without a result.

    Rows that are another one by a second name are left out; the note says which.
    """
    arms = [row for row in table.arms if row.accuracy and not row.same_as]
    if not arms:
        return None
    weak = set(not_above_random(table))
    off = [row for row in arms if row.verdict is Verdict.OFF_TARGET]
    ranked = [row for row in arms if row not in off]
    controls = [row for row in table.controls if row.accuracy]
    blocks = [
        Block(heading="", lines=list(_lines(ranked, weak))),
        Block(heading="Off target, not ranked", lines=list(_lines(off, weak))),
        Block(heading="Controls", lines=list(_lines(controls, weak))),
    ]
    title = _title(table)
    made, data = rows_chart(
        f"forest-{number}",
        [block for block in blocks if block.lines],
        label="Test accuracy, %",
        band=_band(table),
        guides=list(_guides(table)),
    )
    return drawing(
        made,
        title,
        f"Test accuracy of {len(arms)} arms and {len(controls)} controls with 95 % intervals, "
        "best first. The numbers are in the accuracy table below.",
        note=_hidden(table),
        data=data,
    )


def _lines(rows: Sequence[Row], weak: set[str]) -> Iterator[Line]:
    for row in sorted(rows, key=_worst):
        if row.accuracy is None:
            continue
        mean = percent(row.accuracy.mean)
        told = f"{row.verdict}" + (", not shown to beat random pruning" if row.name in weak else "")
        yield Line(
            name=row.name,
            kind=standing_of(row),
            value=row.accuracy.mean,
            low=row.accuracy.low,
            high=row.accuracy.high,
            number=mean
            if row.within is None
            else f"\N{MINUS SIGN}{100 * row.within.reduction:.0f} %",
            tip=f"{row.name}: {_told(row.accuracy)}; {told}",
            hollow=row.name in weak,
        )


def _worst(row: Row) -> float:
    """Order rows: by descending accuracy, or by what they lose of the cost within a drop."""
    if row.within is not None:
        return -row.within.reduction
    return -row.accuracy.mean if row.accuracy else 0.0


def _told(summary: Summary) -> str:
    return f"{spread(summary)} % (95 %: {interval(summary)}; n={summary.n})"


def _band(table: Table) -> tuple[float, float] | None:
    """Return where means lie within the margin of the highest one, or within the drop allowed."""
    if table.drop is not None:
        dense = next((row.accuracy for row in table.controls if row.name == DENSE), None)
        return None if dense is None else (dense.mean - table.drop, dense.mean)
    lead = table.leader
    if lead is None or lead.accuracy is None or table.harm is not None:
        return None
    return lead.accuracy.mean - table.margin, lead.accuracy.mean


def _guides(table: Table) -> Iterator[Guide]:
    if table.dense is not None:
        yield Guide(value=table.dense.test_accuracy, name=DENSE, style="--")
    for row in table.controls:
        if row.arm == RANDOM and row.accuracy is not None:
            yield Guide(value=row.accuracy.mean, name=RANDOM, style=":")


def _hidden(table: Table) -> str:
    alike = [f"{row.name} = {row.same_as}" for row in table.arms if row.same_as]
    return f"Left out, being the same runs: {', '.join(alike)}." if alike else ""


def gains(table: Table, number: int) -> Drawing | None:
    """Draw what search found beside uniform ratios, most gained first; None without a search."""
    checked = [(row, row.uniform) for row in table.arms if row.uniform is not None]
    if not checked:
        return None
    checked.sort(key=lambda pair: -pair[1].gain)
    lines = [
        Line(
            name=row.name,
            kind="level" if check.beaten else "worse",
            value=check.best,
            start=check.uniform,
            number=points(check.gain),
            tip=f"{row.name}: uniform {percent(check.uniform)} %, best proposal "
            f"#{check.best_index} {percent(check.best)} %, {points(check.gain)} points",
        )
        for row, check in checked
    ]
    made, data = rows_chart(
        f"gains-{number}",
        [Block(heading="", lines=lines)],
        label="Validation accuracy, %, one seed",
    )
    return drawing(
        made,
        _title(table),
        f"Validation accuracy of uniform ratios and of the best proposal, for {len(lines)} arms.",
        data=data,
    )


def by_target(comparison: Comparison) -> Iterator[tuple[Table, Drawing | None, Drawing | None]]:
    """Yield each table with its forest and its gains by search."""
    for number, table in enumerate(comparison.tables):
        yield table, forest(table, number), None if table.is_front else gains(table, number)


def _title(table: Table) -> str:
    if table.is_front:
        return "Points of the fronts, with fresh seeds"
    return target(table.axis, table.reduction, table.target)
