import multiprocessing
import time
import uuid
from pathlib import Path

import fsspec
import pytest
import torch

from tests.object_store import running_object_store
from tracking.artifacts import ArtifactNotFoundError, ArtifactStore
from workers.files import SharedFiles, fetched, file_lock
from workers.training.shared_statistics import StatisticsCost, load_statistics, store_statistics


@pytest.fixture
def remote() -> str:
    return f"memory://files-{uuid.uuid4().hex}"


def machine(folder: Path, url: str) -> SharedFiles:
    return SharedFiles(artifacts=ArtifactStore(url), cache_dir=folder)


class TestSharedFiles:
    def test_they_come_to_a_machine_once(self, remote: str, tmp_path: Path) -> None:
        here, there = machine(tmp_path / "here", remote), machine(tmp_path / "there", remote)
        here.write("weights/base", b"abc")
        assert there.read("weights/base") == b"abc"
        there.artifacts.remove("weights/base")
        assert there.read("weights/base") == b"abc"
        with pytest.raises(ArtifactNotFoundError):
            here.read("weights/base")

    def test_a_folder_is_read_where_it_is(self, tmp_path: Path) -> None:
        files = machine(tmp_path / "cache", str(tmp_path / "store"))
        files.write("weights/base", b"abc")
        assert files.read("weights/base") == b"abc"
        assert not (tmp_path / "cache").exists()

    def test_statistics_of_one_machine_serve_another(self, remote: str, tmp_path: Path) -> None:
        here, there = machine(tmp_path / "here", remote), machine(tmp_path / "there", remote)
        cost = StatisticsCost(steps=3, images=96, seconds=1.5)
        assert load_statistics(there, "name") is None
        store_statistics(here, "name", {"mean": torch.arange(3.0)}, cost)
        found = load_statistics(there, "name")
        assert found is not None
        assert found[1] == cost
        assert found[0]["mean"].tolist() == [0.0, 1.0, 2.0]

    def test_a_trial_goes_on_where_they_cannot_be_stored(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "store").write_bytes(b"a file where a folder should be")
        files = machine(tmp_path / "cache", str(tmp_path / "store"))
        cost = StatisticsCost(steps=0, images=0, seconds=0.0)
        store_statistics(files, "name", {"x": torch.ones(1)}, cost)
        assert "Statistics are not shared" in caplog.text


class TestFetched:
    def test_another_version_is_fetched_anew(self, remote: str, tmp_path: Path) -> None:
        files, path = fsspec.core.url_to_fs(f"{remote}/set.zip")
        files.pipe_file(path, b"one")
        first = fetched(f"{remote}/set.zip", tmp_path)
        assert fetched(f"{remote}/set.zip", tmp_path) == first
        files.rm(path)
        time.sleep(0.01)
        files.pipe_file(path, b"two!")
        second = fetched(f"{remote}/set.zip", tmp_path)
        assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two!")

    def test_half_a_file_is_fetched_again(self, remote: str, tmp_path: Path) -> None:
        files, path = fsspec.core.url_to_fs(f"{remote}/set.zip")
        files.pipe_file(path, b"whole")
        copy = fetched(f"{remote}/set.zip", tmp_path)
        copy.rename(copy.with_suffix(".partial"))  # as a killed process leaves it
        copy.with_suffix(".partial").write_bytes(b"wh")
        assert fetched(f"{remote}/set.zip", tmp_path).read_bytes() == b"whole"
        assert not copy.with_suffix(".partial").exists()

    def test_what_is_not_there_leaves_nothing(self, remote: str, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            fetched(f"{remote}/gone.zip", tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.integration
    def test_processes_of_a_machine_fetch_once_between_them(self, tmp_path: Path) -> None:
        with running_object_store() as url:
            ArtifactStore(url).write_bytes("set.zip", b"x" * 1_000_000)
            context = multiprocessing.get_context("spawn")
            with context.Pool(3) as pool:
                with file_lock(tmp_path / "start"):
                    calls = [pool.apply_async(fetch, (f"{url}/set.zip", tmp_path)) for _ in "123"]
                    time.sleep(3.0)  # until they wait for the lock, or soon will
                found = {call.get(timeout=300) for call in calls}
        assert len(found) == 1  # the same file: a second fetch would have replaced it


def fetch(url: str, folder: Path) -> tuple[Path, int]:
    """Fetch once the start is free; return the copy and its number on the disk."""
    with file_lock(folder / "start"):
        pass
    copy = fetched(url, folder)
    return copy, copy.stat().st_ino
