"""Real drivers at one sweep: one runs it, the next is told so, and takes over when it is gone."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.orchestrator.command_line import ended, finish, started, write_spec
from tests.orchestrator.processes import until
from tests.tracking.postgres import running_postgres
from tracking import MissingLedgerError, Outcome, TrialState
from tracking.ledger.ledger import Ledger

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500)]

URL = "TWO_DRIVERS_LEDGER"  #: Environment variable of the specification.
ENDLESS = {"epochs": 50_000}  #: Of the baseline: it trains until its driver is gone.


@pytest.fixture(params=["sqlite", "postgresql"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A place for a ledger, also in the environment of what is started."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/shared.db"
        else:
            url = stack.enter_context(running_postgres()).new_database()
        monkeypatch.setenv(URL, url)
        yield url


def running(url: str, epoch: int) -> bool:
    """Say whether a trial runs under the driver of this epoch."""
    try:
        with Ledger.open(url, create=False) as ledger:
            return any(
                sweep.epoch == epoch and ledger.counts(sweep.id)[TrialState.RUNNING] > 0
                for sweep in ledger.sweeps()
            )
    except MissingLedgerError:
        return False


def test_the_second_is_refused_and_takes_over_when_the_first_is_killed(
    tmp_path: Path, url: str
) -> None:
    tracking = {"ledger": f"${{{URL}}}", "mlflow": "off"}
    spec = write_spec(tmp_path, tracking=tracking, baseline=ENDLESS)
    with started(tmp_path, "run", spec, "--quiet") as first:
        until(lambda: first.poll() is not None or running(url, 1), "a trial to begin")
        assert first.poll() is None, first.communicate()
        code, out, err = ended(tmp_path, "resume", "tiny", "--ledger", f"${{{URL}}}")
        assert (code, out) == (2, "")
        assert f"The sweep 'tiny' is being run by process {first.pid} on" in err
        assert running(url, 1)
        with Ledger.open(url) as ledger:  # frozen, replaced by force, and awake again
            first.send_signal(signal.SIGSTOP)
            ledger.take_over("tiny", "its successor", by_force=True)
            first.send_signal(signal.SIGCONT)
            code, out, err = finish(first)
            assert (code, out) == (1, "")
            assert "taken over by its successor (epoch 2)" in err
            ledger.take_over("tiny", "nobody", by_force=True).lease.release()
    with started(tmp_path, "resume", "tiny", "--ledger", f"${{{URL}}}") as second:
        until(lambda: second.poll() is not None or running(url, 4), "a trial to begin again")
        assert second.poll() is None, second.communicate()
        second.kill()
        second.communicate()
    with started(tmp_path, "resume", "tiny", "--ledger", f"${{{URL}}}") as third:
        until(lambda: third.poll() is not None or running(url, 5), "a trial to begin once more")
        assert third.poll() is None, third.communicate()
        third.send_signal(signal.SIGINT)
        code, _, err = finish(third)
    assert code == 130, err
    with Ledger.open(url) as ledger:
        sweep = ledger.sweep("tiny")
        assert (sweep.epoch, sweep.state, ledger.lease(sweep.id)) == (5, "interrupted", None)
        assert {attempt.outcome for attempt in ledger.attempts(sweep.id)} == {Outcome.LOST}
