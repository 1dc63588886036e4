"""An MLflow server of our own: a small one, on loopback, looking at the store of a laptop.

One worker and no job runners: 2 processes and 0.5 GB instead of 15 and 1.8 GB, and none of the
40 ms that MLflow's default of several workers adds to each call.
"""

import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tracking.database_url import sqlite_url
from tracking.errors import TrackingError, redact
from tracking.private_files import PRIVATE_UMASK, make_file, make_folder, open_private

QUIET: Mapping[str, str] = {
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}  #: Environment in which MLflow keeps to itself.

#: For a store in a file: what would be written to a file kept open is lost once that is removed.
OPENED_EACH_TIME: Mapping[str, str] = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"}


class MlflowServerError(TrackingError):
    """The MLflow server did not come up."""

    def __init__(self, url: str, problem: str, log: str) -> None:
        super().__init__(url, problem, log)
        self.url, self.problem, self.log = url, problem, log

    def __str__(self) -> str:
        return (
            f"The MLflow server for {self.url} {self.problem}; choose another port if this one is "
            f"taken. Its last words:\n{self.log}"
        )


def default_uri(folder: str | os.PathLike[str]) -> str:
    """Return the tracking URI of the MLflow store kept in a sweep's own folder."""
    return sqlite_url(Path(folder) / "mlflow.db")


def quiet_mlflow() -> None:
    """Keep MLflow and its schema migrations from writing to this process's standard error."""
    os.environ.update(QUIET)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def import_store() -> Any:
    """Return MLflow's class for stores in a database, imported without its deprecation warnings."""
    quiet_mlflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    return SqlAlchemyStore


def sqlite_file(uri: str) -> Path | None:
    """Return the file behind an SQLite URI; None for any other store, or for no URI at all."""
    if not uri.startswith("sqlite"):
        return None
    try:
        database = make_url(uri).database
    except ArgumentError:
        return None
    return Path(database) if database and database != ":memory:" else None


def prepare_store(uri: str) -> None:
    """Create the schema of an SQLite store, once, whoever comes first; others are left alone.

    Several processes that open a fresh store at once corrupt its schema, and a process killed
    half-way leaves one nobody can open: so it is made under a lock, in a file of its own, and
    renamed.
    """
    file = sqlite_file(uri)
    if file is None:
        return
    make_folder(file.parent)
    with open(file.with_name(f"{file.name}.lock"), "a", opener=open_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists() and file.stat().st_size > 0:
            return
        fresh = file.with_name(f"{file.name}.fresh")
        fresh.unlink(missing_ok=True)  # of a process that was killed here
        make_file(fresh)
        store = import_store()(sqlite_url(fresh), "mlflow-artifacts:/")
        store.engine.dispose()
        os.replace(fresh, file)


def server_command(host: str, port: int) -> list[str]:
    """Return the command line of the server; the stores are named in its environment."""
    listen = ["--host", host, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-W", "ignore", "-m", "mlflow", "server", *listen]


def server_environment(uri: str, artifacts: str | os.PathLike[str]) -> dict[str, str]:
    """Return what to add to the environment of the server.

    The URIs go here, not on the command line: they may hold a password, and everybody on the
    machine can read a command line.

    Args:
        uri: Backend store, as in ``sqlite:////data/mlflow.db``.
        artifacts: Folder or URL under which the server keeps what clients upload.
    """
    return {
        **QUIET,
        **(OPENED_EACH_TIME if sqlite_file(uri) else {}),
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_ARTIFACTS_DESTINATION": os.fspath(artifacts),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }


@dataclass(frozen=True, kw_only=True)
class MlflowServer:
    """A server that answers."""

    url: str
    process: subprocess.Popen[bytes]

    def wait(self) -> int:
        """Block until the server ends by itself; return its exit status."""
        return self.process.wait()


@contextmanager
def start_server(
    uri: str,
    artifacts: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    timeout_s: float = 180.0,
) -> Iterator[MlflowServer]:
    """Run an MLflow server for as long as the context lasts.

    Args:
        uri: Backend store of the server.
        artifacts: Folder or URL under which the server keeps what clients upload.
        host: Address to listen on.
        port: Port to listen on; None takes a free one.
        timeout_s: How long the server may take until it answers a real call; its ``/health`` is
            green before that.

    Raises:
        MlflowServerError: It ended, or did not answer in time.
    """
    prepare_store(uri)
    port = _free_port(host) if port is None else port
    url = f"http://{host}:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            server_command(host, port),
            env={**os.environ, **server_environment(uri, artifacts)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=PRIVATE_UMASK,
            start_new_session=True,  # the server and its worker end together
        )
        try:
            problem = _wait_until_it_answers(url, process, timeout_s)
            if problem:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
                last_words = log.read().decode(errors="replace")
                raise MlflowServerError(url, problem, last_words.replace(uri, redact(uri)))
            yield MlflowServer(url=url, process=process)
        finally:
            _end(process)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def why_silent(url: str, timeout_s: float = 5.0) -> str | None:
    """Return None if the server at ``url`` answers a real call, else what is wrong, in one line.

    Its ``/health`` is green even where clients are turned away.
    """
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        with urllib.request.urlopen(_request(url.rstrip("/") + path), timeout=timeout_s):
            return None
    except (OSError, ValueError, HTTPException) as error:
        return str(getattr(error, "reason", error))


def _request(url: str) -> urllib.request.Request:
    """Return the request that MLflow's own client would make: it logs in by variables or URL."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{key}") for key in ("USERNAME", "PASSWORD"))
    login = unquote(login) if user is None or password is None else f"{user}:{password}"
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if login:
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    elif token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    return request


def _wait_until_it_answers(
    url: str, process: subprocess.Popen[bytes], timeout_s: float
) -> str | None:
    """Return None once the server answers, or what went wrong."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"ended with status {process.returncode}"
        if why_silent(url) is not None:
            time.sleep(0.1)
        else:  # the answer must be our server's: another one may hold the port
            return None if process.poll() is None else f"ended with status {process.returncode}"
    return f"did not answer within {timeout_s:g} s"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server's process group, gently at first."""
    for force in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, force)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
