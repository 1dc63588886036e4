"""Where Ray cannot keep its sockets, a sweep is refused before Ray starts, with the reason."""

import os
from pathlib import Path

import pytest

from orchestrator.cluster.connection import check_reachable
from orchestrator.cluster.temporary_folder import LONGEST_SOCKET, TemporaryFolderError
from orchestrator.commands.exits import exit_code


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder with a short name, which a test's own folder has not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = Path("/tmp") / f"pst-{os.getpid()}"
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    return folder


def refusal() -> TemporaryFolderError:
    with pytest.raises(TemporaryFolderError) as caught:
        check_reachable(None)
    assert exit_code(caught.value) == 2
    assert "RAY_TMPDIR" in str(caught.value)
    return caught.value


def test_one_that_can_be_made_will_do_and_is_not_made(short: Path) -> None:
    check_reachable(None)
    assert not short.exists()


def test_a_path_too_long_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * (LONGEST_SOCKET - 80)}")
    assert "too long for sockets" in refusal().problem


def test_a_folder_below_a_file(short: Path) -> None:
    short.write_text("")
    try:
        assert "no folder" in refusal().problem
    finally:
        short.unlink()


def test_a_folder_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/sys")  # for root, too
    assert "cannot be written" in refusal().problem


def test_a_disk_that_is_full(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs("/tmp")
    full = os.statvfs_result((*found[:3], 0, 0, *found[5:]))
    monkeypatch.setattr("os.statvfs", lambda _: full)
    assert "full" in refusal().problem
