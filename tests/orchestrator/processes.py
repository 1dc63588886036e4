"""Sweeps in processes of their own, to be killed: the real driver, the real Ray.

``python -m tests.orchestrator.processes SPEC.json RUNNER`` is what such a process runs.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.checkout import ROOT
from tests.orchestrator.ray_cluster import RayCluster
from tests.orchestrator.simulation import LOG, RUNNER, SECONDS, read_log
from tests.orchestrator.sweeps import Bench
from tracking.records import AttemptRecord
from tracking.report.report import to_text

PATIENCE_S = 600.0  #: For whatever is waited for; the machine may be busy with other things.
POLL_S = 0.02


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something to become true.

    Raises:
        TimeoutError: It did not.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and was not fetched does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


class RealSweep:
    """A sweep in a folder, driven by one process after another.

    Args:
        folder: Store, specification and logs.
        fields: The specification.
        runner: What runs a trial.
        seconds: How long a simulated trial takes; a cluster's nodes are told by their environment.
        cluster: Where trials run, driven from its head; None: each driver has a Ray of its own.
        variables: What drivers have in their environment besides.
    """

    def __init__(
        self,
        folder: Path,
        fields: Mapping[str, Any],
        *,
        runner: str = RUNNER,
        seconds: float = 0.0,
        cluster: RayCluster | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder, self.runner = folder, runner
        self._enter = cluster.host.enter if cluster else ()
        self.store, self.bodies = folder / "store", folder / "bodies.log"
        tracking = {"store": str(self.store), **fields.get("tracking", {})}
        where = {"address": cluster.address} if cluster else {}
        resources = {"workers": 2, "device": "cpu", **where, **fields.get("resources", {})}
        spec = {**fields, "name": "sweep", "tracking": tracking, "resources": resources}
        folder.mkdir(parents=True, exist_ok=True)
        self._spec = folder / "spec.json"
        self._spec.write_text(json.dumps(spec))
        self._environment = {
            **(cluster.environment if cluster else os.environ),
            SECONDS: str(seconds),
            LOG: str(self.bodies),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            **variables,
        }
        self._drivers = 0

    @contextmanager
    def driver(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a driver for as long as the context lasts, then kill it if it still runs."""
        self._drivers += 1
        with (self.folder / f"driver-{self._drivers}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *self._enter,
                    *(sys.executable, "-m", "tests.orchestrator.processes"),
                    *(str(self._spec), self.runner),
                ],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(PATIENCE_S)

    def run(self) -> int:
        """Let one driver do what it can; return its exit status."""
        while True:
            with self.driver() as process:
                status = process.wait(PATIENCE_S)
            if not self.is_out_of_breath():
                return status

    def kill_driver_when(self, condition: Callable[[], bool]) -> None:
        """Start a driver, and kill it when the condition holds, with everything it runs."""
        while True:
            with self.driver() as process:
                until(lambda: condition() or process.poll() is not None, "a moment to kill")
                ended = process.poll() is not None
            if not ended:
                break
            assert self.is_out_of_breath(), self.words()
        workers = {attempt.pid for attempt in self.attempts()}
        until(lambda: not any(map(is_alive, workers)), "its workers to end with it")

    def is_out_of_breath(self) -> bool:
        """Say whether the machine was too busy for Ray to start, which is worth another try."""
        return "RayStartError" in self.words()

    def words(self) -> str:
        """Return what the last driver said."""
        return (self.folder / f"driver-{self._drivers}.log").read_text()

    def ended_bodies(self) -> Counter[str]:
        """Return how often the body of each trial ran to its end."""
        return Counter(read_log(self.bodies, "end"))

    def begun_bodies(self) -> Counter[str]:
        """Return how often the body of each trial began."""
        return Counter(read_log(self.bodies, "begin"))

    def bench(self) -> Bench:
        """Look into the ledger, from here."""
        return Bench(self.store)

    def attempts(self) -> list[AttemptRecord]:
        """Return all attempts so far; none before there is a ledger."""
        if not (self.store / "ledger.db").exists():
            return []
        bench = self.bench()
        if not bench.ledger.sweeps():
            return []
        return bench.ledger.attempts(bench.ledger.sweep("sweep").id)

    def publish(self) -> None:
        """Have MLflow shown whatever it lacks, once the publishers of killed drivers have ended."""
        command = [sys.executable, "-m", "orchestrator", "publish", "sweep"]
        command += ["--store", str(self.store)]
        while True:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            if "Another process publishes" not in done.stderr:
                break
        assert done.returncode == 0, done.stdout + done.stderr


def main() -> None:
    """Run the sweep that the command line names."""
    from orchestrator import Sweep

    spec, runner = sys.argv[1:]
    comparison = Sweep(json.loads(Path(spec).read_text())).run(runner=runner)
    print(to_text(comparison))


if __name__ == "__main__":
    main()
