"""Every error has one root, a family with an exit code, and a message that travels."""

import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, get_type_hints

import pytest

from orchestrator.commands.exits import EXIT_CODES, exit_code
from orchestrator.errors import Problem
from prunesweep import PrunesweepError
from tests.checkout import ROOT
from tracking.processes import Process
from tracking.records import LeaseRecord

ROOMS: Final = ("methods", "tracking", "search_spaces", "workers", "orchestrator")

#: What is raised to leave a place, never to say that something is wrong.
SIGNALS: Final = {"StoppedError", "_ReachedError"}

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def modules() -> Iterator[str]:
    yield "prunesweep"
    for room in ROOMS:
        yield room
        for found in pkgutil.walk_packages([str(ROOT / room)], f"{room}."):
            if not found.name.endswith("__main__") and ".migrations" not in found.name:
                yield found.name


def raised_here() -> set[type[BaseException]]:
    """All exceptions the rooms and the root module define, private ones included."""
    return {
        thing
        for name in modules()
        for _, thing in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if issubclass(thing, BaseException) and thing.__module__ == name
    }


ALL: Final = sorted(
    (e for e in raised_here() if issubclass(e, PrunesweepError) and e is not PrunesweepError),
    key=lambda e: e.__name__,
)


def tree(root: type[PrunesweepError] = PrunesweepError, depth: int = 0) -> Iterator[str]:
    """One line an error: its name, its family's exit code, what it says."""
    code = EXIT_CODES.get(root, "")
    what = (inspect.getdoc(root) or "").splitlines()[0]
    yield f"{'  ' * depth + root.__name__:36} {code:<4} {what}".rstrip()
    children = [kind for kind in ALL if root in kind.__bases__ and kind.__name__[0] != "_"]
    for child in children:
        yield from tree(child, depth + 1)


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
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    drawn = page.split("```text\n")[1].split("\n```")[0]
    assert drawn == "\n".join(tree())


@pytest.mark.parametrize("heavy", ["torch", "optuna", "ray", "mlflow", "sqlalchemy"])
def test_sorting_errors_waits_for_no_large_library(heavy: str) -> None:
    code = f"import sys, orchestrator.commands.exits; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
