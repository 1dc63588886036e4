"""Every error has one root, a family with an exit code, and a message that travels."""

import inspect
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any, Final, get_type_hints

import pytest

from orchestrator.commands.exits import exit_code
from orchestrator.errors import Problem
from prunesweep import PrunesweepError
from tests.checkout import ROOT
from tests.error_tree import ALL, PAGE, drawn, raised_here
from tracking.processes import Process
from tracking.records import LeaseRecord

#: What is raised to leave a place, never to say that something is wrong.
SIGNALS: Final = {"StoppedError", "_ReachedError"}

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def example(annotation: Any) -> Any:
    """Something an error of ours may be made of."""
    text = str(annotation)
    if annotation is LeaseRecord:
        return LeaseRecord(
            driver="one",
            process=Process(host="host", pid=7, place="boot", birth="then"),
            taken_at=NOW,
            expires_at=NOW,
            is_over=False,
        )
    if "Problem" in text:
        return [Problem("sweep.yaml:1: name", "is required")]
    if "tuple[tuple[str" in text:
        return (("device", "a", "b"),)
    if "tuple[float" in text:
        return (0.1, 0.5)
    if "tuple[int" in text:
        return (8, None)
    if "Sequence" in text:
        return ["one", "two"]
    if annotation in (int, float):
        return annotation(3)
    return "sqlite:///name.db"


def made(kind: type[PrunesweepError]) -> PrunesweepError:
    hints = get_type_hints(kind.__init__)
    names = [name for name in inspect.signature(kind.__init__).parameters if name in hints]
    return kind(*(example(hints[name]) for name in names))


def test_every_error_is_under_the_root() -> None:
    assert {e.__name__ for e in raised_here() if not issubclass(e, PrunesweepError)} == SIGNALS


def test_no_two_errors_share_a_name() -> None:
    names = [kind.__name__ for kind in ALL]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_belongs_to_a_family_with_an_exit_code(kind: type[PrunesweepError]) -> None:
    assert exit_code(made(kind)) in {1, 2, 75}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_message_survives_the_trip_from_another_process(kind: type[PrunesweepError]) -> None:
    error = made(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))


def test_the_page_shows_the_tree() -> None:
    assert drawn() in PAGE.read_text(encoding="utf-8"), "make docs draws it anew"


@pytest.mark.parametrize("heavy", ["torch", "optuna", "ray", "mlflow", "sqlalchemy"])
def test_sorting_errors_waits_for_no_large_library(heavy: str) -> None:
    code = f"import sys, orchestrator.commands.exits; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
