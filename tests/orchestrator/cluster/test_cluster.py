"""Sweeps on a real cluster: two nodes by `ray start`, a token, PostgreSQL, code that travels."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from tests.checkout import ROOT
from tests.orchestrator.command_line import PATIENCE_S, write_spec
from tests.orchestrator.ray_cluster import RayCluster, running_cluster
from tests.tracking.postgres import PostgresServer
from tracking.ledger.ledger import Ledger
from tracking.records import TrialState

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]

#: A network that says where it, and prunesweep, were imported from; and waits where it is told to.
NETWORK = """
import time
from pathlib import Path
import workers
from workers.models import build_model
from workers.settings import ModelSettings

def net(note, num_classes, in_channels):
    with Path(note).open("a") as file:
        print(workers.__file__, __file__, file=file)
    while Path(note + ".hold").exists() and "working_dir_files" in __file__:  # on nodes alone
        time.sleep(0.1)
    return build_model(ModelSettings(name="digits_net"), num_classes, in_channels)
"""


@pytest.fixture(scope="module")
def ledger(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture(scope="module")
def cluster(ledger: str) -> Iterator[RayCluster]:
    with running_cluster(PRUNESWEEP_LEDGER=ledger, RAY_JOB_STOP_WAIT_TIME_S="60") as running:
        yield running


class Laptop:
    """A machine with prunesweep, the specification and the network's code."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.note = folder, folder / "note"
        code = folder / "code"  # not the current folder, which Ray shows to workers beside it
        code.mkdir()
        (code / "mine.py").write_text(NETWORK)
        self.environment = {**environment, "PYTHONPATH": f"{ROOT}:{code}"}
        write_spec(
            folder,
            model={"name": "mine:net", "arguments": {"note": str(self.note)}},
            tracking={
                "store": str(folder / "store"),
                "ledger": "${PRUNESWEEP_LEDGER}",
                "mlflow": "off",
                "artifacts": str(folder / "artifacts"),
            },
        )

    def call(self, verb: str, *arguments: str, **changes: str | None) -> tuple[int, str, str]:
        environment: dict[str, str | None] = {**self.environment, **changes}
        run = subprocess.run(
            [sys.executable, "-m", "orchestrator", verb, "sweep.yaml", *arguments],
            cwd=self.folder,
            env={key: value for key, value in environment.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return run.returncode, run.stdout, run.stderr

    def imported_from(self) -> set[str]:
        """Return the kinds of folder that networks were built from."""
        lines = self.note.read_text().splitlines() if self.note.exists() else []
        kinds = ("py_modules_files", "working_dir_files")
        return {
            next((kind for kind in kinds if all(kind in f for f in line.split())), "here")
            for line in lines
            if str(self.folder / "code") not in line
        }

    @property
    def tried(self) -> bool:
        """Say whether the network was built on this machine itself."""
        return self.note.exists() and str(self.folder / "code") in self.note.read_text()


@pytest.fixture
def laptop(tmp_path: Path, cluster: RayCluster) -> Laptop:
    return Laptop(tmp_path, cluster.environment)


def attempts(url: str, name: str) -> list[Any]:
    with Ledger.open(url) as opened:
        return opened.attempts(opened.sweep(name).id)


def test_a_driver_on_a_node_sends_its_code_to_the_workers(
    laptop: Laptop, cluster: RayCluster, ledger: str
) -> None:
    address = f"127.0.0.1:{cluster.port}"
    code, out, err = laptop.call(
        "run", "name=driven", "--address", address, PRUNESWEEP_LEDGER=ledger
    )
    assert code == 0, err
    assert out.startswith("driven (completed)")
    assert laptop.tried
    assert laptop.imported_from() == {"py_modules_files"}


def _later(*values: Any) -> ParameterSet:
    """Leave a case to the slow tests."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("verb", "changes", "problem"),
    [
        ("run", {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN_PATH": None}, "it wants a token"),
        _later("run", {"RAY_AUTH_TOKEN": "0" * 64}, "its token is another one"),
        _later("run", {"RAY_AUTH_TOKEN_PATH": None}, "no token was found"),
        ("submit", {"RAY_AUTH_MODE": None}, "Missing authentication token"),
        _later("submit", {"RAY_AUTH_TOKEN": "0" * 64}, "Invalid authentication token"),
    ],
)
def test_nobody_is_let_in_without_the_token(
    laptop: Laptop,
    cluster: RayCluster,
    ledger: str,
    verb: str,
    changes: Mapping[str, str | None],
    problem: str,
) -> None:
    address = cluster.dashboard if verb == "submit" else f"127.0.0.1:{cluster.port}"
    more = ["--shared-paths"] if verb == "submit" else []
    # the token of a file in the home folder would be found, too
    environment = {"HOME": str(laptop.folder), "PRUNESWEEP_LEDGER": ledger, **changes}
    code, out, err = laptop.call(verb, "name=refused", "--address", address, *more, **environment)
    assert (code, out) == (2, "")
    assert f"{address!r} turns this machine away: " in err
    assert problem in err
    assert "Export RAY_AUTH_MODE=token" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_job_has_its_code_and_is_continued_by_the_next(
    laptop: Laptop, cluster: RayCluster, ledger: str
) -> None:
    arguments = ["name=sent", "--address", cluster.dashboard, "--shared-paths"]
    arguments.append("search.trials=12")
    hold = Path(f"{laptop.note}.hold")
    hold.touch()
    code, out, err = laptop.call("submit", *arguments, "--code", "--json")
    assert (code, err) == (0, "")
    first = json.loads(out)
    assert first["needs"] == ["PRUNESWEEP_LEDGER"]
    code, out, err = laptop.call("submit", *arguments)
    assert (code, out) == (2, "")
    assert f"The sweep 'sent' is run by job {first['job']} already." in err
    hold.unlink()
    _until_completed(2, ledger, "sent")
    hold.touch()
    _stop(cluster, first["job"])
    assert laptop.imported_from() == {"working_dir_files"}

    hold.unlink()
    code, out, err = laptop.call("submit", *arguments, "--follow")
    assert code == 0, out + err
    assert "sent (completed)" in out
    ended = attempts(ledger, "sent")
    completed = [attempt.trial_id for attempt in ended if attempt.outcome == "completed"]
    assert len(completed) == len(set(completed)) == 16
    assert laptop.imported_from() == {"working_dir_files", "here"}  # prunesweep of the nodes


def test_a_job_is_followed_to_its_end(laptop: Laptop, cluster: RayCluster, ledger: str) -> None:
    where = ("--address", cluster.dashboard, "--shared-paths", "--follow")
    code, out, err = laptop.call("submit", "name=followed", *where, "--code")
    assert code == 0, out + err
    assert "followed (completed)" in out
    assert {attempt.outcome for attempt in attempts(ledger, "followed")} == {"completed"}
    assert laptop.tried  # before the job was sent
    assert laptop.imported_from() == {"working_dir_files"}


def test_the_health_checks_of_the_manifests_need_no_token(cluster: RayCluster) -> None:
    head, worker = "/api/gcs_healthz", "/api/local_raylet_healthz"
    manifest = (ROOT / "deploy" / "kuberay" / "raycluster.yaml").read_text()
    assert all(f"path: {path}," in manifest for path in (head, worker))
    for url in (cluster.dashboard + head, cluster.agent + worker):
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.read() == b"success"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=60)


@pytest.mark.slow
def test_a_job_that_fails_ends_with_its_exit_code(laptop: Laptop, cluster: RayCluster) -> None:
    arguments = ["model.name=gone:net", "--address", cluster.dashboard, "--shared-paths"]
    code, out, _ = laptop.call("submit", "name=failing", *arguments, "--follow")
    assert code == 2
    assert "No module named 'gone'" in out


def test_a_dashboard_that_is_not_there_is_named(laptop: Laptop) -> None:
    code, out, err = laptop.call("submit", "--address", "http://127.0.0.1:1", "--shared-paths")
    assert (code, out) == (2, "")
    assert err.startswith(
        "The Ray cluster at 'http://127.0.0.1:1' takes no job: Connection refused."
    )


def _stop(cluster: RayCluster, job: str) -> None:
    subprocess.run(
        ["ray", "job", "stop", "--address", cluster.dashboard, job],
        env={**cluster.environment, "PYTHONWARNINGS": "ignore"},
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )


def _until_completed(count: int, url: str, name: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with Ledger.open(url) as opened:
        while time.monotonic() < deadline:
            found = [sweep for sweep in opened.sweeps() if sweep.name == name]
            if found and opened.counts(found[0].id)[TrialState.COMPLETED] >= count:
                return
            time.sleep(0.5)
    raise TimeoutError(f"not {count} trials of {name} within {PATIENCE_S} s")
