"""What an MLflow that refuses or hangs costs a sweep: training beside one without MLflow.

``python -m benchmarks.outage [--rounds 5] [--output FILE]``

Every round runs one small sweep of real trials three times, in turns: without MLflow, with an
address that refuses connections, and with a server that accepts them and never answers. Afterwards
MLflow is there, and must be shown everything.

A trial's time is what its worker says training took. A machine that others use too is now and then
slower by more than is looked for, so each trial counts with its fastest round.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.surroundings import ROOT, publish, surroundings
from tracking.ledger import Ledger
from tracking.outbox import Outbox

SPEC: dict[str, Any] = {
    "name": "outage",
    "model": "digits_net",
    "arms": ["l1"],
    "targets": {"macs_reduction": [0.5]},
    "search": {"trials": 4},
    "recipe": {"epochs": 12, "batch_size": 64},
    "baseline": {"epochs": 6},
    "seeds": [1, 2],
    "resources": {"workers": 1, "device": "cpu"},
}
KINDS = ("off", "refusing", "hanging")
MLFLOW = "OUTAGE_MLFLOW"  #: Environment variable with the address.


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """One sweep, in seconds."""

    training: dict[str, float]  #: Of each trial, by what it was wanted for.
    span: float  #: From the first trial's start to the last one's end.
    wall: float  #: Of the whole command.
    lacking: int  #: Records that MLflow does not show when all is over.


@contextmanager
def refusing() -> Iterator[str]:
    """Yield an address nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # held, so that nobody else comes to listen there
        yield f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def hanging() -> Iterator[str]:
    """Yield an address where connections are accepted, and never answered."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()


@contextmanager
def address_of(kind: str) -> Iterator[str]:
    """Yield what ``tracking.mlflow`` is to be."""
    if kind == "off":
        yield "off"
    else:
        with refusing() if kind == "refusing" else hanging() as url:
            yield url


def run_once(kind: str) -> Ran:
    """Run the sweep, then publish what there is to publish."""
    with tempfile.TemporaryDirectory(prefix="outage-") as name:
        folder = Path(name)
        with address_of(kind) as address:
            spec = {
                **SPEC,
                "tracking": {"store": str(folder / "store"), "mlflow": f"${{{MLFLOW}}}"},
            }
            (folder / "sweep.yaml").write_text(json.dumps(spec))
            began = time.monotonic()
            _call("run", str(folder / "sweep.yaml"), mlflow=address)
            wall = time.monotonic() - began
        with Ledger.open(f"sqlite:///{folder}/store/ledger.db") as ledger:
            sweep = ledger.sweep("outage")
            attempts = ledger.attempts(sweep.id)
            trials = {trial.id: trial for trial in ledger.trials(sweep.id)}
            ends = [a.ended_at for a in attempts if a.ended_at is not None]
            span = (max(ends) - min(a.started_at for a in attempts)).total_seconds()
            training = {
                f"{entry.role} {entry.arm} {entry.index}": seconds
                for entry in ledger.entries(sweep.id)
                if (seconds := (trials[entry.trial_id].result or {}).get("seconds_recover"))
            }
            if kind != "off":
                there = f"sqlite:///{folder}/store/mlflow.db"
                _call("publish", "outage", "--store", str(folder / "store"), mlflow=there)
            lacking = len(Outbox(ledger).dirty_trials(sweep.id)) if kind != "off" else 0
        return Ran(training=training, span=span, wall=wall, lacking=lacking)


def _call(*arguments: str, mlflow: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=ROOT,
        env={**os.environ, MLFLOW: mlflow},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found: dict[str, list[Ran]] = {kind: [] for kind in KINDS}
    for number in range(options.rounds):
        for kind in KINDS if number % 2 == 0 else reversed(KINDS):
            found[kind].append(run_once(kind))
            seconds = sum(found[kind][-1].training.values())
            print(f"round {number + 1}, {kind}: {seconds:.1f} s of training", file=sys.stderr)
    publish([*report(found), "", *surroundings()], options.output)


def report(found: Mapping[str, Sequence[Ran]]) -> Iterator[str]:
    """Yield a table of Markdown, and what it says."""
    places = found["off"][0].training
    fastest = {
        kind: {place: min(run.training[place] for run in runs) for place in places}
        for kind, runs in found.items()
    }
    base, quickest = sum(fastest["off"].values()), min(run.span for run in found["off"])
    yield (
        "| MLflow | training, s | ratio | first start to last end, s | ratio | whole command, s "
        "| not shown afterwards |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for kind, runs in found.items():
        training, span = sum(fastest[kind].values()), min(run.span for run in runs)
        wall, lacking = min(run.wall for run in runs), sum(run.lacking for run in runs)
        yield (
            f"| {kind} | {training:.1f} | **{training / base:.3f}** | {span:.1f} "
            f"| {span / quickest:.3f} | {wall:.1f} | {lacking} |"
        )
    rounds = len(found["off"])
    totals = {kind: [sum(run.training.values()) for run in runs] for kind, runs in found.items()}
    ranges = ", ".join(f"{k} {min(t):.1f} to {max(t):.1f}" for k, t in totals.items())
    yield ""
    yield (
        f"Of {rounds} rounds of {len(places)} trials, in turns: the fastest of each trial, summed, "
        f"and the fastest sweep. Training by round, s: {ranges}."
    )


if __name__ == "__main__":
    main()
