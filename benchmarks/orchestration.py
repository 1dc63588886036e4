"""What a trial costs besides its training: prunesweep against Ray Tune, in one run.

No-op trials with 50 ratios and three reports of five values, two at a time, with the same sampler
and MLflow on a SQLite store. Ray Tune runs with OptunaSearch and MLflowLoggerCallback, by default
and with reused actors. prunesweep runs just before each of them: on a machine that others use too,
only neighbours in time compare, so ratios are taken pair by pair.

    python -m benchmarks.orchestration [--samplers tpe random] [--repetitions 3] [--output FILE]

Every arm has a process, a Ray and a store of its own. Milliseconds per trial are taken from the
first end of a trial to the last, so that starting up is left out, of all arms alike.
"""

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.noop.trial import REPORTS
from benchmarks.surroundings import ROOT, publish, surroundings

OURS, REUSE, DEFAULT = "prunesweep", "Ray Tune, reused actors", "Ray Tune, default"
GOALS = {REUSE: 40, DEFAULT: 100}  #: How many times as long Ray Tune is to take.
TIMEOUT_S = 1800
ATTEMPTS = 3  #: On a busy machine Ray may not be up within its 30 seconds.
#: Ray starts workers at nice 15: on a busy machine they would only wait, and Ray Tune has more of
#: them to wait for.
NOT_NICE = {"RAY_worker_niceness": "0"}

Measured = dict[str, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of Ray Tune and the run of prunesweep just before it."""

    ours: Measured
    theirs: Measured

    def ratio(self, what: str) -> float:
        """Return how many times as much Ray Tune takes."""
        return self.theirs[what] / self.ours[what]


def create_store(database: Path) -> None:
    """Create MLflow's tables, which takes as long as many trials."""
    look = "import mlflow, sys; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    command = [sys.executable, "-c", look, f"sqlite:///{database}"]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)


def measure(arm: str, sampler: str, trials: int, store: Path) -> Measured:
    """Run one arm on a copy of an empty store, and check that MLflow then shows every trial."""
    module = "benchmarks.noop.sweep" if arm == OURS else "benchmarks.noop.tune"
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "mlflow.db"
            shutil.copy(store, copy)
            command = [sys.executable, "-m", module, folder]
            command += ["--trials", str(trials), "--sampler", sampler]
            command += ["--reuse"] if arm == REUSE else []
            finished = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **NOT_NICE},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            if finished.returncode == 0:
                check_store(copy, trials)
                measured: Measured = json.loads(finished.stdout.splitlines()[-1])
                print(arm, sampler, measured, file=sys.stderr, flush=True)
                return measured
        print(f"{arm} failed:\n{finished.stderr}", file=sys.stderr, flush=True)
    raise RuntimeError(f"{arm} failed {ATTEMPTS} times")


def check_store(database: Path, trials: int) -> None:
    """Make sure that nobody was faster by showing less."""
    with sqlite3.connect(database) as connection:
        count = "SELECT count(*) FROM "
        (runs,) = connection.execute(count + "runs WHERE status = 'FINISHED'").fetchone()
        points = count + "metrics WHERE key = 'val_accuracy'"
        (points,) = connection.execute(points).fetchone()
        (params,) = connection.execute(count + "params").fetchone()
    assert runs >= trials, f"MLflow shows {runs} of {trials} trials"
    assert points >= trials * REPORTS, f"MLflow shows {points} reports of {trials} trials"
    assert params >= trials * 50, f"MLflow shows {params} ratios of {trials} trials"


def compare(sampler: str, trials: dict[str, int], repetitions: int) -> dict[str, list[Pair]]:
    """Run every arm, interleaved."""
    pairs: dict[str, list[Pair]] = {arm: [] for arm in GOALS}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "mlflow.db"
        create_store(store)
        for _ in range(repetitions):
            for arm, found in pairs.items():
                ours = measure(OURS, sampler, trials[OURS], store)
                found.append(Pair(ours, measure(arm, sampler, trials[arm], store)))
    return pairs


def report(sampler: str, pairs: dict[str, list[Pair]]) -> list[str]:
    """Say in Markdown what each arm took and how they compare: medians, and all values."""
    runs = {OURS: [pair.ours for found in pairs.values() for pair in found]}
    runs |= {arm: [pair.theirs for pair in found] for arm, found in pairs.items()}
    lines = [
        f"## Sampler {sampler}",
        "",
        "| arm | trials | ms per trial, recorded | ms per trial, in MLflow | "
        "CPU ms per trial, driver | s, whole run |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm, measured in runs.items():
        cells = [_cell([run[what] for run in measured]) for what in COLUMNS]
        lines.append(f"| {arm} | {measured[0]['trials']:.0f} | {' | '.join(cells)} |")
    lines.append("")
    for arm, goal in GOALS.items():
        recorded, shown, cpu = (
            _cell([pair.ratio(what) for pair in pairs[arm]])
            for what in ("recorded_ms", "shown_ms", "driver_cpu_ms")
        )
        lines.append(
            f"- {arm} takes **{recorded}** times as long as prunesweep until a trial is recorded "
            f"(goal: {goal}), {shown} times until MLflow shows it, and {cpu} times the CPU time "
            "of the driver."
        )
    return [*lines, ""]


COLUMNS = ("recorded_ms", "shown_ms", "driver_cpu_ms", "shown_s")


def _cell(values: Sequence[float]) -> str:
    each = " ".join(f"{value:.0f}" for value in values)
    return f"{statistics.median(values):.0f} ({each})"


def main() -> None:
    """Compare, print the tables and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", nargs="+", default=["tpe"], choices=("tpe", "random"))
    parser.add_argument("--repetitions", type=int, default=3)
    # As many as of the arm with reused actors: a sampler's cost grows with the trials it knows.
    parser.add_argument("--trials", type=int, default=40, help="of prunesweep")
    parser.add_argument("--reuse-trials", type=int, default=40)
    parser.add_argument("--default-trials", type=int, default=10)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    trials = {
        OURS: options.trials,
        REUSE: options.reuse_trials,
        DEFAULT: options.default_trials,
    }
    lines = ["# Overhead per trial", "", "`python -m benchmarks.orchestration`", ""]
    sections = [
        report(sampler, compare(sampler, trials, options.repetitions))
        for sampler in options.samplers
    ]
    lines += [*surroundings(), "", *(line for section in sections for line in section)]
    publish(lines, options.output)


if __name__ == "__main__":
    main()
