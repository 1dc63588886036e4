"""Every error of the rooms, and the tree of them that docs/errors.md shows.

``python -m tests.error_tree`` draws the tree on that page anew.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Final

from orchestrator.commands.exits import EXIT_CODES
from prunesweep import PrunesweepError
from tests.checkout import ROOT
from tests.import_graph import ROOMS

PAGE: Final = ROOT / "docs" / "errors.md"
_TREE: Final = re.compile(r"```text\n.*?```", re.DOTALL)


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


def drawn() -> str:
    """Return the tree as it stands on the page."""
    return "\n".join(["```text", *tree(), "```"])


if __name__ == "__main__":
    PAGE.write_text(_TREE.sub(lambda _: drawn(), PAGE.read_text(encoding="utf-8")))
