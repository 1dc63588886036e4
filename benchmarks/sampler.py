"""CPU milliseconds a search needs per proposal, by sampler and number of past trials.

Run ``python benchmarks/sampler.py``; ``--help`` says what can be changed. The past is random and
told in full, as after a resume; what is timed is ``Search.ask``, projection not included.
"""

import argparse
import random
import statistics
import time

from search_spaces import SAMPLERS, PastProposal, Proposal, Search

GP_LIMIT = 100  # GP takes seconds per proposal beyond


def past(dimensions: list[str], sampler: str, trials: int) -> list[PastProposal]:
    rng = random.Random(0)
    generation_key = "NSGAIISampler:generation"
    history = []
    for number in range(trials):
        trial = {generation_key: number // 20} if sampler == "nsga2" else {}
        params = {name: rng.random() for name in dimensions}
        history.append(
            PastProposal(
                proposal=Proposal(
                    number=number, params=params, state={"trial": trial, "study": {}}
                ),
                outcome="completed",
                values=[1.0 - statistics.fmean((v - 0.3) ** 2 for v in params.values())],
            )
        )
    return history


def measure(sampler: str, trials: int, dimensions: int, asks: int) -> tuple[float, float]:
    """Return the first ask, which replays the past, and the median of the next ones, in ms."""
    names = [f"group{i}" for i in range(dimensions)]
    search = Search(names, sampler=sampler, window=1)
    history = past(names, sampler, trials)
    times = []
    begun = time.process_time()
    search.restore(history)
    for number in range(trials, trials + asks + 1):
        search.ask(number)
        times.append((time.process_time() - begun) * 1000)
        search.tell(number, [random.Random(number).random()], "completed")
        begun = time.process_time()
    return times[0], statistics.median(times[1:])


def main() -> None:
    """Print one line per sampler and number of past trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimensions", type=int, default=50)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument("--asks", type=int, default=10)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    arguments = parser.parse_args()
    print(f"{'sampler':8} {'past':>6} {'resume ms':>10} {'ask ms':>8}")
    for sampler in arguments.samplers:
        for trials in arguments.trials:
            if sampler == "gp" and trials > GP_LIMIT:
                continue
            resume, ask = measure(sampler, trials, arguments.dimensions, arguments.asks)
            print(f"{sampler:8} {trials:6d} {resume:10.0f} {ask:8.1f}", flush=True)


if __name__ == "__main__":
    main()
