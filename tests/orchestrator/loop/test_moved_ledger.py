"""A ledger's file that is removed or moved under a running sweep: an outage, named and survived."""

from pathlib import Path

import pytest

from tests.orchestrator.command_line import ended, finish, started, write_spec
from tests.orchestrator.processes import until
from tracking import MissingLedgerError, TrialState
from tracking.ledger.ledger import Ledger

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500), pytest.mark.xdist_group("ray")]


def is_reporting(file: Path) -> bool:
    """Say whether a trial of the sweep runs and has reported."""
    try:
        with Ledger.open(f"sqlite:///{file}", create=False) as ledger:
            return any(
                ledger.metrics(trial.id)
                for sweep in ledger.sweeps()
                for trial in ledger.trials(sweep.id, TrialState.RUNNING)
            )
    except MissingLedgerError:
        return False


def spec_in(folder: Path, patience_s: float) -> Path:
    return write_spec(
        folder,
        tracking={"mlflow": "off"},
        recovery={"ledger_outage_s": patience_s},
        baseline={"allow_chance": True, "epochs": 60},  # time to be disturbed in
    )


def remove(file: Path) -> None:
    for part in file.parent.glob("ledger.db*"):
        part.unlink()


def test_removed_it_is_rescued_and_put_back_the_sweep_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "prunesweep-data" / "ledger.db"
    with started(tmp_path, "run", spec_in(tmp_path, 300.0)) as driver:
        until(lambda: driver.poll() is not None or is_reporting(file), "a trial to report")
        assert driver.poll() is None, driver.communicate()
        remove(file)
        until(lambda: bool(list(file.parent.glob("ledger.db.rescued-*"))), "a rescue")
        assert not file.exists()
        (rescued,) = file.parent.glob("ledger.db.rescued-*[0-9]")
        rescued.rename(file)
        code, _, err = finish(driver)
    assert code == 0, err
    assert "its file was removed or moved while it was in use" in err
    assert "All that the removed ledger held is saved in" in err
    assert "The ledger is back after" in err
    with Ledger.open(f"sqlite:///{file}", create=False) as ledger:
        sweep = ledger.sweep("tiny")
        assert (sweep.state, sweep.epoch) == ("completed", 2)
        assert {t.state for t in ledger.trials(sweep.id)} == {TrialState.COMPLETED}


def test_removed_for_good_the_sweep_is_not_said_to_be_over(tmp_path: Path) -> None:
    file = tmp_path / "prunesweep-data" / "ledger.db"
    spec = spec_in(tmp_path, 2.0)
    with started(tmp_path, "run", spec, "--quiet") as driver:
        until(lambda: driver.poll() is not None or is_reporting(file), "a trial to report")
        assert driver.poll() is None, driver.communicate()
        remove(file)
        code, out, err = finish(driver)
    assert (code, out) == (75, "")
    assert "its file was removed or moved while it was in use" in err  # quiet or not
    assert "The sweep 'tiny' has stopped; run the same command again" in err
    assert not file.exists()
    (rescued,) = file.parent.glob("ledger.db.rescued-*[0-9]")
    code, out, err = ended(tmp_path, "run", spec, "--quiet")  # none is made anew
    assert (code, out) == (2, "")
    assert f"or rename {rescued.name}" in err
    assert not file.exists()
