"""A real PostgreSQL for tests, in a temporary folder and with a password."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

PASSWORD = "hush-4711"


class PostgresServer:
    """A running server; each test takes a database of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._databases = 0

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://ledger:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        dsn = f"postgresql://ledger:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(dsn, autocommit=True, connect_timeout=2) as connection:
            connection.execute(statement.encode())


def _programs() -> Path | None:
    versioned = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest_first = sorted(versioned, key=lambda path: float(path.parts[-3]), reverse=True)
    on_path = shutil.which("initdb")
    found = [*newest_first, *([Path(on_path)] if on_path else [])]
    return found[0].parent if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server, and stop it afterwards; skip where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no initdb in /usr/lib/postgresql or on PATH")
    account = _unprivileged_account()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        if account is not None:
            os.chown(folder, account, -1)
        data, secret = Path(folder, "data"), Path(folder, "password")
        secret.write_text(PASSWORD)
        if account is not None:
            os.chown(secret, account, -1)
        subprocess.run(
            [
                programs / "initdb", "--pgdata", data, "--username", "ledger", "--pwfile", secret,
                "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync",
            ],
            check=True, capture_output=True, user=account, cwd=folder,
        )  # fmt: skip
        port = _free_port()
        with open(Path(folder, "log"), "wb") as log:
            process = subprocess.Popen(
                [
                    programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-F",
                    "-c", "listen_addresses=127.0.0.1",
                ],
                stdout=log, stderr=log, user=account, cwd=folder,
            )  # fmt: skip
        try:
            server = PostgresServer(port)
            _wait_for(server, process, Path(folder, "log"))
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: clients are let go
            process.wait(timeout=30)


def _unprivileged_account() -> int | None:
    """User id to run as: PostgreSQL refuses to run as root. None: as we are."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres' here")


def _wait_for(server: PostgresServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return server.execute("SELECT 1")
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from None
            time.sleep(0.05)
