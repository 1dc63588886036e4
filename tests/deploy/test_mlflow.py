"""The MLflow server of the Compose file, started by its own command and environment."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.files import PROGRAMS, interpolated, read
from tests.orchestrator.processes import until
from tests.orchestrator.ray_cluster import free_ports
from tests.tracking.postgres import PASSWORD, PostgresServer
from tracking.artifacts import ArtifactStore
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.publisher import Publisher
from tracking.mlflow_mirror.server import why_silent
from tracking.places import Place, Role

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SECRETS = {
    "POSTGRES_PASSWORD": PASSWORD,
    "S3_SECRET_KEY": "unused",
    "MLFLOW_PASSWORD": "a-password-for-mlflow",
    "MLFLOW_COOKIE_KEY": "a-key-for-cookies",
    "RAY_AUTH_TOKEN": "unused",
}
SEARCH = "api/2.0/mlflow/experiments/search?max_results=1"


@dataclass(frozen=True, kw_only=True)
class Served:
    """The server, where it listens now."""

    port: int
    health: str  #: Shell command of the health check.
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self, path: str, password: str | None, host: str | None = None) -> int:
        """Return the HTTP status of a call."""
        request = urllib.request.Request(f"{self.url}/{path}")
        if password is not None:
            word = b64encode(f"admin:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        if host is not None:
            request.add_header("Host", host)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@contextmanager
def serving(folder: Path, postgres: PostgresServer) -> Iterator[Served]:
    """Start what the Compose file describes, with addresses of this machine in place of its own."""
    (port,) = free_ports(1)

    def here(text: str) -> str:
        filled = interpolated(text, SECRETS)
        for old, new in {
            "//prunesweep:": "//ledger:",
            "@postgres:5432": f"@127.0.0.1:{postgres.port}",
            "0.0.0.0": "127.0.0.1",
            "s3://mlflow": f"{folder}/artifacts",
            "http://mlflow:5000": f"http://127.0.0.1:{port}",
            "/etc/mlflow-auth.ini": f"{folder}/mlflow-auth.ini",
            "5000": str(port),
        }.items():
            filled = filled.replace(old, new)
        return filled

    document = read("compose.yaml")
    service, configs = document["services"]["mlflow"], document["configs"]
    for statement in configs["databases"]["content"].strip().splitlines():
        postgres.execute(statement)
    (folder / "mlflow-auth.ini").write_text(here(configs["mlflow-auth"]["content"]))
    environment = {key: here(value) for key, value in service["environment"].items()}
    program, *arguments = map(here, service["command"])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAMS / program, *arguments],
            cwd=folder,
            env={**os.environ, **environment, "PYTHONWARNINGS": "ignore"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    health = here(service["healthcheck"]["test"][1])
    served = Served(port=port, health=health, environment=environment)
    try:
        until(lambda: process.poll() is not None or _answers(served), "MLflow does not answer")
        assert process.poll() is None, (folder / "log").read_text()
        yield served
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def _answers(served: Served) -> bool:
    try:
        return served.status(SEARCH, SECRETS["MLFLOW_PASSWORD"]) == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("mlflow"), postgres) as server:
        yield server


@pytest.mark.parametrize(
    ("password", "host", "status"),
    [
        (SECRETS["MLFLOW_PASSWORD"], None, 200),
        (SECRETS["MLFLOW_PASSWORD"], "mlflow", 200),
        (SECRETS["MLFLOW_PASSWORD"], "elsewhere.example", 403),
        (None, None, 401),
        (None, "mlflow", 401),
        ("another", None, 401),
        ("password1234", None, 401),
    ],
)
def test_only_known_users_and_hosts_are_let_in(
    served: Served, password: str | None, host: str | None, status: int
) -> None:
    named = None if host is None else f"{host}:{served.port}"
    assert served.status(SEARCH, password, named) == status


def test_passwords_are_not_on_the_command_line() -> None:
    command = " ".join(read("compose.yaml")["services"]["mlflow"]["command"])
    assert "${" not in command
    assert "postgres" not in command


@pytest.mark.skipif(shutil.which("wget") is None, reason="wget is not installed")
@pytest.mark.parametrize(("password", "healthy"), [(None, True), ("another", False)])
def test_the_health_check_makes_a_real_call(
    served: Served, password: str | None, healthy: bool
) -> None:
    changed = {} if password is None else {"MLFLOW_AUTH_ADMIN_PASSWORD": password}
    run = subprocess.run(
        ["sh", "-c", served.health],
        env={**os.environ, **served.environment, **changed},
        capture_output=True,
        check=False,
    )
    assert (run.returncode == 0) == healthy, run.stderr


def test_a_sweep_is_published_by_somebody_who_has_the_password(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.create_sweep("guarded", {}, "hash")
        writer = ledger.take_over("guarded", "test")
        trial = writer.want(Place(Role.BASELINE, index=0), "uid", {"seed": 0})[1].id
        writer.complete(trial, writer.start(trial, "node", 1), {"macs": 5, "plan": {}})
        store = ArtifactStore(tmp_path / "artifacts")
        locked_out = Publisher(ledger, served.url, store)
        locked_out.publish_all()
        assert locked_out.trouble is not None
        assert why_silent(served.url) == "Unauthorized"

        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRETS["MLFLOW_PASSWORD"])
        publisher = Publisher(ledger, served.url, store)
        publisher.publish_all()
        assert publisher.trouble is None
        assert why_silent(served.url) is None
        run_id = ledger.sweep("guarded").run_id
    assert run_id is not None
    assert served.status(f"api/2.0/mlflow/runs/get?run_id={run_id}", None) == 401
    assert served.status(f"api/2.0/mlflow/runs/get?run_id={run_id}", "a-password-for-mlflow") == 200
