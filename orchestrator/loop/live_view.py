"""The live view of a sweep: what matters of it, on as much of a terminal as there is."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tracking.places import Place
from tracking.report.grid import Folded

MOST_RUNNING = 6  #: Running trials that are shown.
MOST_TARGETS, MOST_LEADERS = 6, 3  #: Targets, and arms of each, that are shown.


@dataclass(slots=True)
class RunningTrial:
    """A trial that runs now."""

    place: Place
    worker: str  #: Where: machine and process.
    epochs: int  #: It will train.
    step: int | None = None  #: Of its last report; None before the first.


@dataclass(slots=True)
class Standing:
    """What is known of an arm at a target: its re-runs, or until then its search."""

    reruns: dict[int, float]  #: Validation accuracy by seed.
    tried: int = 0  #: Trials of its search that came back.
    best: float | None = None  #: Their best validation accuracy.

    @property
    def accuracy(self) -> float:
        """What the arm is ranked by: the mean of its re-runs, or the best of its search."""
        return fmean(self.reruns.values()) if self.reruns else self.best or 0.0

    def __str__(self) -> str:
        values = list(self.reruns.values())
        if len(values) > 1:
            return f"{fmean(values):.2f} ± {stdev(values):.2f} % ({len(values)} re-runs)"
        if values:
            return f"{values[0]:.2f} % (1 re-run)"
        return f"{self.best:.2f} % (best of {self.tried})"


class Standings:
    """How arms stand at each target, by validation accuracy."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Standing]] = {}

    def came(self, place: Place, accuracy: float) -> None:
        """Take in a trial that speaks of its arm."""
        arms = self._found.setdefault(place.target, {})
        standing = arms.setdefault(place.arm, Standing(reruns={}))
        if place.role.is_reported:
            standing.reruns[place.index] = accuracy
        else:
            standing.tried += 1
            standing.best = max(accuracy, standing.best or 0.0)

    def leaders(self, most: int) -> Iterable[tuple[str, list[tuple[str, Standing]], int]]:
        """Yield each target, its best arms, and how many others there are.

        Arms that were re-run come before those that were not: a search's best is flattering.
        """
        for target, arms in self._found.items():
            ranked = sorted(
                arms.items(), key=lambda item: (not item[1].reruns, -item[1].accuracy, item[0])
            )
            yield target, ranked[:most], max(0, len(ranked) - most)


def phase_of(running: Iterable[RunningTrial]) -> str:
    """Say what a sweep is at: what most of its trials are."""
    roles = Counter(trial.place.role for trial in running)
    return roles.most_common(1)[0][0].activity if roles else "waiting for workers"


def view(
    console: Console,
    summary: str,
    share: float,
    running: Sequence[RunningTrial],
    standings: Standings,
    last_failure: str | None,
) -> RenderableType:
    """Draw it, no taller than the terminal: its head first, then what runs, then who leads.

    Args:
        console: Where it is shown.
        summary: Counts and time left, in one line.
        share: Of all that is wanted, what is done.
        running: Trials that run.
        standings: How arms stand.
        last_failure: The latest trial that failed, and of what.
    """
    width = min(console.width - 2, 60)
    bar = Table.grid()  # which ends its line, as a bar alone does not
    bar.add_row(ProgressBar(total=1.0, completed=min(1.0, share), width=width))
    parts: list[RenderableType] = [
        Text(summary, style="bold"),
        bar,
        Text(phase_of(running)),
        _running_table(running[:MOST_RUNNING]),
    ]
    if len(running) > MOST_RUNNING:
        parts.append(Text(f"and {len(running) - MOST_RUNNING} more", style="dim"))
    room = console.height - len(parts) - min(len(running), MOST_RUNNING) - 3
    most = MOST_LEADERS if room > MOST_LEADERS * MOST_TARGETS else 1
    parts.append(_leaders_table(standings, most, max(1, room)))
    if last_failure is not None:
        parts.append(Text.assemble(("last failure ", "red"), last_failure))
    return Group(*parts)


def _running_table(running: Sequence[RunningTrial]) -> Table:
    table = _table("running", "target", "epoch", "on")
    for trial in running:
        place = trial.place
        step = "-" if trial.step is None else str(trial.step)
        epoch = f"{step}/{trial.epochs}" if trial.epochs else step
        name = f"{place.arm or place.role} {place.role}" if place.arm else str(place.role)
        table.add_row(*map(Folded, (name, place.target, epoch, trial.worker)))
    return table


def _leaders_table(standings: Standings, most: int, room: int) -> Table:
    table = _table("target", "leads", "validation accuracy")
    targets = list(standings.leaders(most))
    for target, leaders, _ in targets[:MOST_TARGETS]:
        for rank, (arm, standing) in enumerate(leaders):
            if table.row_count < room:
                cells = (target if rank == 0 else "", arm, str(standing))
                table.add_row(*map(Folded, cells))
    hidden = sum(others for *_, others in targets)
    if hidden or len(targets) > MOST_TARGETS:
        beyond = max(0, len(targets) - MOST_TARGETS)
        more = [f"{beyond} more targets"] if beyond else []
        more += [f"{hidden} arms behind these"] if hidden else []
        table.add_row("", Text(", ".join(more), style="dim"), "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
