"""What a person sees while a sweep runs: a live view on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.loop.watcher import Ended
from tracking.durations import duration
from tracking.ledger.ledger import Ledger
from tracking.places import Place
from tracking.records import Loss, TrialState
from tracking.results import Result

LINE_EVERY_S = 15.0  #: Between plain lines.


def places_done(ledger: Ledger, sweep_id: int) -> list[Place]:
    """Return the places whose trials have ended."""
    final = {trial.id for trial in ledger.trials(sweep_id) if trial.state.is_final}
    return [entry.place for entry in ledger.entries(sweep_id) if entry.trial_id in final]


class Progress:
    """Counts by state, best per arm and target, throughput, time left, failures as they happen.

    Args:
        console: Where to print.
        total: Trials the sweep asks for, at most.
        name: The sweep.
        done: Places whose trials had ended before this driver began.
    """

    def __init__(self, console: Console, total: int, name: str, done: Iterable[Place] = ()) -> None:
        self._console, self._total, self._name = console, total, name
        self._states: Counter[TrialState] = Counter()
        self._reused = 0
        self._done = set(done)
        self._before = len(self._done)
        self._best: dict[tuple[str, str], tuple[float, int]] = {}
        self._running = self._waiting = 0
        self._began = self._said = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def ended(self, trial: Ended) -> None:
        """Count a trial; say at once when it failed."""
        self._done.update(trial.places)
        if trial.reused:
            self._reused += 1
        else:
            self._states[trial.state] += 1
        if trial.state is TrialState.FAILED:
            self._console.print(
                Text.assemble(("failed ", "bold red"), f"{_where(trial.places)}: {trial.cause}")
            )
        accuracy = Result.read(trial.result).val_accuracy
        for place in trial.places:
            if accuracy is not None and place.role.speaks_of_arm:
                best, seen = self._best.get((place.target, place.arm), (accuracy, 0))
                self._best[place.target, place.arm] = (max(best, accuracy), seen + 1)

    def lost(self, trial_id: int, loss: Loss, reason: str) -> None:
        """Say that a worker went away, and of what."""
        what = f"trial {trial_id} ({loss}), which runs again: {reason}"
        self._console.print(Text.assemble(("lost ", "bold yellow"), what))

    def given_up(self, arm: str, cause: str) -> None:
        """Say that an arm is not gone on with."""
        what = f"arm {arm}, whose first trials all failed: {cause}"
        self._console.print(Text.assemble(("given up ", "bold red"), what))

    def tick(self, running: int, waiting: int) -> None:
        """Show where things stand."""
        self._running, self._waiting = running, waiting
        now = time.monotonic()
        if self._console.is_terminal:
            self._live.update(self._view(), refresh=True)
        elif now - self._said >= LINE_EVERY_S:
            self._said = now
            self._console.print(self.summary(), highlight=False, soft_wrap=True)

    def summary(self, *, is_over: bool = False) -> str:
        """Return where things stand, in one line; once it is over, all that was wanted is done."""
        done, fresh = len(self._done), len(self._done) - self._before
        total = done if is_over else self._total
        minutes = (time.monotonic() - self._began) / 60
        rate = sum(self._states.values()) / minutes if minutes else 0.0
        parts = [f"{self._name}: {done} of {total} done"]
        parts += [f"{self._running} running"] if self._running else []
        if failed := self._states[TrialState.FAILED]:
            parts.append(f"{failed} failed")
        if self._reused:
            parts.append(f"{self._reused} known already")
        parts.append(f"{rate:.1f} trials/min")
        if fresh and minutes and done < total:
            left = (total - done) / (fresh / minutes)
            parts.append(f"about {duration(60 * left)} left")
        return ", ".join(parts)

    def _view(self) -> RenderableType:
        table = Table(title=None, box=None, pad_edge=False, header_style="dim")
        for column in ("target", "arm", "trials", "best validation accuracy"):
            table.add_column(column, justify="left" if column in {"target", "arm"} else "right")
        for (target, arm), (accuracy, seen) in sorted(self._best.items()):
            table.add_row(target, arm, str(seen), f"{accuracy:.2f} %")
        return (
            Group(Text(self.summary(), style="bold"), table)
            if self._best
            else Text(self.summary(), style="bold")
        )


def _where(places: tuple[Place, ...]) -> str:
    place = places[0]
    return " ".join(part for part in (*place.words, f"#{place.index}") if part)
