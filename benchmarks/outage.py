"""What an MLflow that refuses, hangs or works costs the training beside it.

``python -m benchmarks.outage [--output FILE]``

A sweep of real trials runs under each kind of MLflow. All that a sweep does for MLflow is done by
one process, so that process is held (SIGSTOP) for five seconds and let go for five, in turns, and
epochs that lie within a turn are compared, each as a share of its trial's average epoch: a machine
that others use too is now and then slower by more than is looked for, but not in step with that.
Afterwards MLflow is there, and must be shown
everything.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.surroundings import ROOT, publish, surroundings
from tracking.ledger.ledger import Ledger
from tracking.ledger.outbox import Outbox

SPEC: dict[str, Any] = {
    "name": "outage",
    "model": "digits_net",
    "arms": ["l1"],
    "targets": {"macs_reduction": [0.5]},
    "search": {"trials": 4},
    "recipe": {"epochs": 60, "batch_size": 64},
    "seeds": [1, 2],
    "controls": {"dense": False, "random": False, "uniform_l1": False, "scratch": False},
    "resources": {"workers": 1, "device": "cpu"},
}
KINDS = ("refusing", "hanging", "working")
MLFLOW = "OUTAGE_MLFLOW"  #: Environment variable with the address.
Epoch: TypeAlias = tuple[datetime, datetime, float]  #: Begin, end, length by its trial's average.
TURN_S = 5.0
MARGIN_S = 0.1  #: Of a turn's beginning that does not count.


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A time in which the publisher was held, or not."""

    begun: datetime
    ended: datetime
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What one sweep came to."""

    held: list[float]  #: How long each epoch took while the publisher was held; 1: as on average.
    free: list[float]  #: While it was not.
    epoch_s: float  #: Average.
    lacking: int  #: Records that MLflow does not show when all is over.
    trials: int


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
def address_of(kind: str, folder: Path) -> Iterator[str]:
    """Yield what ``tracking.mlflow`` is to be."""
    if kind == "working":
        yield store_in(folder)
    else:
        with refusing() if kind == "refusing" else hanging() as url:
            yield url


def store_in(folder: Path) -> str:
    """Return the address of an MLflow store that works."""
    return f"sqlite:///{folder}/mlflow.db"


def run_once(kind: str) -> Ran:
    """Run the sweep, then publish what there is to publish."""
    with tempfile.TemporaryDirectory(prefix="outage-") as name:
        folder = Path(name)
        tracking = {"store": str(folder / "store"), "mlflow": f"${{{MLFLOW}}}"}
        (folder / "sweep.yaml").write_text(json.dumps({**SPEC, "tracking": tracking}))
        with address_of(kind, folder) as address:
            turns = _run_in_turns(folder / "sweep.yaml", address)
        _command("publish", "outage", "--store", str(folder / "store"), mlflow=store_in(folder))
        with Ledger.open(f"sqlite:///{folder}/store/ledger.db", create=False) as ledger:
            sweep = ledger.sweep("outage")
            epochs = list(_epochs(ledger, sweep.id))
            lacking = len(Outbox(ledger).dirty_trials(sweep.id))
            trials = len(ledger.trials(sweep.id))
    return Ran(
        held=list(_within(epochs, [turn for turn in turns if turn.held])),
        free=list(_within(epochs, [turn for turn in turns if not turn.held])),
        epoch_s=statistics.fmean((end - begin).total_seconds() for begin, end, _ in epochs),
        lacking=lacking,
        trials=trials,
    )


def _run_in_turns(spec: Path, address: str) -> list[Turn]:
    """Run the sweep to its end, holding its publisher every other turn."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "run", str(spec), "--quiet"],
        cwd=ROOT,
        env={**os.environ, MLFLOW: address},
        stdout=subprocess.DEVNULL,
    )
    turns: list[Turn] = []
    while driver.poll() is None:
        pid = _publisher_of(driver.pid)
        held = len(turns) % 2 == 0
        begun = datetime.now(UTC)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if held else signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            driver.wait(TURN_S)
        if pid is not None:
            turns.append(Turn(begun=begun, ended=datetime.now(UTC), held=held))
    if driver.returncode != 0:
        raise RuntimeError(f"the sweep ended with status {driver.returncode}")
    return turns


def _publisher_of(driver: int) -> int | None:
    """Return the process that publishes for a driver, once it is there."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if (
                b"tracking.mlflow_mirror.publisher_process" in words
                and str(driver).encode() in words
            ):
                return int(path.parent.name)
    return None


def _epochs(ledger: Ledger, sweep_id: int) -> Iterator[Epoch]:
    """Yield every epoch but the first of each trial."""
    for attempt in ledger.attempts(sweep_id):
        points = ledger.metrics(attempt.trial_id, attempt.n)
        moments = sorted(point.at for point in points if point.key == "val_loss")
        if len(moments) < 3:
            continue
        average = (moments[-1] - moments[0]) / (len(moments) - 1)
        for begin, end in pairwise(moments):
            yield begin, end, (end - begin) / average


def _within(epochs: Sequence[Epoch], turns: Sequence[Turn]) -> Iterator[float]:
    """Yield how long those epochs took that lie within one of the turns."""
    for begin, end, length in epochs:
        for turn in turns:
            if (begin - turn.begun).total_seconds() > MARGIN_S and end < turn.ended:
                yield length


def _command(*arguments: str, mlflow: str) -> None:
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


def report(found: Mapping[str, Ran]) -> Iterator[str]:
    """Yield a page of Markdown."""
    yield "# What MLflow costs the training beside it"
    yield ""
    yield "`python -m benchmarks.outage`"
    yield ""
    yield "How long an epoch takes while the publisher is not held, against while it is, in turns."
    yield ""
    yield "| MLflow | epoch, s | epochs, held | epochs, not held | ratio | not shown afterwards |"
    yield "|---|---:|---:|---:|---:|---:|"
    for kind, ran in found.items():
        held, free = statistics.fmean(ran.held), statistics.fmean(ran.free)
        error = _error(ran.held) + _error(ran.free)
        yield (
            f"| {kind} | {ran.epoch_s:.3f} | {len(ran.held)} | {len(ran.free)} "
            f"| **{free / held:.3f}** ± {error**0.5 * free / held:.3f} "
            f"| {ran.lacking} of {ran.trials} trials |"
        )
    yield ""


def _error(seconds: Sequence[float]) -> float:
    """Return the square of the standard error of a mean, relative to it."""
    return statistics.variance(seconds) / len(seconds) / statistics.fmean(seconds) ** 2


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found: dict[str, Ran] = {}
    for kind in KINDS:
        found[kind] = run_once(kind)
        print(f"{kind}: {len(found[kind].held)} epochs held", file=sys.stderr)
    publish([*report(found), *surroundings(), ""], options.output)


if __name__ == "__main__":
    main()
