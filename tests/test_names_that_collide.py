"""A package of the user's with the name of one of ours: named in one line, or not in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import prunesweep
from orchestrator.commands.cli import app
from tests.checkout import ROOT

VERBS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
PROGRAM = ("-P", "-c", "from prunesweep import main; main()")  #: As the installed script starts.
MODULE = ("-m", "orchestrator")


def python(folder: Path, *arguments: str, path: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def package(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    return folder / name


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_names_it_in_one_line(tmp_path: Path, verb: str) -> None:
    mine = package(tmp_path, "tracking")
    done = python(tmp_path, *PROGRAM, verb, path=f".:{ROOT}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{mine} is in the way: prunesweep has a package 'tracking'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", prunesweep.PACKAGES)
def test_each_of_the_packages_is_looked_for(tmp_path: Path, name: str) -> None:
    mine = package(tmp_path, name)
    done = python(tmp_path, *PROGRAM, "status", path=f".:{ROOT}")
    assert (done.returncode, done.stderr.partition(" is in the way")[0]) == (2, str(mine))


@pytest.mark.parametrize("how", [PROGRAM, MODULE], ids=["program", "module"])
def test_one_in_the_working_folder_is_not_in_the_way(tmp_path: Path, how: tuple[str, ...]) -> None:
    for name in set(prunesweep.PACKAGES) - {"orchestrator"}:  # -m would run it, as it is told to
        package(tmp_path, name)
    done = python(tmp_path, *how, "status", path=str(ROOT))
    assert done.stderr.startswith("There is no ledger at")


@pytest.mark.parametrize("use", ["from prunesweep import Sweep", "from orchestrator import Sweep"])
def test_a_script_beside_it_is_told(tmp_path: Path, use: str) -> None:
    mine = tmp_path / "methods.py"
    mine.touch()
    (tmp_path / "script.py").write_text(use)
    done = python(tmp_path, "script.py", path=str(ROOT))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"prunesweep.PackageInTheWayError: {mine} is in the way")


def test_a_folder_without_code_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "tracking").mkdir()
    done = python(tmp_path, *PROGRAM, "status", path=f".:{ROOT}")
    assert done.stderr.startswith("There is no ledger at")
