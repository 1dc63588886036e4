"""An artifact store that goes away under a running sweep: no trial fails of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.object_store import running_object_store, server_at
from tests.orchestrator.command_line import ended, finish, started, write_spec
from tests.orchestrator.loop.test_moved_ledger import is_reporting
from tests.orchestrator.processes import until
from tests.orchestrator.ray_cluster import free_ports
from tracking.artifacts import ArtifactStore
from tracking.ledger.ledger import Ledger
from tracking.records import TrialState

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500), pytest.mark.xdist_group("ray")]

FOLDER_AWAY_S, SERVER_AWAY_S = 5.0, 15.0  #: The latter outlasts what an S3 client tries by itself.
LONG = {"allow_chance": True, "epochs": 40}  #: Time to be disturbed in.


@contextmanager
def renamed(folder: Path) -> Iterator[None]:
    away = folder.with_name("away")
    folder.rename(away)
    yield
    away.rename(folder)


def checked(folder: Path) -> None:
    """See that every trial completed, and none was charged for what it could not help."""
    with Ledger.open(f"sqlite:///{folder}/prunesweep-data/ledger.db", create=False) as ledger:
        sweep = ledger.sweep("tiny")
        trials = ledger.trials(sweep.id)
        assert {trial.state for trial in trials} == {TrialState.COMPLETED}
        assert [trial.losses for trial in trials] == [0] * len(trials)


def test_a_folder_that_is_renamed_for_a_while_costs_time_only(tmp_path: Path) -> None:
    file = tmp_path / "prunesweep-data" / "ledger.db"
    spec = write_spec(
        tmp_path, tracking={"mlflow": "off", "artifacts": str(tmp_path / "store")}, baseline=LONG
    )
    with started(tmp_path, "run", spec) as driver:
        until(lambda: driver.poll() is not None or is_reporting(file), "a trial to report")
        assert driver.poll() is None, driver.communicate()
        with renamed(tmp_path / "store"):
            time.sleep(FOLDER_AWAY_S)
            assert not (tmp_path / "store").exists()
        code, _, err = finish(driver)
    assert code == 0, err
    checked(tmp_path)


@pytest.mark.slow  # as a full disk does, which is tried in every run
def test_a_store_that_stays_away_ends_the_sweep_and_no_trial(tmp_path: Path) -> None:
    file = tmp_path / "prunesweep-data" / "ledger.db"
    tracking = {"mlflow": "off", "artifacts": str(tmp_path / "store")}
    recovery = {"store_outage_s": 2.0}
    spec = write_spec(tmp_path, tracking=tracking, baseline=LONG, recovery=recovery)
    with started(tmp_path, "run", spec) as driver:
        until(lambda: driver.poll() is not None or is_reporting(file), "a trial to report")
        assert driver.poll() is None, driver.communicate()
        with renamed(tmp_path / "store"):
            code, out, err = finish(driver)
    assert (code, out) == (75, "")
    assert "no trial has failed of it" in err
    assert "Traceback" not in err
    code, _, err = ended(tmp_path, "run", spec)
    assert code == 0, err
    checked(tmp_path)


def test_an_object_store_that_is_down_for_a_while_costs_time_only(tmp_path: Path) -> None:
    file = tmp_path / "prunesweep-data" / "ledger.db"
    (port,) = free_ports(1)
    server = server_at(port)
    with running_object_store(server) as bucket:
        tracking = {"artifacts": f"{bucket}/sweeps", "mlflow": "off"}
        spec = write_spec(tmp_path, tracking=tracking, baseline=LONG)
        with started(tmp_path, "run", spec) as driver:
            until(lambda: driver.poll() is not None or is_reporting(file), "a trial to report")
            assert driver.poll() is None, driver.communicate()
            server.stop()
            time.sleep(SERVER_AWAY_S)
            again = server_at(port)
            again.start()
            code, _, err = finish(driver)
        assert code == 0, err
        assert ArtifactStore(f"{bucket}/sweeps").files("weights")
        checked(tmp_path)
        again.stop()
        server.start()  # for its own end
