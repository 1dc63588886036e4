"""The command line as tests use it: in this process for reading, as a real one for running."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from orchestrator.commands.cli import app
from tests.checkout import ROOT

PATIENCE_S = 600.0  #: For a sweep of seconds; the machine may be busy with other things.
TRIES = 5

#: One arm, one target, no search, no controls: baseline, two re-runs and a latency.
TINY: dict[str, Any] = {
    "name": "tiny",
    "model": "digits_net",
    "data": {"name": "digits", "train_images": 200, "test_images": 100},
    "arms": ["l1"],
    "targets": {"macs_reduction": 0.5},
    "search": {"trials": 1},
    "recipe": {"epochs": 1, "batch_size": 64},
    "baseline": {"allow_chance": True},  # three steps teach it nothing
    "seeds": [1, 2],
    "controls": {"dense": False, "random": False, "uniform_l1": False, "scratch": False},
    "resources": {"workers": 1, "device": "cpu"},
}


def write_spec(folder: Path, **changes: Any) -> Path:
    """Write the tiny specification, with changes, as a file."""
    path = folder / "sweep.yaml"
    path.write_text(json.dumps({**TINY, **changes}))  # JSON is YAML
    return path


def call(*arguments: str | Path, **environment: str | None) -> Result:
    """Run the command line in this process; never in the store of the folder tests run in."""
    nowhere: dict[str, str | None] = {"PRUNESWEEP_STORE": None, "PRUNESWEEP_LEDGER": None}
    return CliRunner().invoke(app, [str(a) for a in arguments], env={**nowhere, **environment})


def facts(*arguments: str | Path) -> Any:
    """Return what a verb prints as JSON."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@contextmanager
def started(folder: Path, *arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """Start the command line in ``folder``, as from a terminal of its own, until the block ends."""
    environment = {key: v for key, v in os.environ.items() if not key.startswith("PRUNESWEEP_")}
    environment["PYTHONPATH"] = str(ROOT)
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def ended(folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command line as a process of its own, to its end.

    Ray's own start-up gives up on a machine that is too busy; then the command says to run it
    again, and that is done here.
    """
    for _ in range(TRIES):
        with started(folder, *arguments) as process:
            code, out, err = finish(process)
        if not err.startswith("Ray could not start on this machine"):
            break
    return code, out, err


def press_ctrl_c(process: "subprocess.Popen[str]") -> None:
    """Interrupt as a terminal does: the process and everything it started in its group."""
    os.killpg(process.pid, signal.SIGINT)
