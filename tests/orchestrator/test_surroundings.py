"""A sweep beside what others left in its way; and what it leaves, which others cannot read."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.cluster import connection
from orchestrator.specification.settings import ResourceSettings, TrackingSettings, told_if_open
from tests.checkout import ROOT
from tests.orchestrator.command_line import PATIENCE_S, TRIES, write_spec

NOBODY = "127.0.0.1:1"  #: Where no Ray listens.


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A sweep that has ended."""

    folder: Path
    temporary: Path
    code: int
    err: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Run a sweep with the usual umask, where files and variables speak of another Ray."""
    folder, temporary = tmp_path_factory.mktemp("sweep"), Path("/tmp") / f"pst-{os.getpid()}"
    (temporary / "ray").mkdir(parents=True)
    (temporary / "ray" / "ray_current_cluster").write_text(NOBODY)
    spec = write_spec(folder)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PRUNESWEEP_", "RAY_"))}
    environment = {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": NOBODY, "RAY_TMPDIR": str(temporary)}
    try:
        for _ in range(TRIES):  # Ray gives up on a machine that is too busy
            ended = subprocess.run(
                [sys.executable, "-m", "orchestrator", "run", spec],
                cwd=folder,
                env={**plain, **environment},
                capture_output=True,
                text=True,
                umask=0o022,
                timeout=PATIENCE_S,
                check=False,
            )
            if not ended.stderr.startswith("Ray could not start on this machine"):
                break
        yield Ran(folder=folder, temporary=temporary, code=ended.returncode, err=ended.stderr)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
class TestSweep:
    def test_it_starts_a_ray_of_its_own(self, ran: Ran) -> None:
        assert ran.code == 0, ran.err

    def test_nobody_else_reads_its_store(self, ran: Ran) -> None:
        store = ran.folder / "prunesweep-data"
        found = [store, *store.rglob("*")]
        assert {"ledger.db", "mlflow.db", "publisher.log"} <= {path.name for path in found}
        assert [str(path) for path in found if path.stat().st_mode & 0o077] == []

    def test_nobody_else_reads_what_ray_wrote(self, ran: Ran) -> None:
        folders = list(ran.temporary.glob("ray-*"))
        assert folders
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
        assert all(list(folder.glob("ray/session_*/logs")) for folder in folders)
        assert os.listdir(ran.temporary / "ray") == ["ray_current_cluster"]  # as it was found


@pytest.mark.parametrize("address", [None, "local"])
def test_ray_is_told_to_start_here_whatever_lies_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str | None
) -> None:
    class NotStartedError(Exception):
        """Stands in for a Ray that does not come up."""

    given: dict[str, Any] = {}

    def init(**arguments: Any) -> None:
        given.update(arguments)
        raise NotStartedError

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", NOBODY)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(connection.RayStartError):
        connection.connect(ResourceSettings(address=address))
    assert given["address"] == "local"


def test_a_store_that_others_read_is_told_of_once(tmp_path: Path) -> None:
    store = Path("/tmp") / f"pst-store-{os.getpid()}"  # a test's own folder is closed above
    tracking = TrackingSettings(store=str(store))
    try:
        assert told_if_open(tracking) is None
        store.mkdir(mode=0o755)
        store.chmod(0o755)
        told = told_if_open(tracking)
        assert told is not None
        assert f"{store} (0755)" in told
        assert stat.S_IMODE(store.stat().st_mode) == 0o755
    finally:
        store.rmdir()
