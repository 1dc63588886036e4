"""A Ray cluster on this machine, as `ray start` makes it, with a token; nodes come and go."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
TRIES = 4
STOP_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where a node runs: this machine, or a part of it that has an address of its own."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()  #: What goes before a command that is to run there.


HERE = Host()


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """One machine of the cluster, as far as Ray can tell: what `ray start` started."""

    process: "subprocess.Popen[bytes]"  #: Leads the session of all the others.
    agent: str  #: URL of the dashboard's agent, as seen from its host.

    def processes(self) -> set[int]:
        """Return what runs of it: Ray's own processes, and workers."""
        return _session(self.process.pid)

    def kill(self) -> None:
        """End it as a loss of power does: everything at once, and nobody is told."""
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()  # buries it
        self.process.wait()

    def stop(self) -> None:
        """End it and all it started: gently, then not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # `ray start --block` ends what it started
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=STOP_S)
        self.kill()


class RayCluster:
    """A head that runs no trials, and nodes that do.

    Args:
        folder: Where the cluster keeps what it writes; with a short name, for the sake of sockets.
        host: Where the head runs.
        variables: What the environment of every node has besides this process's own.
    """

    def __init__(self, folder: Path, host: Host, variables: Mapping[str, str]) -> None:
        (folder / "token").write_text(secrets.token_hex(32))
        self.host, self.nodes = host, list[RayNode]()
        #: Of somebody who has the token.
        self.environment: Mapping[str, str] = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PRUNESWEEP_", "RAY_"))},
            "HOME": str(folder),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        }
        self._folder, self._environment = folder, {**self.environment, **variables}
        self.port, dashboard = free_ports(2)
        self.address = f"{host.address}:{self.port}"
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self._head = self._start(
            host, 0, "--head", "--port", str(self.port), "--include-dashboard", "true",
            "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
        )  # fmt: skip

    @property
    def agent(self) -> str:
        """URL of the dashboard's agent on the first node."""
        return self.nodes[0].agent

    def add_node(self, cpus: int = 2, host: Host = HERE) -> RayNode:
        """Start a node that runs as many trials at a time, by default, as it has CPUs."""
        self.nodes.append(self._start(host, cpus, "--address", self.address))
        return self.nodes[-1]

    def kill_node(self, node: RayNode) -> None:
        """Let a node lose its power."""
        node.kill()
        self.nodes.remove(node)

    def stop(self) -> None:
        """End all nodes, the head last."""
        for node in [*reversed(self.nodes), self._head]:
            node.stop()

    def _start(self, host: Host, cpus: int, *arguments: str) -> RayNode:
        """Start a node; again where Ray gives up, as it does when the machine is busy for 30 s."""
        (agent,) = free_ports(1)
        command: list[str | Path] = [
            *host.enter, PROGRAMS / "ray", "start", *arguments, "--block", "--num-cpus", str(cpus),
            "--node-ip-address", host.address, "--dashboard-agent-listen-port", str(agent),
            "--object-store-memory", str(80 * 2**20), "--disable-usage-stats",
        ]  # fmt: skip
        path = self._folder / f"log-{agent}"
        for attempt in range(TRIES):
            temporary = ["--temp-dir", f"{self._folder}/ray{attempt}"]
            with path.open("wb") as log:
                process = subprocess.Popen(
                    [*command, *(temporary if "--head" in arguments else [])],
                    cwd=self._folder, env=self._environment, stdout=log, stderr=log,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            node = RayNode(process=process, agent=f"http://{host.address}:{agent}")
            if _has_come_up(node, path):
                return node
        raise RuntimeError(f"no Ray node starts: {path.read_text(errors='replace')}")


@contextmanager
def running_cluster(*, nodes: int = 1, host: Host = HERE, **variables: str) -> Iterator[RayCluster]:
    """Start a head and nodes that have ``variables`` in their environment; stop them at the end.

    Args:
        nodes: How many there are besides the head to begin with, each with two CPUs.
        host: Where they, and the head, run.
        variables: Environment variables.
    """
    # short: paths of sockets have an end
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        cluster = RayCluster(Path(folder), host, variables)
        try:
            for _ in range(nodes):
                cluster.add_node(host=host)
            yield cluster
        finally:
            cluster.stop()


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _has_come_up(node: RayNode, log: Path) -> bool:
    """Wait until a node says that it runs; clear away what there is of it when it does not."""
    try:
        while node.process.poll() is None:
            if "Ray runtime started" in log.read_text(errors="replace"):
                return True
            time.sleep(0.2)
    except BaseException:  # out of time, say
        node.kill()
        raise
    node.kill()
    return False


def _session(leader: int) -> set[int]:
    """Return the processes of a session that have not ended."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in {"Z", "X"}:
                found.add(int(path.parent.name))
    return found
