"""How many workers one driver keeps busy: agenda, search, driver and ledger are real, workers not.

Sixty-four workers on a virtual clock run trials of minutes, as `benchmarks.virtual` says; MLflow is
off, since its process is not waited for.

    python -m benchmarks.scale [--arms 10 --targets 2 --trials 500] [--sampler tpe] [--window 16]

``--trials`` is per arm and target. What is printed about a block of trials is about the search
trials that ended in it; *idle* is how long a worker had been free when it was given its next trial.
"""

import argparse
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.noop.sweep import made_up_survey
from benchmarks.noop.trial import WIDTH
from benchmarks.surroundings import publish, surroundings
from benchmarks.virtual import VirtualBackend, searching, utilisation
from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.queue import Wanted
from orchestrator.agenda.stopper import Stopper
from orchestrator.loop.driver import Driver
from orchestrator.loop.watcher import Ended
from orchestrator.specification.spec import SweepSpec
from tracking.ledger.ledger import Ledger
from tracking.places import Place
from tracking.records import Loss
from workers.settings import TrialSpec

EPOCHS = 10  #: Reports of a trial, of five values each.
ALONE_S = 20.0  #: How long measuring a latency takes.
SPREAD = 0.5  #: Sigma of the log-normal lengths of trials.
SEED = 0  #: Of the search.
TARGETS = (0.5, 0.3, 0.7, 0.4, 0.6)  #: Shares of the MACs removed.


def run_trial(spec: TrialSpec, report: Callable[[int, dict[str, float]], None]) -> dict[str, Any]:
    """Return a result that is best where every ratio is 0.3, after a report per epoch."""
    ratios = spec.ratios or {}
    distance = sum((ratio - 0.3) ** 2 for ratio in ratios.values()) / max(1, len(ratios))
    accuracy = 0.0
    for epoch in range(EPOCHS):
        accuracy = 100.0 * (1.0 - distance) - 30.0 * 0.5 ** (epoch + 1)
        values = {"val_accuracy": accuracy, "val_loss": 1.0 - accuracy / 100}
        report(epoch, values | {"train_loss": 1.0, "learning_rate": 0.1, "seconds": 30.0})
    kept = {group: round(WIDTH * (1 - ratio)) for group, ratio in ratios.items()}
    return {"val_accuracy": accuracy, "macs": sum(kept.values()), "params": 1, "kept": kept}


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """How long trials take: the same trial always as long."""

    median_s: float

    def __call__(self, spec: TrialSpec) -> float:
        """Return seconds, drawn from a log-normal distribution by the trial's content."""
        if spec.is_exclusive:
            return ALONE_S
        return self.median_s * random.Random(spec.uid).lognormvariate(0.0, SPREAD)


