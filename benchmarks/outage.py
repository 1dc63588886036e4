"""What an MLflow that refuses or hangs costs a sweep: training beside one without MLflow.

``python -m benchmarks.outage [--rounds 3] [--output FILE]``

Every round runs one small sweep of real trials three times, in turns: without MLflow, with an
address that refuses connections, and with a server that accepts them and never answers. A trial's
time is what its worker says training took; the sweep's is from the first trial's start to the last
one's end. Afterwards MLflow is there, and must be shown everything.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.surroundings import ROOT, publish, surroundings
from tracking.ledger import Ledger
from tracking.outbox import Outbox

SPEC: dict[str, Any] = {
    "name": "outage",
    "model": "digits_net",
    "arms": ["l1", "geometric_median"],
    "targets": {"macs_reduction": [0.5]},
    "search": {"trials": 6},
    "recipe": {"epochs": 12, "batch_size": 64},
    "baseline": {"epochs": 6},
    "seeds": [1, 2, 3],
    "resources": {"workers": 1, "device": "cpu"},
}
KINDS = ("off", "refusing", "hanging")
MLFLOW = "OUTAGE_MLFLOW"  #: Environment variable with the address.


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


def run_once(kind: str) -> dict[str, float]:
    """Run the sweep; return seconds, and how many records MLflow lacks in the end."""
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
            trials = ledger.trials(sweep.id)
            ends = [a.ended_at for a in attempts if a.ended_at is not None]
            span = (max(ends) - min(a.started_at for a in attempts)).total_seconds()
            training = sum(float((t.result or {}).get("seconds_recover", 0.0)) for t in trials)
            if kind != "off":
                there = f"sqlite:///{folder}/store/mlflow.db"
                _call("publish", "outage", "--store", str(folder / "store"), mlflow=there)
            lacking = len(Outbox(ledger).dirty_trials(sweep.id)) if kind != "off" else 0
        return {
            "training": training,
            "span": span,
            "wall": wall,
            "lacking": lacking,
            "trials": len(trials),
        }


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(options.rounds):
        for kind in KINDS if number % 2 == 0 else reversed(KINDS):
            found[kind].append(run_once(kind))
            print(f"round {number + 1}, {kind}: {found[kind][-1]}", file=sys.stderr)
    lines = [
        "| MLflow | training, s | ratio | first start to last end, s | ratio | whole command, s "
        "| not shown afterwards |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in KINDS:
        cells = []
        for what in ("training", "span"):
            ratios = [r[what] / o[what] for r, o in zip(found[kind], found["off"], strict=True)]
            median = statistics.median(run[what] for run in found[kind])
            cells.append(f"{median:.1f} | {statistics.median(ratios):.3f}")
        wall = statistics.median(run["wall"] for run in found[kind])
        lacking = sum(run["lacking"] for run in found[kind])
        lines.append(f"| {kind} | {' | '.join(cells)} | {wall:.1f} | {lacking:.0f} |")
    trials = found["off"][0]["trials"]
    publish(
        [
            *lines,
            "",
            f"Medians of {options.rounds} rounds of {trials:.0f} trials each; ratios to the sweep "
            "without MLflow of the same round.",
            "",
            *surroundings(),
        ],
        options.output,
    )


if __name__ == "__main__":
    main()
