"""What a person sees while a sweep runs: a live view on a terminal, plain lines elsewhere."""

import math
import time
from collections import Counter
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.loop.live_view import RunningTrial, Standings, view
from orchestrator.loop.watcher import Ended
from orchestrator.plain_console import PlainConsole
from tracking.durations import duration
from tracking.ledger.ledger import Ledger
from tracking.places import Place
from tracking.records import Loss, TrialState
from tracking.results import Result
from workers.settings import TrialSpec

LINE_EVERY_S = 15.0  #: Between plain lines.
WAITS_EVERY_S = 60.0  #: Between two lines that tell of the same outage.


def outspoken(console: Console) -> Console:
    """Return a console for what has to be told even where no progress is wanted: an outage, say."""
    return PlainConsole(stderr=True) if console.quiet else console


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
        self._standings = Standings()
        self._last_failure: str | None = None
        self._at_work: dict[int, RunningTrial] = {}
        self._running = self._waiting = 0
        self._began = self._said = time.monotonic()
        self._told_of_waiting = -math.inf
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
        self._at_work.pop(trial.trial_id, None)
        if trial.state is TrialState.FAILED:
            self._last_failure = f"{_where(trial.places)}: {trial.cause}"
            self._console.print(Text.assemble(("failed ", "bold red"), self._last_failure))
        accuracy = Result.read(trial.result).val_accuracy
        for place in trial.places:
            if accuracy is not None and place.role.speaks_of_arm:
                self._standings.came(place, accuracy)

    def started(self, trial_id: int, place: Place, spec: TrialSpec, worker: str) -> None:
        """Show a trial that runs."""
        self._at_work[trial_id] = RunningTrial(
            place=place, worker=worker, epochs=spec.recipe.epochs
        )

    def reported(self, trial_id: int, step: int) -> None:
        """Show how far it is."""
        if trial_id in self._at_work:
            self._at_work[trial_id].step = step

    def lost(self, trial_id: int, loss: Loss, reason: str) -> None:
        """Say that a worker went away, and of what."""
        self._at_work.pop(trial_id, None)
        what = f"trial {trial_id} ({loss}), which runs again: {reason}"
        self._console.print(Text.assemble(("lost ", "bold yellow"), what))

    def waits(self, reason: str) -> None:
        """Say what trials wait for, now and then."""
        now = time.monotonic()
        if now - self._told_of_waiting >= WAITS_EVERY_S:
            self._told_of_waiting = now
            told = Text.assemble(("waiting ", "bold yellow"), reason)
            outspoken(self._console).print(told, soft_wrap=True)

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
        return view(
            self._console,
            self.summary(),
            len(self._done) / self._total if self._total else 0.0,
            list(self._at_work.values()),
            self._standings,
            self._last_failure,
        )


def _where(places: tuple[Place, ...]) -> str:
    place = places[0]
    return " ".join(part for part in (*place.words, f"#{place.index}") if part)
