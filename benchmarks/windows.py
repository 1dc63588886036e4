"""How busy workers are for a given search window: the rule alone, without a driver.

A search may have proposals ``k - window + 1`` to ``k`` under way, so it waits for its oldest trial.
Lengths are log-normal; searches take turns, as in a sweep, with two proposals ready per worker.

    python -m benchmarks.windows [--workers 64] [--trials 4000]
"""

import argparse
import heapq
import random
from collections import deque
from dataclasses import dataclass, field

SEARCHES = (1, 4, 16)
SPREADS = (0.1, 0.25, 0.5)  #: Sigma of the lengths: alike; within half of each other; some double.
SHARES = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  #: Searches times window, by workers.


@dataclass(slots=True)
class Windowed:
    """A search that is only counted."""

    trials: int
    window: int
    asked: int = 0
    told: int = 0  #: Every trial below has ended.
    ended: set[int] = field(default_factory=set)

    @property
    def can_ask(self) -> bool:
        """The next trial may be asked for."""
        return self.asked < min(self.trials, self.told + self.window)

    def end(self, number: int) -> None:
        """Count a trial that has ended."""
        self.ended.add(number)
        while self.told in self.ended:
            self.ended.remove(self.told)
            self.told += 1


def busy(searches: int, window: int, workers: int, trials: int, spread: float) -> float:
    """Return the share of time workers run trials, up to the start of the last one."""
    rng = random.Random(0)
    all_searches = [Windowed(trials // searches, window) for _ in range(searches)]
    ready: deque[tuple[Windowed, int]] = deque()
    running: list[tuple[float, int, Windowed, int]] = []
    lengths: list[tuple[float, float]] = []
    now = 0.0
    while True:
        while len(ready) < 2 * workers:
            open_now = [search for search in all_searches if search.can_ask]
            if not open_now:
                break
            search = min(open_now, key=lambda search: search.asked)
            ready.append((search, search.asked))
            search.asked += 1
        while ready and len(running) < workers:
            search, number = ready.popleft()
            length = rng.lognormvariate(0.0, spread)
            heapq.heappush(running, (now + length, len(lengths), search, number))
            lengths.append((now, length))
        if not running:
            break
        now, _, search, number = heapq.heappop(running)
        search.end(number)
    last = lengths[-1][0]
    return sum(min(length, last - begun) for begun, length in lengths) / (workers * last)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=4000, help="of all searches together")
    options = parser.parse_args()
    print("| sigma of lengths | searches |", *(f" {share:g} |" for share in SHARES), sep="")
    print("| ---: | ---: |", " ---: |" * len(SHARES), sep="")
    for spread in SPREADS:
        for searches in SEARCHES:
            windows = [round(share * options.workers / searches) for share in SHARES]
            shares = [busy(searches, w, options.workers, options.trials, spread) for w in windows]
            print(f"| {spread:g} | {searches} |", *(f" {share:.0%} |" for share in shares), sep="")


if __name__ == "__main__":
    main()
