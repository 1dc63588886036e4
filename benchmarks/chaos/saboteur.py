"""The saboteur: kills at random, by a seed, and has what it killed replaced."""

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

POLL_S = 0.1
PATIENT = 0.75  #: Share of kills before which a trial must have ended since the last one.
DOWN_S = 3.0  #: Longest that something stays away before its replacement is started.


@dataclass(frozen=True, kw_only=True, slots=True)
class Victim:
    """Something that can be killed."""

    kill: Callable[[random.Random], str | None]  #: Says what was hit; None: nothing was there.
    replace: Callable[[], None] | None = None  #: None: others do that.
    takes_long: bool = False  #: Replaced in another thread, while the saboteur goes on.


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """One kill."""

    kind: str
    at_s: float  #: Since the saboteur began.
    hit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sabotage:
    """What a saboteur is to do."""

    mix: Sequence[str]  #: Kinds of kill, as often as they are to be in each round.
    kills: int  #: Unless the sweep is over before.
    every_s: float  #: Average pause between two kills.
    seed: int  #: Of all that is random.


class Saboteur:
    """Kills one thing after another.

    The seed fixes the order of kinds, the pauses and how long things stay away; which worker or
    machine is hit depends on which are there by then. One kill in four waits for nothing but the
    clock, so that what is just coming back is hit, too; the others wait until a trial has ended, so
    that a slow machine gets on.

    Args:
        victims: By kind.
        sabotage: What to do.
    """

    def __init__(self, victims: Mapping[str, Victim], sabotage: Sabotage) -> None:
        self.strikes: list[Strike] = []
        self._victims, self._sabotage = victims, sabotage
        self._plan, self._aim = random.Random(sabotage.seed), random.Random(sabotage.seed)
        self._replacing: dict[str, Future[None]] = {}
        self._begun = time.monotonic()

    def work(self, is_over: Callable[[], bool], ended_trials: Callable[[], int]) -> None:
        """Kill until there were enough kills or the sweep is over; then all is in place again."""
        with ThreadPoolExecutor(
            len(self._victims)
        ) as hands:  # Ray's processes end with their thread
            seen = 0
            for kind in self._kinds():
                pause = self._sabotage.every_s * self._plan.uniform(0.2, 1.8)
                away_s = DOWN_S * self._plan.random()
                least = seen + (self._plan.random() < PATIENT)
                due = time.monotonic() + pause
                while time.monotonic() < due or ended_trials() < least:
                    if is_over():
                        break
                    time.sleep(POLL_S)
                self._strike(kind, away_s, hands, is_over)
                seen = ended_trials()
            while not is_over():
                time.sleep(POLL_S)
            for done in self._replacing.values():
                done.result()

    def _kinds(self) -> Iterator[str]:
        """Yield kinds in shuffled rounds."""
        left = self._sabotage.kills
        while left:
            kinds = list(self._sabotage.mix)
            self._plan.shuffle(kinds)
            yield from kinds[:left]
            left -= min(left, len(kinds))

    def _strike(
        self, kind: str, away_s: float, hands: ThreadPoolExecutor, is_over: Callable[[], bool]
    ) -> None:
        if kind in self._replacing:
            self._replacing[kind].result()  # what is away cannot be killed
        victim = self._victims[kind]
        while not is_over():
            hit = victim.kill(self._aim)
            if hit is not None:
                break
            time.sleep(POLL_S)
        else:
            return
        strike = Strike(kind=kind, at_s=time.monotonic() - self._begun, hit=hit)
        self.strikes.append(strike)
        print(f"{strike.at_s:7.1f} s  {kind}: {hit}", file=sys.stderr, flush=True)
        if victim.replace is not None and victim.takes_long:
            self._replacing[kind] = hands.submit(_replace, victim.replace, away_s)
        elif victim.replace is not None:
            _replace(victim.replace, away_s)


def _replace(replace: Callable[[], None], away_s: float) -> None:
    time.sleep(away_s)
    replace()
