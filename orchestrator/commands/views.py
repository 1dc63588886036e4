"""What the command line shows: facts as JSON-able data, and the same for people.

Light to import, as every verb needs it: what only the end of a sweep needs is imported there.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, RenderableType

from orchestrator.errors import InputError
from orchestrator.plain_console import PlainConsole
from tracking.errors import redact
from tracking.plain_text import visible_lines

if TYPE_CHECKING:
    from orchestrator.commands.doctor import Finding
    from orchestrator.specification.settings import TrackingSettings
    from orchestrator.specification.spec import SweepSpec
    from tracking.comparison.comparison import Comparison

PIPE_WIDTH = 120  #: Columns of what is written to a pipe or a file.

Facts = TypeVar("Facts")


class UnwritableFileError(InputError, OSError):
    """A file the command line names cannot be written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} cannot be written: {self.reason}. Name another file."


def stdout() -> Console:
    """Return a console for facts; wide where no terminal says otherwise."""
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    return PlainConsole(width=None if has_width else PIPE_WIDTH, highlight=False)


def show(facts: Facts, view: Callable[[Facts], RenderableType], *, as_json: bool) -> None:
    """Print facts for a program or for a person."""
    if as_json:
        print_json(facts)
    else:
        stdout().print(view(facts))


def print_json(facts: Any) -> None:
    """Print facts for a program."""
    print(json.dumps(_finite(facts), indent=2, allow_nan=False))


def _finite(facts: Any) -> Any:
    """Put null where a number is none, which JSON cannot say."""
    if isinstance(facts, Mapping):
        return {key: _finite(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def write_file(path: Path, text: str) -> None:
    """Write ``text`` to the file a person named.

    Raises:
        UnwritableFileError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnwritableFileError(str(path), error.strerror or str(error)) from error


def print_finding(finding: "Finding") -> None:
    """Show one link of the chain the doctor tries."""
    mark = "ok    " if finding.ok else "BROKEN"
    told = visible_lines(finding.detail)
    print(f"{mark} {finding.name} ({finding.seconds:.1f} s): {told}", flush=True)


def end_facts(spec: "SweepSpec", comparison: "Comparison") -> dict[str, Any]:
    """Say how a sweep ended, and where to look."""
    from orchestrator.commands.lookup import command
    from tracking.artifacts import ArtifactStore
    from tracking.report.report import to_json

    store = ArtifactStore(spec.tracking.artifacts_url)
    return {
        "sweep": spec.name,
        "state": comparison.state,
        "compare": command("compare", spec.name, spec.tracking),
        "report": f"{store.folder or store.url}/sweeps/{spec.name}/report.html",
        "ui": ui_hint(spec.tracking, spec.name),
        "comparison": json.loads(to_json(comparison)),
    }


def print_end(facts: Mapping[str, Any], comparison: "Comparison") -> None:
    """Show the comparison in brief, where the report is and how to open the UI."""
    from tracking.report.report import to_renderable

    stdout().print(to_renderable(comparison, brief=True))
    print(f"\nLatency, effort and failures: {facts['compare']}")
    print(f"Report: {facts['report']}")
    if facts["ui"]:
        print(f"MLflow: {facts['ui']}")


def ui_hint(tracking: "TrackingSettings", name: str = "") -> str | None:
    """Return the address of MLflow, or the command that opens it; None without a mirror."""
    from orchestrator.commands.lookup import command

    url = tracking.mlflow_url
    if url is None or url.startswith("http"):
        return url and redact(url)
    return command("ui", name, tracking)


def stopped(spec: "SweepSpec") -> str:
    """Say how to go on with a sweep that was stopped by hand."""
    from orchestrator.commands.lookup import command

    return f"Stopped. To go on: {command('resume', spec.name, spec.tracking)}"
