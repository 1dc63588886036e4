"""Which part of the code imports which: read from the source, and drawn for `docs/architecture.md`.

``python -m tests.import_graph`` draws the picture on that page anew.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.checkout import ROOT

ROOMS = ("orchestrator", "workers", "search_spaces", "methods", "tracking")
PAGE = ROOT / "docs" / "architecture.md"
_PICTURE = re.compile(r"```mermaid\n.*?```", re.DOTALL)

Graph = dict[str, set[str]]


def modules(room: str) -> list[Path]:
    """Return the source files of a room."""
    return sorted((ROOT / room).rglob("*.py"))


def imports_of(file: Path) -> set[str]:
    """Return the modules a file imports, by full name; of ours, the module a name lies in."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in inner if _is_module(name)}
            found |= ours or {node.module}
    return found


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return name.partition(".")[0] in ROOMS and (path.is_dir() or path.with_suffix(".py").exists())


def box_of(name: str) -> str:
    """Return the box a module lies in: a folder of a room, or a module beside the folders."""
    return ".".join(name.split(".")[:2])


@cache
def box_graph() -> Graph:
    """Return which boxes each box imports from, itself left out."""
    graph: Graph = {}
    for room in ROOMS:
        for file in modules(room):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            box = box_of(name.removesuffix(".__init__"))
            ours = {box_of(n) for n in imports_of(file) if n.partition(".")[0] in ROOMS}
            graph[box] = graph.get(box, set()) | (ours - {box})
    return graph


def folder_graph() -> Graph:
    """Return which folders, and which other rooms, each folder of a room imports from."""
    found: Graph = {}
    for box, uses in box_graph().items():
        if _is_folder(box):
            room = box.partition(".")[0]
            inside = {use for use in uses if use.startswith(f"{room}.") and _is_folder(use)}
            found[box] = inside | {use.partition(".")[0] for use in uses} - {room}
    return found


def _is_folder(box: str) -> bool:
    return "." in box and (ROOT / box.replace(".", "/")).is_dir()


def picture() -> str:
    """Draw the folders of each room and the imports between them, as a Mermaid chart."""
    graph = folder_graph()
    lines = ["```mermaid", "flowchart TD"]
    for room in ROOMS:
        folders = [box for box in graph if box.startswith(f"{room}.")]
        lines.append(f"  subgraph {room}")
        lines += [f"    {_id(box)}[{box.partition('.')[2]}]" for box in folders or [f"{room}.all"]]
        lines.append("  end")
    lines += [
        f"  {_id(box)} --> {_id(use)}"
        for box, uses in graph.items()
        for use in sorted(uses)
        if "." in use
    ]
    return "\n".join([*lines, *_between_rooms(), "```"])


def _between_rooms() -> Iterator[str]:
    pairs = {(_room(box), _room(use)) for box, uses in box_graph().items() for use in uses}
    for room, use in sorted(pairs):
        if room != use:
            yield f"  {room} ==> {use}"


def _room(box: str) -> str:
    return box.partition(".")[0]


def _id(box: str) -> str:
    return box.replace(".", "_")


if __name__ == "__main__":
    PAGE.write_text(_PICTURE.sub(lambda _: picture(), PAGE.read_text(encoding="utf-8")))
