"""Tables as text cells: one definition for the terminal, Markdown and HTML."""

from collections.abc import Callable, Sequence

from tracking.comparison.comparison import (
    Comparison,
    Failure,
    Front,
    Predictor,
    Row,
    Table,
    Verdict,
)
from tracking.report.grid import Grid, Line, alike, line_of, without_empty
from tracking.report.overviews import overview_grid
from tracking.report.wording import (
    NOTHING,
    amount,
    interval,
    milliseconds,
    p_value,
    percent,
    points,
    share,
    spread,
    time_spent,
)

Column = tuple[str, Callable[[Row], str]]


def grids_of(table: Table) -> tuple[Grid, ...]:
    """Return what one table shows: accuracy, cost, latency, effort and runs."""
    accuracy: Sequence[Column] = (
        ("Verdict", told_verdict),
        ("n", lambda row: str(row.accuracy.n) if row.accuracy else "0"),
        ("Test accuracy, %", lambda row: spread(row.accuracy)),
        ("95 % interval", lambda row: interval(row.accuracy)),
        ("vs dense", lambda row: points(_negative(row.test_accuracy_drop))),
        ("vs dense tuned", lambda row: points(_negative(row.tuned_drop))),
        ("p vs highest", lambda row: "highest" if row.leads else p_value(row.p)),
        ("Could show", lambda row: percent(row.reach.smallest if row.reach else None)),
        ("Seeds needed", _seeds_needed),
    )
    cost: Sequence[Column] = (
        ("MACs", lambda row: amount(row.cost.macs if row.cost else None)),
        ("MACs less", lambda row: share(row.cost.macs_reduction if row.cost else None)),
        ("FLOPs", lambda row: amount(row.cost.flops if row.cost else None)),
        ("Parameters", lambda row: amount(row.cost.params if row.cost else None)),
        ("Params less", lambda row: share(row.cost.params_reduction if row.cost else None)),
        ("On target", _on_target),
        ("In theory", lambda row: _times(row.cost.base_macs / row.cost.macs if row.cost else None)),
        ("Measured", _speed_up),
    )
    predictor: Sequence[Column] = (("Predictor", lambda row: time_spent(row.predictor_seconds)),)
    effort: Sequence[Column] = (
        ("Cut only, %", lambda row: spread(row.val_accuracy_before)),
        ("After, %", lambda row: spread(row.val_accuracy)),
        ("Epochs", lambda row: NOTHING if row.epochs is None else f"{row.epochs:g}"),
        ("One run", lambda row: time_spent(row.seconds)),
        ("Statistics", lambda row: time_spent(row.statistics_seconds)),
        *(predictor if any(row.predictor_seconds for row in table.rows) else ()),
        ("Search trials", lambda row: str(row.search.trials) if row.search else NOTHING),
        ("Rank correlation", _correlation),
        ("Search", lambda row: time_spent(row.search.seconds if row.search else None)),
        ("Total", lambda row: time_spent(row.total_seconds)),
    )
    runs: Sequence[Column] = (
        ("Asked", lambda row: str(row.runs.asked)),
        ("Completed", lambda row: str(row.runs.completed)),
        ("Not finite", lambda row: _both(row, "not_finite")),
        ("Failed", lambda row: _both(row, "failed")),
        ("Stopped", lambda row: _both(row, "stopped")),
        ("Cancelled", lambda row: _both(row, "cancelled")),
        ("Waiting", lambda row: _both(row, "waiting")),
        ("Collapsed", lambda row: _both(row, "collapsed")),
        ("Over budget", lambda row: _both(row, "over_budget")),
    )
    notes = (
        "Mean and standard deviation of fresh-seed runs; differences in points. "
        "p is corrected for the best being picked; from 0.05 up it is undecided. Could show: the "
        "points these seeds would have told apart in 80 % of cases. Seeds needed: per row, for "
        "the difference seen.",
        f"MACs of conv and linear layers at batch 1; FLOPs are twice the MACs. "
        f"On target: within {share(table.tolerance)} of the dense cost. "
        "In theory, measured: how many times faster by MACs, and by the clock.",
        "Accuracy on the validation split: what selection left, and what recovery made of it. "
        "Device time. Total: all that getting one such network takes, search included.",
        "Fresh-seed runs, and after the plus sign those of the search.",
    )
    grids = [
        _grid("Accuracy", accuracy, table.rows, notes[0], is_brief=False),
        _grid("Cost", cost, table.rows, notes[1]),
        _latency(table),
        _grid("Effort", effort, table.rows, notes[2]),
        alike(_grid("Runs", runs, table.rows, notes[3])),
    ]
    return tuple(grid for grid in grids if grid.lines)


def front_grid(front: Front) -> Grid:
    """Return the front of one arm."""
    lines = [
        Line(
            kind="arm",
            cells=(
                f"#{point.index}",
                amount(point.macs),
                share(point.macs_reduction),
                share(point.params_reduction),
                percent(point.val_accuracy),
                spread(point.accuracy),
            ),
        )
        for point in front.points
    ]
    return Grid(
        title=f"Front of {front.arm}",
        columns=("Proposal", "MACs", "MACs less", "Params less", "Validation, %", "Test, %"),
        lines=tuple(lines),
        note=(
            f"{front.search.trials} trials, {time_spent(front.search.seconds)} of device time, "
            f"{front.search.runs.failed} failed. Validation: one seed; test: fresh-seed runs."
        ),
    )


