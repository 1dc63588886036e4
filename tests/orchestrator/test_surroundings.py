"""A sweep beside what others left in its way; and what it leaves, which others cannot read."""

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from orchestrator.cluster import connection
from orchestrator.errors import SpecError
from orchestrator.specification.settings import ResourceSettings, TrackingSettings, told_if_open
from tests.checkout import ROOT
from tests.orchestrator.command_line import PATIENCE_S, TRIES, write_spec
from tests.orchestrator.listeners import LOOPBACK, Listener, listeners

NOBODY = "127.0.0.1:1"  #: Where no Ray listens.


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A sweep that has ended."""

    folder: Path
    temporary: Path
    home: Path
    code: int
    err: str
    listened: frozenset[Listener]
    answered_anybody: frozenset[str]  #: Names of processes.


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Run a sweep with the usual umask, where files and variables speak of another Ray."""
    folder, temporary = tmp_path_factory.mktemp("sweep"), Path("/tmp") / f"pst-{os.getpid()}"
    home = tmp_path_factory.mktemp("home")
    (temporary / "ray").mkdir(parents=True)
    (temporary / "ray" / "ray_current_cluster").write_text(NOBODY)
    spec = write_spec(folder)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PRUNESWEEP_", "RAY_"))}
    environment = {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": NOBODY, "RAY_TMPDIR": str(temporary)}
    environment["HOME"] = str(home)
    try:
        for _ in range(TRIES):  # Ray gives up on a machine that is too busy
            with subprocess.Popen(
                [sys.executable, "-m", "orchestrator", "run", spec],
                cwd=folder,
                env={**plain, **environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                umask=0o022,
            ) as process:
                listened, answered = _watched(process)
                err = process.communicate(timeout=PATIENCE_S)[1]
            if not err.startswith("Ray could not start on this machine"):
                break
        yield Ran(
            folder=folder,
            temporary=temporary,
            home=home,
            code=process.returncode,
            err=err,
            listened=frozenset(listened),
            answered_anybody=frozenset(answered),
        )
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _watched(process: "subprocess.Popen[str]") -> tuple[set[Listener], set[str]]:
    """Look who listens until a sweep ends, and which of them answers without a token."""
    found: dict[tuple[int, int], Listener] = {}
    answered: set[tuple[int, int]] = set()
    while process.poll() is None:
        now = {(one.pid, one.port): one for one in listeners(process.pid)}
        answered |= {key for key in now.keys() - found if now[key].answers_anybody}
        found |= now  # by the name that a process has in the end
        time.sleep(0.2)
    return set(found.values()), {found[key].process for key in answered}


def named(cell: str) -> list[str]:
    """Return what stands in back quotes."""
    return re.findall(r"`([^`]+)`", cell)


def page_rows(title: str) -> list[list[str]]:
    """Return the cells of the table below a title of the page on security."""
    section = (ROOT / "docs" / "security.md").read_text().partition(f"## {title}\n")[2]
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
class TestSweep:
    def test_it_starts_a_ray_of_its_own(self, ran: Ran) -> None:
        assert ran.code == 0, ran.err

    def test_nobody_else_reads_its_store(self, ran: Ran) -> None:
        store = ran.folder / "prunesweep-data"
        found = [store, *store.rglob("*")]
        assert {"ledger.db", "mlflow.db", "publisher.log"} <= {path.name for path in found}
        assert {f"{stat.S_IMODE(p.stat().st_mode):04o}" for p in found if p.is_file()} == {"0600"}
        assert {f"{stat.S_IMODE(p.stat().st_mode):04o}" for p in found if p.is_dir()} == {"0700"}
        assert page_rows("What is written")[0][1] == "0600 in 0700"

    def test_nobody_else_reads_the_token(self, ran: Ran) -> None:
        token = ran.home / ".ray" / "auth_token"
        assert [stat.S_IMODE(p.stat().st_mode) for p in (token, token.parent)] == [0o600, 0o700]
        assert ["`~/.ray/auth_token`", "0600 in 0700", "you"] in page_rows("What is written")

    def test_all_ports_are_on_loopback(self, ran: Ran) -> None:
        assert {one.address for one in ran.listened} <= LOOPBACK

    def test_who_listens_is_what_the_page_says(self, ran: Ran) -> None:
        most = {name: int(row[1]) for row in page_rows("What listens") for name in named(row[0])}
        found = Counter((one.process, one.pid) for one in ran.listened)
        told = {one: next((n for n in most if one[0].startswith(n[:15])), None) for one in found}
        assert [one for one, name in told.items() if name is None] == []
        assert {one: n for one, n in found.items() if n > most[str(told[one])]} == {}
        needed = {"python", "gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}
        assert needed <= {str(name) for name in told.values()}

    def test_who_answers_without_a_token_is_what_the_page_says(self, ran: Ran) -> None:
        rows = [row for row in page_rows("What listens") if row[2] != "yes"]
        told = {name[:15] for row in rows for name in named(row[0])}
        # Another Ray on the machine has the fixed ports, and then fewer of this one listen.
        assert {"ray::DashboardA"} <= ran.answered_anybody <= told

    def test_nobody_else_reads_what_ray_wrote(self, ran: Ran) -> None:
        folders = list(ran.temporary.glob("ray-*"))
        assert folders
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
        assert all(list(folder.glob("ray/session_*/logs")) for folder in folders)
        assert os.listdir(ran.temporary / "ray") == ["ray_current_cluster"]  # as it was found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"device": "cuda"}, "resources.device: is cuda, and torch finds no GPU"),
        ({"gpu_share": 0.5}, r"resources.gpu_share: is 0.5, and torch finds 0 GPU\(s\)"),
    ],
)
def test_gpus_that_are_not_there_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SpecError, match=says):
        connection.check_gpus_here(ResourceSettings(**given))
    connection.check_gpus_here(ResourceSettings(**given, address="10.0.0.1:6379"))
    connection.check_gpus_here(ResourceSettings())


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
