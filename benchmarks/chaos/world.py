"""What a sweep on a cluster runs on, all on this machine, to be killed and started again."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from tests.orchestrator.ray_cluster import free_ports
from tests.tracking.postgres import PostgresServer, running_postgres
from tracking.mlflow_mirror.server import MlflowServer, MlflowServerError, start_server

ROOT = Path(__file__).resolve().parents[2]
LEDGER = "PRUNESWEEP_LEDGER"
TRIES = 5
AGAIN_S = 1.0  #: From the end of a driver to the start of the next.
SHARED_MEMORY = 80 << 20  #: Bytes of each machine's object store.


class Machines:
    """A Ray cluster: a head that runs no trials, and machines with one CPU each.

    Every machine is a raylet of its own with the processes it starts.
    """

    def __init__(self, count: int) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": SHARED_MEMORY}
        (head["dashboard_port"],) = free_ports(1)  # its usual one may be another cluster's
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        """Where drivers join."""
        return str(self._cluster.address)

    def add(self) -> None:
        """Start a machine, from the main thread, as Ray wants it.

        Once more where Ray gives up, which it does when this machine is busy for half a minute.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                self._cluster.add_node(num_cpus=1, object_store_memory=SHARED_MEMORY)
            except Exception:  # bare, of Ray
                if not tries_left:
                    raise
            else:
                return

    def kill_machine(self, draw: random.Random) -> str:
        """Kill all processes of a machine at once; its connections are closed, as by a reboot."""
        node = draw.choice(sorted(self._cluster.worker_nodes, key=_raylet))
        raylet = _raylet(node)
        for pid in (raylet, *_descendants(raylet)):
            _kill(pid)
        self._cluster.remove_node(node, allow_graceful=False)
        return f"raylet {raylet}"

    def kill_worker(self, draw: random.Random) -> str | None:
        """Kill a process that runs a trial; None: there is none."""
        busy = [
            pid
            for node in self._cluster.worker_nodes
            for pid in _descendants(_raylet(node))
            if _title(pid).startswith("ray::Worker.run")
        ]
        if not busy:
            return None
        pid = draw.choice(sorted(busy))
        _kill(pid)
        return f"process {pid}"

    def close(self) -> None:
        """End all of it."""
        started = [
            pid for node in self._cluster.worker_nodes for pid in _descendants(_raylet(node))
        ]
        self._cluster.shutdown()  # type: ignore[no-untyped-call]
        for pid in started:
            _kill(pid)


class Mlflow:
    """An MLflow server that always comes back at the same address."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        self._uri, self._artifacts = uri, artifacts
        self._stack = ExitStack()
        self._port: int | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; again, when it ends because PostgreSQL is away.

        Raises:
            MlflowServerError: It does not come up.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                server = start_server(self._uri, self._artifacts, port=self._port)
                self._server: MlflowServer = self._stack.enter_context(server)
                break
            except MlflowServerError:
                if not tries_left:
                    raise
        self._port = int(self.url.rpartition(":")[2])

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def kill(self) -> str:
        """Kill the server and its worker."""
        pid = self._server.process.pid
        os.killpg(pid, signal.SIGKILL)
        self.close()
        return f"process {pid}"

    def close(self) -> None:
        """End it."""
        self._stack.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """How a driver ended."""

    status: int  #: Negative: the signal that killed it.
    words: str  #: What it wrote to standard error.


class Supervisor(threading.Thread):
    """Runs a sweep's driver again until one ends well, as Slurm or a RayJob does.

    Args:
        spec: The specification, a file; drivers write beside it what they have to say.
        address: The cluster's.
        environment: Variables of the drivers, beside those of this process.
    """

    def __init__(self, spec: Path, address: str, environment: Mapping[str, str]) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.exits: list[Exit] = []
        self.spec, self.folder, self.address = spec, spec.parent, address
        self._command = _prunesweep("run", str(spec), "--address", address, "--quiet")
        self._folder, self._environment = spec.parent, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self) -> None:
        """Start drivers one after another."""
        while not (self._is_stopped or (self.exits and self.exits[-1].status == 0)):
            if self.exits:
                time.sleep(AGAIN_S)
            log = self._folder / f"driver-{len(self.exits) + 1}.log"
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    self._command,
                    cwd=self._folder,
                    env=_environment(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=output,
                    start_new_session=True,
                )
            status = self._process.wait()
            self.exits.append(Exit(status=status, words=log.read_text(errors="replace")))

    @property
    def pid(self) -> int | None:
        """Number of the driver that runs just now."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def kill_driver(self) -> str | None:
        """Kill the driver; None: none runs just now. Its publisher outlives it by seconds."""
        return self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> str | None:
        """Send a signal to the driver; None: none runs just now."""
        process = self._process
        if process is None or process.poll() is not None:
            return None
        process.send_signal(number)
        return f"process {process.pid}"

    def beside(self, command: Sequence[str], seconds: float) -> str:
        """Run a command beside the driver, and kill it after so many seconds."""
        with (self._folder / "beside.log").open("ab") as output:
            process = subprocess.Popen(
                _prunesweep(*command),
                cwd=self._folder,
                env=_environment(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            return f"ended with status {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"killed after {seconds:.1f} s"

    def stop(self) -> None:
        """Start no more drivers, and end the one that runs."""
        self._is_stopped = True
        self.kill_driver()
        if self.is_alive():
            self.join()


@dataclass(frozen=True, kw_only=True)
class World:
    """PostgreSQL with the ledgers and MLflow's store, MLflow, and a cluster."""

    postgres: PostgresServer
    mlflow: Mlflow
    machines: Machines

    def kill_postgres(self, draw: random.Random) -> str:
        """Kill the server, with or without its processes; both save nothing."""
        how = draw.choice((signal.SIGQUIT, signal.SIGKILL))
        self.postgres.end(how)
        return how.name


@contextmanager
def running_world(folder: Path, machines: int) -> Iterator[World]:
    """Start everything, and end it with the block."""
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        hands = stack.enter_context(ThreadPoolExecutor(1))
        mlflow = hands.submit(Mlflow, postgres.new_database(), folder / "mlflow")
        stack.callback(lambda: mlflow.result().close())
        cluster = Machines(machines)  # meanwhile
        stack.callback(cluster.close)
        yield World(postgres=postgres, mlflow=mlflow.result(), machines=cluster)


def publish(name: str, ledger_url: str, folder: Path, patience_s: float) -> None:
    """Have MLflow shown what it lacks, once the publishers of killed drivers have ended.

    Raises:
        RuntimeError: Something is left.
    """
    deadline = time.monotonic() + patience_s
    while True:
        done = subprocess.run(
            _prunesweep("publish", name),
            cwd=folder,
            env=_environment({LEDGER: ledger_url}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"MLflow is not up to date: {done.stdout}{done.stderr}")
        time.sleep(1.0)


def _prunesweep(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *arguments]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PRUNESWEEP_", "RAY_"))}
    return {**own, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _descendants(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started, and what those have."""
    children: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    found = [pid]
    for parent in found:  # grows meanwhile
        found += children[parent]
    return found[1:]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
