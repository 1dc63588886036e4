"""A disk that fills up under the artifact store: said clearly, nothing lost, gone on with later."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator.command_line import call, ended, facts, finish, started, write_spec
from tracking.ledger.ledger import Ledger
from tracking.records import TrialState

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]

SMALL, LARGE = "size=20m", "size=64m"  # a sweep begins only where 16 MiB are free
LEFT = 300_000  # bytes; the dense weights take 250k


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _until_there(file: Path, process: "subprocess.Popen[str]") -> None:
    """Wait for a sweep to have begun: its workers are still to come."""
    while not file.exists():
        assert process.poll() is None, finish(process)
        time.sleep(0.05)


def _fill(disk: Path) -> None:
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - LEFT))


def test_a_full_disk_ends_the_sweep_and_no_trial_and_it_goes_on_later(
    tmp_path: Path, disk: Path
) -> None:
    tracking = {"mlflow": "off", "artifacts": str(disk)}
    write_spec(tmp_path, tracking=tracking, recovery={"store_outage_s": 2.0})
    with started(tmp_path, "run", "sweep.yaml") as process:
        _until_there(tmp_path / "prunesweep-data" / "ledger.db", process)
        _fill(disk)
        code, out, err = finish(process)
    assert "No space left on device" in out + err
    assert "Traceback" not in err
    assert code == 75
    with Ledger.open(f"sqlite:///{tmp_path}/prunesweep-data/ledger.db") as ledger:
        before = {t.uid: t for t in ledger.trials(ledger.sweep("tiny").id)}
        states = {t.state for t in before.values()}
        assert TrialState.PENDING in states
        assert states <= {TrialState.PENDING, TrialState.COMPLETED}
        assert not any(t.losses for t in before.values())
    assert not [path for path in disk.rglob("*") if "checkpoints" in path.parts and path.is_file()]
    subprocess.run(["mount", "-o", f"remount,{LARGE}", str(disk)], check=True)
    code, out, err = ended(tmp_path, "run", "sweep.yaml")
    assert code == 0, err
    with Ledger.open(f"sqlite:///{tmp_path}/prunesweep-data/ledger.db") as ledger:
        trials = ledger.trials(ledger.sweep("tiny").id)
        assert {t.state for t in trials} == {TrialState.COMPLETED}
        assert len({t.uid for t in trials}) == len(trials)
        for trial in trials:
            old = before.get(trial.uid)
            if old is not None and old.state is TrialState.COMPLETED:
                assert trial.result == old.result
    assert facts("status", "tiny", "--store", tmp_path / "prunesweep-data")
    assert call("compare", "tiny", "--store", tmp_path / "prunesweep-data").exit_code == 0
