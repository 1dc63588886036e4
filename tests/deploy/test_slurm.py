"""The Slurm script for real, but for Slurm: `srun` and `scontrol` of one machine."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.commands.lookup import NoLedgerError, open_existing
from tests.deploy.files import DEPLOY, PROGRAMS
from tests.orchestrator.command_line import PATIENCE_S, TRIES, write_spec
from tests.orchestrator.processes import until
from tracking.records import SweepState, TrialState

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

#: Runs what it is given here; what Slurm would do with its own options is not tried.
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
if [ "$1" = hostname ]; then echo 127.0.0.1; exit; fi
exec "$@"
"""
SCONTROL = """#!/bin/sh
case $1 in
  show) echo node1 ;;
  requeue) echo "$2" >requeued ;;
esac
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator["Job"]:
    made = Job(tmp_path)
    yield made
    made.end()


class Job:
    """A folder to run the script in, as `sbatch --nodes=1` would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger = folder, f"sqlite:///{folder}/ledger.db"
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (folder / "prunesweep.env").write_text(f"PRUNESWEEP_LEDGER={self.ledger}\n")
        write_spec(
            folder,
            search={"trials": 12},
            tracking={"store": str(folder / "store"), "mlflow": "off"},
        )
        self._scripts: list[subprocess.Popen[bytes]] = []

    def start(self) -> "subprocess.Popen[bytes]":
        """Run the script until it is told to stop, or has done its work."""
        number = os.getpid() % 10000 + len(self._scripts)
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PRUNESWEEP_"))}
        environment = {
            **plain,
            "HOME": str(self.folder),
            "PATH": f"{self.folder}:{PROGRAMS}:{os.environ['PATH']}",
            "PRUNESWEEP_ENVIRONMENT": str(self.folder / "prunesweep.env"),
            "PRUNESWEEP_TEMPORARY": self._temporary(len(self._scripts)),
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NODELIST": "node1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_CPUS_PER_TASK": "2",
            "PYTHONWARNINGS": "ignore",
        }
        with (self.folder / f"slurm-{len(self._scripts)}.out").open("wb") as out:
            script = subprocess.Popen(
                [DEPLOY / "slurm.sh", "sweep.yaml"],
                cwd=self.folder,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._scripts.append(script)
        return script

    def _temporary(self, number: int) -> str:
        """Return where Ray keeps its files; paths of sockets have an end, so not in the folder."""
        return f"{tempfile.gettempdir()}/ray-slurm-{os.getpid()}-{number}"

    def is_under_way(self, script: "subprocess.Popen[bytes]") -> bool:
        """Say whether trials complete, or the script has ended."""
        return self.completed() >= 2 or script.poll() is not None

    def output(self) -> str:
        """Return what the last script wrote."""
        return (self.folder / f"slurm-{len(self._scripts) - 1}.out").read_text(errors="replace")

    def completed(self) -> int:
        """Return how many trials have completed."""
        try:
            with open_existing(self.ledger) as ledger:
                sweeps = ledger.sweeps()
                return ledger.counts(sweeps[0].id)[TrialState.COMPLETED] if sweeps else 0
        except NoLedgerError:
            return 0

    def end(self) -> None:
        """Leave nothing behind."""
        for script in self._scripts:
            if script.poll() is None:
                os.killpg(script.pid, signal.SIGKILL)
                script.wait()
        for number in range(len(self._scripts)):
            shutil.rmtree(self._temporary(number), ignore_errors=True)


def test_a_job_at_its_time_limit_is_queued_again_and_goes_on(job: Job) -> None:
    for _ in range(TRIES):  # Ray gives up on a machine that is too busy
        script = job.start()
        until(partial(job.is_under_way, script), "no trial completes")
        if "no Ray cluster answers" not in job.output():
            break
    assert script.poll() is None, job.output()
    (token,) = job.folder.glob(".prunesweep/job-*/token")
    assert token.stat().st_mode & 0o077 == 0
    script.send_signal(signal.SIGTERM)  # as Slurm does, to the script alone
    assert script.wait(timeout=PATIENCE_S) == 130, job.output()
    assert (job.folder / "requeued").exists()
    assert not token.exists()
    assert job.completed() < 16

    (job.folder / "requeued").unlink()
    for _ in range(TRIES):  # Ray gives up on a machine that is too busy
        status = job.start().wait(timeout=PATIENCE_S)
        if "no Ray cluster answers" not in job.output():
            break
    assert status == 0, job.output()
    assert not (job.folder / "requeued").exists()
    with open_existing(job.ledger) as ledger:
        (sweep,) = ledger.sweeps()
        assert sweep.state is SweepState.COMPLETED
        ends = [a.trial_id for a in ledger.attempts(sweep.id) if a.outcome == "completed"]
    assert len(ends) == len(set(ends)) == 16
