"""One sweep of no-op trials on everything real: agenda, driver, Ray, ledger, publisher, MLflow.

Only what surrounds it is made up: a network of 50 groups that nobody builds or prunes.

    python -m benchmarks.noop.sweep FOLDER --trials 150 --sampler tpe [--mlflow off]

prints one line of JSON. ``FOLDER/mlflow.db`` may be there already, with its schema.
"""

import argparse
import io
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from rich.console import Console

from benchmarks.noop.trial import GROUPS, WIDTH
from methods import CostModel, Group, LayerPolicy, Layout
from methods.structure.cost import Term
from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.prunable import PrunableNetwork
from orchestrator.agenda.stopper import Stopper
from orchestrator.agenda.survey import Survey
from orchestrator.cluster.connection import connect
from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.loop.driver import Driver
from orchestrator.loop.progress import Progress
from orchestrator.loop.watcher import Ended
from orchestrator.specification.spec import SweepSpec
from search_spaces import RatioSpace
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.publisher_process import start_publisher
from workers.data import DataInfo

RUNNER = "benchmarks.noop.trial:run_trial"
FLUSH_S = 600.0
LOOK_S = 0.2  #: Between looks at how many trials MLflow shows.


def made_up_survey(names: Sequence[str] = GROUPS) -> Survey:
    """Return a chain of convolutions, each a group, at 8 by 8 pixels."""
    terms = [
        Term(
            macs_unit=9 * 64,
            params_unit=9,
            out_by_group={group: 1},
            in_fixed=0 if before else 3,
            in_by_group={before: 1} if before else {},
        )
        for before, group in zip((None, *names), names, strict=False)
    ]
    groups = tuple(
        Group(name=name, width=WIDTH, producers=(name,), norms=(None,), outputs=(), inputs=())
        for name in names
    )
    layout = Layout(
        groups=groups,
        cost=CostModel(dict.fromkeys(names, WIDTH), terms),
        policy=LayerPolicy(),
        input_shape=(3, 8, 8),
    )
    data = DataInfo(
        name="none",
        classes=tuple("0123456789"),
        channels=3,
        height=8,
        width=8,
        train_images=1,
        val_images=1,
        test_images=1,
        data_hash="none",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    weights = {"layer0.conv1.weight": torch.zeros(1)}
    filters = PrunableNetwork(layout=layout, space=RatioSpace(groups))
    return Survey(data=data, filters=filters, weights=weights)


def specification(folder: Path, trials: int, sampler: str, workers: int) -> SweepSpec:
    """Return a sweep that is nearly all search: one arm, one target, no controls."""
    return SweepSpec.model_validate(
        {
            "name": "noop",
            "model": "none",
            "arms": ["l1"],
            "targets": {"macs_reduction": 0.5},
            "search": {"trials": trials, "sampler": sampler},
            "controls": dict.fromkeys(("dense", "random", "uniform_l1", "scratch"), False),
            "seeds": [1, 2],
            "resources": {"workers": workers, "device": "cpu"},
            "tracking": {"store": str(folder)},
        }
    )


class Stopwatch(Progress):
    """The progress a person would see, and when each search trial had ended."""

    def __init__(self, total: int) -> None:
        super().__init__(Console(file=io.StringIO()), total, "noop")
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []  #: Of this process, its threads included.

    def ended(self, trial: Ended) -> None:
        """Note the time of a search trial."""
        super().ended(trial)
        if trial.places[0].role == "search":
            self.wall_s.append(time.time())
            self.cpu_s.append(time.process_time())

    def per_trial(self, seconds: list[float], begin: int = 0, end: int | None = None) -> float:
        """Return milliseconds from one end of a trial to the next, on average."""
        part = seconds[begin:end]
        return (part[-1] - part[0]) / (len(part) - 1) * 1000


class Audience(Thread):
    """Looks every now and then at how many trials are shown in MLflow as they ended."""

    def __init__(self, ledger: Path) -> None:
        super().__init__(daemon=True)
        self._ledger, self._stop_looking = ledger, Event()
        self.seen: list[tuple[float, int]] = []  #: Moments and counts, while the count grows.

    def run(self) -> None:
        """Look until told not to."""
        with sqlite3.connect(self._ledger) as connection:
            while not self._stop_looking.wait(LOOK_S):
                self._look(connection)
            self._look(connection)

    def _look(self, connection: sqlite3.Connection) -> None:
        query = "SELECT count(*) FROM ledger_trial WHERE rev = published_rev"
        (count,) = connection.execute(query).fetchone()
        if count and (not self.seen or count > self.seen[-1][1]):
            self.seen.append((time.time(), count))

    def per_trial_ms(self) -> float:
        """Return milliseconds per trial from the first trials shown to the last."""
        self._stop_looking.set()
        self.join()
        (begun, first), (ended, last) = self.seen[0], self.seen[-1]
        return (ended - begun) / max(1, last - first) * 1000


def run(spec: SweepSpec, *, mlflow: bool) -> dict[str, Any]:
    """Run the sweep; Ray is up already. Times are in seconds from here, or ms per trial."""
    begun = time.time()
    tracking, trials = spec.tracking, spec.search.trials
    stopwatch = Stopwatch(trials)
    with Ledger.open(tracking.ledger_url) as ledger, ExitStack() as stack:
        ledger.create_sweep(spec.name, spec.model_dump(mode="json"), spec.spec_hash)
        writer = ledger.take_over(spec.name, "benchmark")
        audience = Audience(tracking.folder / "ledger.db")
        publisher = stack.enter_context(_publishing(spec, audience)) if mlflow else None
        backend = RayBackend(
            spec.resources,
            cache_dir=str(tracking.folder / "cache"),
            artifacts=tracking.artifacts_url,
            runner=RUNNER,
        )
        stack.callback(backend.close)
        agenda = Agenda(spec, made_up_survey(), backend.device_of_first_worker())
        with stopwatch:
            assert Driver(agenda, backend, ledger, writer, stopwatch, stopper=Stopper(spec)).run()
        writer.set_state("completed")
        measured: dict[str, Any] = {
            "trials": trials,
            "recorded_s": time.time() - begun,
            "recorded_ms": stopwatch.per_trial(stopwatch.wall_s),
            "driver_cpu_ms": stopwatch.per_trial(stopwatch.cpu_s),
            "stopwatch": stopwatch,
        }
        if publisher is not None:
            publisher.terminate()
            assert publisher.wait(FLUSH_S) == 0, "MLflow does not show everything"
            measured["shown_s"] = time.time() - begun
            measured["shown_ms"] = audience.per_trial_ms()
    return measured


@contextmanager
def _publishing(spec: SweepSpec, audience: Audience) -> "Iterator[subprocess.Popen[bytes]]":
    tracking = spec.tracking
    assert tracking.mlflow_url is not None
    process = start_publisher(
        ledger_url=tracking.ledger_url,
        tracking_uri=tracking.mlflow_url,
        artifacts_url=tracking.artifacts_url,
        sweep=spec.name,
        log_file=tracking.folder / "publisher.log",
        grace_s=FLUSH_S,
    )
    audience.start()
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Run one sweep and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mlflow", choices=("on", "off"), default="on")
    options = parser.parse_args()
    spec = specification(
        options.folder.absolute(), options.trials, options.sampler, options.workers
    )
    connect(spec.resources)
    measured = run(spec, mlflow=options.mlflow == "on")
    del measured["stopwatch"]
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
