"""What the command writes to a place that takes nothing, or lacks characters, undoes no work."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from tests.checkout import ROOT
from tests.orchestrator.command_line import write_spec
from tracking.ledger.ledger import Ledger

LOST = 74
VERBS = [["--version"], ["models", "--json"], ["list", "--store", "."]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.create_sweep("néon", {}, "hash")
    return tmp_path


def run(
    folder: Path, *arguments: str | Path, out: int | IO[Any], **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    plain = {key: v for key, v in os.environ.items() if not key.startswith(("PRUNESWEEP_", "LC_"))}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        cwd=folder,
        env={**plain, "PYTHONPATH": str(ROOT), **environment},
        stdout=out,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_full_disk_is_one_line_and_a_code_of_its_own(store: Path, verb: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = run(store, *verb, out=full)
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, len(lines)) == (LOST, 1)
    assert "No space left on device" in lines[0]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_so_is_a_pipe_that_nobody_reads(store: Path, verb: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as pipe:
        ended = run(store, *verb, out=pipe)
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, len(lines)) == (LOST, 1)
    assert "Broken pipe" in lines[0]


def test_an_error_keeps_its_code_and_its_message(store: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = run(store, "show", "nothing", "1", "--store", ".", out=full)
    assert ended.returncode == 2
    assert b"nothing" in ended.stderr


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=["C", "ascii", "latin-1"],
)
@pytest.mark.parametrize("verb", ["list", "status"])
def test_characters_that_an_encoding_lacks_are_replaced(
    store: Path, verb: str, environment: dict[str, str]
) -> None:
    with Ledger.open(f"sqlite:///{store}/ledger.db") as ledger:
        ledger.create_sweep("漢字", {}, "hash")
    ended = run(store, verb, "--store", ".", out=subprocess.PIPE, **environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert "漢字" in ended.stdout.decode("utf-8", "replace") or b"??" in ended.stdout


def test_a_closed_output_is_never_a_file_of_ours(store: Path) -> None:
    before = (store / "ledger.db").read_bytes()[:16]
    command = f"exec '{sys.executable}' -m orchestrator list --store . >&-"
    ended = subprocess.run(
        ["sh", "-c", command],
        cwd=store,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (store / "ledger.db").read_bytes()[:16] == before


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
def test_a_sweep_whose_result_cannot_be_shown_has_it_all_the_same(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, tracking={"mlflow": "off"})
    with open("/dev/full", "w") as full:
        ended = run(tmp_path, "run", spec, "--quiet", out=full)
    assert ended.returncode == LOST, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert (tmp_path / "prunesweep-data/artifacts/sweeps/tiny/report.html").exists()
