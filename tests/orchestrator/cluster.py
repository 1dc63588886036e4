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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
START_S = 180.0  #: For a node to come up; the machine may be busy with other things.
STOP_S = 30.0


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A head that runs no trials, and a worker with two CPUs."""

    port: int
    dashboard: str  #: URL.
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
        port, dashboard, *agents = _free_ports(4)
        head = [
            "--head", "--num-cpus", "0", "--port", str(port), "--include-dashboard", "true",
            "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
        ]  # fmt: skip
        worker = ["--address", f"127.0.0.1:{port}", "--num-cpus", "2"]
        nodes: list[subprocess.Popen[bytes]] = []
        try:
            for arguments, agent in zip((head, worker), agents, strict=True):
                log = folder / f"node-{len(nodes)}.log"
                nodes.append(_start(folder, arguments, agent, log, {**environment, **variables}))
                _wait_until(log, "Ray runtime started", nodes[-1])
            url = f"http://127.0.0.1:{dashboard}"
            yield RayCluster(port=port, dashboard=url, environment=environment)
        finally:
            for node in reversed(nodes):
                _stop(node)


def _start(
    folder: Path, arguments: list[str], agent: int, log: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    command = [
        PROGRAMS / "ray", "start", *arguments, "--block", "--node-ip-address", "127.0.0.1",
        "--dashboard-agent-listen-port", str(agent), "--object-store-memory", str(80 * 2**20),
        "--disable-usage-stats",
    ]  # fmt: skip
    if "--head" in arguments:
        command += ["--temp-dir", folder / "ray"]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _wait_until(log: Path, words: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while words not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a Ray node did not start: {log.read_text(errors='replace')}")
        time.sleep(0.2)


def _stop(node: "subprocess.Popen[bytes]") -> None:
    """End a node and all it started: gently, then not."""
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)  # `ray start --block` ends what it started
    try:
        node.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
