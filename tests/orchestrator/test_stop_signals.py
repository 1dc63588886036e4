"""A sweep that is told to stop while its workers are hired ends with 130 and in order."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.commands.lookup import NoLedgerError, open_existing
from tests.orchestrator.command_line import finish, started, write_spec
from tests.orchestrator.processes import until
from tracking import SweepState

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]


def state(folder: Path) -> SweepState | None:
    with (
        suppress(NoLedgerError),
        open_existing(f"sqlite:///{folder}/prunesweep-data/ledger.db") as ledger,
    ):
        return next((sweep.state for sweep in ledger.sweeps()), None)
    return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["kill", "hang-up"])
def test_a_sweep_that_hires_its_workers_is_left_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    spec = write_spec(tmp_path, tracking={"mlflow": "off"})
    with started(tmp_path, "run", spec) as process:
        until(lambda: state(tmp_path) is not None or process.poll() is not None, "a sweep")
        if number is signal.SIGHUP:  # a terminal tells all that was started from it
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].startswith("Stopped. To go on: prunesweep resume tiny")
    assert "Traceback" not in err
    assert "SIGTERM received" not in err
    assert state(tmp_path) is SweepState.INTERRUPTED
