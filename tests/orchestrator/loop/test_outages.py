"""A ledger that goes away: its driver waits for it, and gives up when that takes too long."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import LedgerLostError
from orchestrator.loop.outages import Outages
from tests.orchestrator.command_line import finish, started, write_spec
from tests.orchestrator.processes import until
from tests.tracking.postgres import PostgresServer, running_postgres
from tracking import LedgerUnreachableError, Loss, SweepHeldError, TrialState
from tracking.ledger.ledger import Ledger

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

URL = "OUTAGE_LEDGER"  #: Environment variable of the specification.
AWAY_S = 3.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database, also in the environment of what is started."""
    server.start()  # again, after a test that ended it
    url = server.new_database()
    monkeypatch.setenv(URL, url)
    return url


def spec_in(folder: Path, patience_s: float, **changes: Any) -> Path:
    """Write a sweep of some seconds whose ledger is the server's."""
    tracking = {"ledger": f"${{{URL}}}", "mlflow": "off"}
    recovery = {"ledger_outage_s": patience_s}
    return write_spec(folder, tracking=tracking, recovery=recovery, **changes)


def reports(url: str) -> int:
    """Return how many values the running trials have reported; 0: none runs."""
    with Ledger.open(url) as ledger:
        return sum(
            len(ledger.metrics(trial.id, attempt.n))
            for sweep in ledger.sweeps()
            for trial in ledger.trials(sweep.id, TrialState.RUNNING)
            for attempt in ledger.attempts(sweep.id)
            if attempt.trial_id == trial.id
        )


@pytest.mark.slow  # test_chaos kills PostgreSQL in every run
def test_a_sweep_waits_for_its_ledger_and_goes_on(
    tmp_path: Path, server: PostgresServer, url: str
) -> None:
    spec = spec_in(tmp_path, 120.0, baseline={"epochs": 60})  # time to be disturbed in
    with started(tmp_path, "run", spec) as driver:
        until(lambda: driver.poll() is not None or reports(url) > 0, "a trial to report")
        assert driver.poll() is None, driver.communicate()
        server.end(signal.SIGKILL)
        time.sleep(AWAY_S)
        assert driver.poll() is None
        server.start()
        code, _, err = finish(driver)
    assert code == 0, err
    assert "Waiting for it, 120 s at most." in err
    assert "The ledger is back after" in err
    with Ledger.open(url, create=False) as ledger:
        sweep = ledger.sweep("tiny")
        states = {trial.state for trial in ledger.trials(sweep.id)}
        lost = [a for a in ledger.attempts(sweep.id) if a.loss is not None]
        assert (sweep.state, sweep.epoch) == ("completed", 2)  # one driver took it twice
        assert states == {TrialState.COMPLETED}
        assert [attempt.loss for attempt in lost] == [Loss.DRIVER]


@pytest.mark.slow
def test_a_sweep_ends_when_its_ledger_stays_away_and_can_be_continued(
    tmp_path: Path, server: PostgresServer, url: str
) -> None:
    spec = spec_in(tmp_path, 2.0, baseline={"epochs": 50_000})
    with started(tmp_path, "run", spec) as driver:
        until(lambda: driver.poll() is not None or reports(url) > 0, "a trial to report")
        assert driver.poll() is None, driver.communicate()
        server.end(signal.SIGKILL)
        code, out, err = finish(driver)
    assert (code, out) == (75, "")
    assert "The sweep 'tiny' has stopped; run the same command again" in err
    assert "Traceback" not in err
    server.start()
    with Ledger.open(url, create=False) as ledger:
        assert ledger.take_over("tiny", "the next one").epoch == 2  # whose process has ended


class TestWaiting:
    """Without a sweep: what the driver holds and hears."""

    @pytest.fixture
    def ledger(self, url: str) -> Iterator[Ledger]:
        with Ledger.open(url) as ledger:
            ledger.create_sweep("tiny", {}, "hash")
            yield ledger

    def outages(self, ledger: Ledger, patience_s: float, heard: list[str]) -> Outages:
        return Outages(ledger, "tiny", "a driver", patience_s, heard.append)

    def test_its_own_lease_does_not_keep_it_out(self, ledger: Ledger) -> None:
        heard: list[str] = []
        writer = ledger.take_over("tiny", "a driver")
        error = LedgerUnreachableError(ledger.url, "refused")
        again = self.outages(ledger, 60.0, heard).outlast(writer, error)
        assert again.epoch == writer.epoch + 1
        assert [line[:27] for line in heard] == [str(error)[:27], "The ledger is back after 1 "]

    def test_a_sweep_that_another_driver_took_stays_with_it(self, ledger: Ledger) -> None:
        writer = ledger.take_over("tiny", "a driver")
        ledger.take_over("tiny", "another", by_force=True)
        error = LedgerUnreachableError(ledger.url, "refused")
        with pytest.raises(SweepHeldError, match="is being run by"):
            self.outages(ledger, 60.0, []).outlast(writer, error)

    def test_one_that_comes_back_for_moments_only_is_given_up(self, ledger: Ledger) -> None:
        writer = ledger.take_over("tiny", "a driver")
        error = LedgerUnreachableError(ledger.url, "no space left")
        outages = self.outages(ledger, 2.5, [])
        writer = outages.outlast(outages.outlast(writer, error), error)
        with pytest.raises(LedgerLostError, match="no space left"):
            outages.outlast(writer, error)

    def test_nothing_is_waited_for_without_patience(self, ledger: Ledger) -> None:
        heard: list[str] = []
        writer = ledger.take_over("tiny", "a driver")
        error = LedgerUnreachableError(ledger.url, "refused")
        with pytest.raises(LedgerLostError, match="run the same command again"):
            self.outages(ledger, 0.0, heard).outlast(writer, error)
        assert heard == []
