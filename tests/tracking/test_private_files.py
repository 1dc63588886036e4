"""What a store holds is its owner's: files 0600 in folders 0700, unless a folder is shared."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracking.artifacts import ArtifactStore
from tracking.database_url import sqlite_url
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.server import prepare_store
from tracking.private_files import make_folder, open_to_others
from workers.files import file_lock


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """Return a folder that others may enter, as homes often are."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    return folder


def modes(folder: Path) -> dict[str, str]:
    """Return the mode of each file and folder below, by its path."""
    return {
        str(path.relative_to(folder)): f"{stat.S_IMODE(path.stat().st_mode):04o}"
        for path in folder.rglob("*")
    }


def test_a_ledger_and_what_sqlite_puts_beside_it(open_folder: Path) -> None:
    with Ledger.open(f"sqlite:///{open_folder}/store/ledger.db") as ledger:
        ledger.create_sweep("mine", {}, "hash")
        found = modes(open_folder)
    assert found == {
        "store": "0700",
        **{f"store/ledger.db{end}": "0600" for end in ("", "-wal", "-shm", ".made")},
    }


def test_artifacts_and_all_folders_above_them_that_were_missing(open_folder: Path) -> None:
    store = ArtifactStore(open_folder / "a" / "b")
    store.write_bytes("trials/1/plan.json", b"{}")
    (open_folder / "source").write_bytes(b"x")
    store.put_file(open_folder / "source", "trials/1/copy")
    found = modes(open_folder / "a")
    assert {path: mode for path, mode in found.items() if "." in path or "copy" in path} == {
        "b/trials/1/plan.json": "0600",
        "b/trials/1/copy": "0600",
    }
    assert {found[path] for path in ("b", "b/trials", "b/trials/1")} == {"0700"}
    assert stat.S_IMODE((open_folder / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE(open_folder.stat().st_mode) == 0o755


def test_locks_of_the_cache(open_folder: Path) -> None:
    with file_lock(open_folder / "cache" / "locks" / "one"):
        assert set(modes(open_folder).values()) == {"0700", "0600"}


@pytest.mark.integration
def test_the_store_of_mlflow(open_folder: Path) -> None:
    prepare_store(sqlite_url(open_folder / "store" / "mlflow.db"))
    assert modes(open_folder) == {
        "store": "0700",
        "store/mlflow.db": "0600",
        "store/mlflow.db.lock": "0600",
    }


def test_what_exists_keeps_its_mode(open_folder: Path) -> None:
    ledger = open_folder / "ledger.db"
    ledger.touch(mode=0o644)
    Ledger.open(f"sqlite:///{ledger}").close()
    make_folder(open_folder)
    assert modes(open_folder)["ledger.db"] == "0644"
    assert stat.S_IMODE(open_folder.stat().st_mode) == 0o755


def test_a_folder_that_is_shared_stays_shared(open_folder: Path) -> None:
    open_folder.chmod(0o2770)
    os.umask(0o002)
    ArtifactStore(open_folder).write_bytes("trials/plan.json", b"{}")
    assert modes(open_folder) == {"trials": "2770", "trials/plan.json": "0660"}
    assert open_to_others(open_folder) is None


class TestOpenToOthers:
    def test_a_file_that_all_may_read(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        file = tmp_path / "ledger.db"
        file.touch(mode=0o644)
        reached = all(path.stat().st_mode & 0o011 for path in tmp_path.parents)
        assert open_to_others(file) == ("0644" if reached else None)

    def test_one_that_nobody_reaches(self, tmp_path: Path) -> None:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o700)
        (folder / "ledger.db").touch(mode=0o644)
        assert open_to_others(folder / "ledger.db") is None

    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        assert open_to_others(tmp_path / "a" / "b") is None
