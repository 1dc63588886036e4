"""A Ray cluster of two nodes on this machine, as `ray start` makes it, with a token."""

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
class RayCluster:
    """A head that runs no trials, and a worker with two CPUs."""

    port: int
    dashboard: str  #: URL.
    agent: str  #: URL of the one on the worker.
    environment: Mapping[str, str]  #: Of somebody who has the token.


@contextmanager
def running_cluster(**variables: str) -> Iterator[RayCluster]:
    """Start a cluster whose nodes have ``variables`` in their environment, and stop it."""
    # short: paths of sockets have an end
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "token").write_text(secrets.token_hex(32))
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PRUNESWEEP_", "RAY_"))},
            "HOME": str(folder),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        }
        port, dashboard, *agents = free_ports(4)
        head = [
            "--head", "--num-cpus", "0", "--port", str(port), "--include-dashboard", "true",
            "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
        ]  # fmt: skip
        worker = ["--address", f"127.0.0.1:{port}", "--num-cpus", "2"]
        nodes: list[subprocess.Popen[bytes]] = []
        try:
            for arguments, at in zip((head, worker), agents, strict=True):
                nodes.append(_started(folder, arguments, at, {**environment, **variables}))
            url = f"http://127.0.0.1:{dashboard}"
            agent = f"http://127.0.0.1:{agents[1]}"
            yield RayCluster(port=port, dashboard=url, agent=agent, environment=environment)
        finally:
            for node in reversed(nodes):
                _stop(node)


def _started(
    folder: Path, arguments: list[str], agent: int, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a node; again where Ray gives up, which it does when the machine is busy for 30 s."""
    command: list[str | Path] = [
        PROGRAMS / "ray", "start", *arguments, "--block", "--node-ip-address", "127.0.0.1",
        "--dashboard-agent-listen-port", str(agent), "--object-store-memory", str(80 * 2**20),
        "--disable-usage-stats",
    ]  # fmt: skip
    for attempt in range(TRIES):
        temporary = ["--temp-dir", f"{folder}/ray{attempt}"] if "--head" in arguments else []
        with (folder / "log").open("wb") as log:
            node = subprocess.Popen(
                [*command, *temporary], cwd=folder, env=environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        while node.poll() is None:
            if "Ray runtime started" in (folder / "log").read_text(errors="replace"):
                return node
            time.sleep(0.2)
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)  # what it had started
    raise RuntimeError(f"no Ray node starts: {(folder / 'log').read_text(errors='replace')}")


def _stop(node: "subprocess.Popen[bytes]") -> None:
    """End a node and all it started: gently, then not."""
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)  # `ray start --block` ends what it started
    try:
        node.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


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