def predictor_grids(predictors: Sequence[Predictor]) -> tuple[Grid, ...]:
    """Return what each latency predictor is worth, and its curve over uniform widths."""
    columns = ("Held-out networks", "Number", "R2", "Spearman", "Mean error")
    found = []
    for made in predictors:
        arms = ", ".join(made.arms)
        lines = [
            Line(
                kind="arm",
                cells=(
                    name,
                    str(judged.samples),
                    f"{judged.r2:.3f}",
                    f"{judged.spearman:.3f}",
                    share(judged.error),
                ),
            )
            for name, judged in (
                ("widths that go together", made.correlated),
                ("widths drawn one by one", made.independent),
            )
        ]
        shared = " Something else ran on the device meanwhile." if made.shared_device else ""
        key = ", ".join(f"{name} {value}" for name, value in made.key.items())
        found += [
            Grid(
                title=f"Latency predictor of {arms}",
                columns=columns,
                lines=tuple(lines),
                note=f"{made.samples} networks timed in {time_spent(made.seconds)}; the dense "
                f"network is predicted {share(made.full_width_error)} off, and its latency "
                f"drifted by up to {share(made.drift)} meanwhile.{shared} Holds for: {key}. "
                "Predictions guide training; reported latencies are measured.",
            ),
            Grid(
                title=f"Latency predictor of {arms}: the same share of filters in every group",
                columns=("Filters kept", "Measured", "Predicted"),
                lines=tuple(
                    Line(
                        kind="arm",
                        cells=(share(width), milliseconds(measured), milliseconds(predicted)),
                    )
                    for width, measured, predicted in made.uniform
                ),
                note="Among the networks it learned from.",
            ),
        ]
    return tuple(found)


def failure_grid(failures: Sequence[Failure]) -> Grid:
    """Return the runs that gave no usable result."""
    columns = ("Run", "Target", "Number or seed", "State", "Cause", "Error")
    lines = [
        Line(
            kind="arm",
            cells=(
                f"{failure.role} {failure.arm}".strip(),
                failure.target or NOTHING,
                str(failure.index),
                failure.state,
                failure.cause or NOTHING,
                failure.error or NOTHING,
            ),
        )
        for failure in failures
    ]
    return Grid(title="Runs without a usable result", columns=columns, lines=tuple(lines))


def all_grids(comparison: Comparison) -> tuple[Grid, ...]:
    """Return every grid of a comparison, in reading order."""
    grids = [grid for grid in [overview_grid(comparison)] if grid is not None]
    grids += [grid for table in comparison.tables for grid in grids_of(table)]
    fronts = [front_grid(front) for front in comparison.fronts]
    return (*grids, *fronts, *predictor_grids(comparison.predictors))


def _grid(
    title: str, columns: Sequence[Column], rows: Sequence[Row], note: str, *, is_brief: bool = True
) -> Grid:
    """Fill a table, less the rows that are another one by a second name if it is brief."""
    lines = [
        line_of(row, (row.name, *(cell(row) for _, cell in columns)))
        for row in rows
        if not (is_brief and _repeats(row))
    ]
    names = ("Arm or control", *(name for name, _ in columns))
    return without_empty(Grid(title=title, columns=names, lines=tuple(lines), note=note))


def _repeats(row: Row) -> bool:
    """Say whether an arm is another one by a second name: its numbers are there already."""
    return row.role == "arm" and row.same_as is not None


def _latency(table: Table) -> Grid:
    is_target = any(latency.predicted_speed_up for row in table.rows for latency in row.latency)
    predicted = ("Predicted",) if is_target else ()
    columns = (
        *("Arm", "Batch", "Median", "p90", "Dense", "Dense p90", "Speed-up"),
        *predicted,
        "Device",
    )
    lines = [
        line_of(
            row,
            (
                row.name,
                str(latency.batch_size),
                milliseconds(latency.median_ms),
                milliseconds(latency.p90_ms),
                milliseconds(latency.base_median_ms),
                milliseconds(latency.base_p90_ms),
                _times(latency.speed_up),
                *(_times(latency.predicted_speed_up) for _ in predicted),
                f"{latency.device}, {latency.dtype}"
                + ("" if latency.runtime == "eager" else f", {latency.runtime}")
                + (" (shared device)" if latency.shared_device else ""),
            ),
        )
        for row in table.rows
        if not _repeats(row)
        for latency in row.latency
    ]
    return Grid(
        title="Latency",
        columns=columns,
        lines=tuple(lines),
        note="Forward time per batch, dense and pruned interleaved in one process. Shared device: "
        "something else ran meanwhile, so the time is no latency to rely on.",
    )


def told_verdict(row: Row) -> str:
    """Name the verdict of a row, or the row it repeats."""
    return f"same as {row.same_as}" if row.verdict is Verdict.SAME else str(row.verdict)


def _seeds_needed(row: Row) -> str:
    if row.reach is None:
        return NOTHING
    return "> 1000" if row.reach.seeds is None else str(row.reach.seeds)


def _negative(drop: float | None) -> float | None:
    return None if drop is None else -drop


def _on_target(row: Row) -> str:
    return NOTHING if row.on_target is None else "yes" if row.on_target else "NO"


def _times(factor: float | None) -> str:
    return NOTHING if not factor else f"{factor:.2f}x"


def _speed_up(row: Row) -> str:
    if not row.latency:
        return NOTHING
    measured = row.latency[0]
    mark = " shared" if measured.shared_device else ""
    return f"{_times(measured.speed_up)} (batch {measured.batch_size}{mark})"


def _both(row: Row, what: str) -> str:
    own = getattr(row.runs, what)
    searched = getattr(row.search.runs, what) if row.search and row.role == "arm" else 0
    return f"{own} + {searched}" if searched else str(own)


def _correlation(row: Row) -> str:
    """Return that of proposals untrained and trained, over the finalists of a search."""
    known = row.proxy and row.proxy.rank_correlation
    return NOTHING if known is None else f"{known:+.2f}"
