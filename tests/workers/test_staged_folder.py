"""A folder that is there as a whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT
from workers.staged_folder import FolderTakenError, write_folder

FILES = {"a": b"1", "b": b"2"}
KILLED = """
import os, signal, sys
from pathlib import Path
import workers.staged_folder as staged
left = int(sys.argv[2])
def fsync(_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
staged.os.fsync = fsync
staged.write_folder(Path(sys.argv[1]), {"a": b"1", "b": b"2"})
"""


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("written", [0, 1])
def test_a_killed_writer_leaves_no_half_and_the_next_one_tidies_up(
    tmp_path: Path, written: int
) -> None:
    folder = tmp_path / "new" / "network"
    command = [sys.executable, "-c", KILLED, str(folder), str(written)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert len(os.listdir(folder.parent)) == 1
    write_folder(folder, FILES)
    assert content(folder) == FILES
    assert os.listdir(folder.parent) == ["network"]


def test_an_empty_folder_and_one_that_was_begun_are_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", FILES)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "a").write_bytes(b"1")
    write_folder(tmp_path / "begun", FILES)
    assert content(tmp_path / "empty") == content(tmp_path / "begun") == FILES


@pytest.mark.parametrize("there", ["c", "a"])
def test_what_is_not_its_own_is_left_alone(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_bytes(b"mine")
    with pytest.raises(FolderTakenError):
        write_folder(tmp_path, FILES)
    assert content(tmp_path) == {there: b"mine"}