class TimedAgenda(Agenda):
    """An agenda that says when it is busy, and what it took."""

    is_busy = False
    cpu_s = 0.0  #: Of all calls.
    ask_s = 0.0  #: Of ``next`` alone: the sampler and the projection onto the target.

    def next(self, limit: int) -> list[Wanted]:
        """Time the asking."""
        before = self.cpu_s
        found: list[Wanted] = self._timed(super().next, limit)
        self.ask_s += self.cpu_s - before
        return found

    def ended(self, *arguments: Any, **named: Any) -> None:
        """Time the telling."""
        self._timed(super().ended, *arguments, **named)

    def _timed(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self.is_busy, begun = True, time.thread_time()
        try:
            return call(*arguments, **named)
        finally:
            self.cpu_s += time.thread_time() - begun
            self.is_busy = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Where things stood as a search trial ended."""

    virtual_s: float
    stints: int
    loop_s: float  #: CPU time of the loop's thread: driver and ledger.
    agenda_s: float  #: CPU time of the planner's thread.
    ask_s: float


class Diary:
    """A watcher that notes a moment at every end of a search trial."""

    def __init__(self, backend: VirtualBackend, agenda: TimedAgenda) -> None:
        self._backend, self._agenda = backend, agenda
        self.moments: list[Moment] = []

    def started(self, trial_id: int, place: Place, spec: TrialSpec, worker: str) -> None:
        """Nothing of it is measured."""

    def reported(self, trial_id: int, step: int) -> None:
        """Nothing of it is measured."""

    def ended(self, trial: Ended) -> None:
        """Note a search trial's end."""
        if trial.places[0].role == "search":
            self.moments.append(
                Moment(
                    virtual_s=self._backend.now(),
                    stints=len(self._backend.stints),
                    loop_s=time.thread_time() - self._backend.cpu_s,
                    agenda_s=self._agenda.cpu_s,
                    ask_s=self._agenda.ask_s,
                )
            )
            if len(self.moments) % 500 == 0:
                print(f"{len(self.moments)} trials", file=sys.stderr, flush=True)

    def lost(self, trial_id: int, loss: Loss, reason: str) -> None:
        """Nothing is lost here."""

    def given_up(self, arm: str, cause: str) -> None:
        """Nothing fails here."""

    def waits(self, reason: str) -> None:
        """Nothing is waited for here."""

    def tick(self, running: int, waiting: int) -> None:
        """Nothing to note."""


def specification(options: argparse.Namespace, folder: Path) -> SweepSpec:
    """Return a sweep with a search per arm and target, of arms that differ in a setting."""
    arms = [
        {"method": "filter_norm", "name": f"arm{number}", "settings": {"p": 1 + number / 4}}
        for number in range(options.arms)
    ]
    search = {name: getattr(options, name) for name in ("trials", "sampler", "window")}
    search["seed"] = SEED
    return SweepSpec.model_validate(
        {
            "name": "scale",
            "model": "none",
            "arms": arms,
            "targets": {"macs_reduction": list(TARGETS[: options.targets])},
            "search": search,
            "controls": dict.fromkeys(("dense", "random", "uniform_l1", "scratch"), False),
            "seeds": [1, 2],
            "resources": {"workers": options.workers, "device": "cpu"},
            "tracking": {"store": str(folder)},
        }
    )


def run(options: argparse.Namespace) -> tuple[VirtualBackend, list[Moment]]:
    """Run the sweep to its end."""
    surveyed = made_up_survey([f"layer{number}.conv1" for number in range(options.ratios)])
    with tempfile.TemporaryDirectory() as folder:
        spec = specification(options, Path(folder))
        with Ledger.open(spec.tracking.ledger_url) as ledger:
            ledger.create_sweep(spec.name, spec.model_dump(mode="json"), spec.spec_hash)
            writer = ledger.take_over(spec.name, "benchmark")
            agenda = TimedAgenda(spec, surveyed, "none")
            backend = VirtualBackend(
                options.workers,
                run_trial,
                Lengths(median_s=options.median_s),
                is_planning=lambda: agenda.is_busy,
            )
            diary = Diary(backend, agenda)
            assert Driver(agenda, backend, ledger, writer, diary, stopper=Stopper(spec)).run()
    return backend, diary.moments


def report(options: argparse.Namespace) -> list[str]:
    """Run the sweep; say in Markdown what it took, block by block."""
    backend, moments = run(options)
    searches = options.arms * options.targets
    stints, workers = backend.stints, options.workers
    steady = utilisation(stints, workers, *searching(stints, workers, SEED))
    whole = utilisation(stints, workers, 0.0, max(stint.ended for stint in stints))
    lines = [
        f"## {options.sampler}, {options.ratios} ratios: {searches} searches of {options.trials}",
        "",
        f"`python -m benchmarks.scale --arms {options.arms} --targets {options.targets} "
        f"--trials {options.trials} --sampler {options.sampler} --window {options.window} "
        f"--ratios {options.ratios} --workers {workers} --median-s {options.median_s:g}`",
        "",
        f"- {workers} workers were busy **{steady:.2%}** of the time from when each had a trial "
        f"to the start of the last search trial, and {whole:.2%} of the whole sweep, which took "
        f"{backend.now() / 3600:.1f} virtual hours.",
        f"- Memory of the process at most {_peak_mib()} MiB.",
        "",
        "| trials | workers busy | idle before a trial, mean s | largest s | "
        "loop, CPU ms per trial | asking, CPU ms per trial |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    size = min(options.block, len(moments) - 1)
    for first in range(0, len(moments) - size, size):
        begin, end = moments[first], moments[first + size]
        idle = [stint.idle for stint in stints[max(workers, begin.stints) : end.stints]]
        busy = utilisation(stints, workers, begin.virtual_s, end.virtual_s)
        loop, ask = end.loop_s - begin.loop_s, end.ask_s - begin.ask_s
        lines.append(
            f"| {first} to {first + size} | {busy:.1%} | {statistics.fmean(idle):.2f} | "
            f"{max(idle):.1f} | {loop / size * 1000:.1f} | {ask / size * 1000:.1f} |"
        )
    return [*lines, ""]


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=10)
    parser.add_argument("--targets", type=int, default=2, choices=range(1, len(TARGETS) + 1))
    parser.add_argument("--trials", type=int, default=500, help="per arm and target")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--ratios", type=int, default=50)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--median-s", type=float, default=300.0, help="length of a trial")
    parser.add_argument("--block", type=int, default=1000, help="trials per line of the table")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    return parser.parse_args()


def main() -> None:
    """Run one sweep, print what it took and write it down."""
    options = parse()
    publish([*report(options), *surroundings(), ""], options.output)


if __name__ == "__main__":
    main()
