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
START_S = 30.0


class PostgresServer:
    """A server that can be killed and started again; each test takes a database of its own."""

    def __init__(self, folder: Path, programs: Path, account: int | None) -> None:
        self.port = _free_port()
        self._folder, self._account = folder, account
        self._command: list[str | Path] = [
            programs / "postgres", "-D", folder / "data", "-p", str(self.port), "-k", folder, "-F",
            "-c", "listen_addresses=127.0.0.1",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: It does not.
        """
        log, deadline = self._folder / "log", time.monotonic() + START_S
        while True:
            if self._process is None or self._process.poll() is not None:
                with log.open("ab") as output:
                    self._process = subprocess.Popen(
                        self._command, stdout=output, stderr=output, user=self._account,
                        cwd=self._folder,
                    )  # fmt: skip
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                # the processes of one that was killed may hold its memory for a moment: once more
                if time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from None
                time.sleep(0.05)

    def end(self, how: signal.Signals) -> None:
        """End it: SIGINT lets clients go, SIGQUIT drops them and saves nothing, SIGKILL kills."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=START_S)

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
        server = PostgresServer(Path(folder), programs, account)
        try:
            server.start()
            yield server
        finally:
            server.end(signal.SIGINT)


def _unprivileged_account() -> int | None:
    """User id to run as: PostgreSQL refuses to run as root. None: as we are."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres' here")
