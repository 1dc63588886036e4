"""A driver whose machine's clock is put forward and back by hours while its sweep runs."""

import subprocess
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT
from tests.orchestrator.command_line import call, facts
from tests.orchestrator.processes import RealSweep, until
from tests.orchestrator.ray_cluster import HERE, running_cluster
from tests.orchestrator.simulation import SECONDS
from tests.orchestrator.sweeps import BASE, Bench, specification, without_device
from tracking.records import Outcome

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

FIELDS: dict[str, Any] = {
    **BASE,
    "search": {"trials": 12, "window": 3},
    "tracking": {"mlflow": "off"},
}
JUMP = timedelta(hours=3)
LIBRARIES = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")


def clock_library() -> Path:
    """Find what lets one process have a clock of its own."""
    for folder in LIBRARIES:
        for found in sorted(Path(folder).glob("**/libfaketime*.so.1")):
            if "MT" in found.name:  # safe with threads
                return found
    pytest.skip("needs libfaketime, Debian's package faketime")


def test_a_clock_that_jumps_costs_nothing(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    variables = {
        "LD_PRELOAD": str(clock_library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # no real clock of that kind ever jumps
    }
    with running_cluster(nodes=1, host=HERE, PYTHONPATH=str(ROOT), **{SECONDS: "0.5"}) as cluster:
        sweep = RealSweep(tmp_path / "sweep", FIELDS, cluster=cluster, variables=variables)
        with sweep.driver() as driver:
            for trials, shift in ((6, JUMP), (14, -JUMP), (22, timedelta(0))):
                until(partial(is_due, sweep, driver, trials), f"{trials} trials")
                assert driver.poll() is None, sweep.words()
                clock.write_text(f"{shift.total_seconds():+.0f}")
            assert driver.wait(600) == 0, sweep.words()
    attempts = sweep.attempts()
    moments = [attempt.started_at for attempt in attempts]
    assert max(moments) - min(moments) > 1.5 * JUMP  # the clock did jump under it
    assert {attempt.outcome for attempt in attempts} == {Outcome.COMPLETED}
    assert len(attempts) == len({attempt.trial_id for attempt in attempts})

    quiet = Bench(tmp_path / "quiet")
    assert quiet.drive(specification(**FIELDS)).over
    assert without_device(sweep.bench().content()) == without_device(quiet.content())
    assert facts("status", "sweep", "--store", sweep.store)["state"] == "completed"
    assert call("compare", "sweep", "--store", sweep.store).exit_code == 0


def is_due(sweep: RealSweep, driver: "subprocess.Popen[bytes]", trials: int) -> bool:
    """Say whether so many trials have completed, or there is nothing more to wait for."""
    done = sum(attempt.outcome is Outcome.COMPLETED for attempt in sweep.attempts())
    return driver.poll() is not None or done >= trials
