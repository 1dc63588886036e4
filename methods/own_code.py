"""Networks and methods in files of the user's own: found, loaded, and named by their content.

A reference is ``mine.py:Name``, a file looked for from the working folder on, or
``package.module:Name``, which Python finds.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from methods.errors import MethodError
from prunesweep import PACKAGES

ENTRY_POINTS: Final = "prunesweep.methods"  #: Where installed packages name modules with methods.
_INSTALLED: Final = tuple(
    Path(path).resolve()
    for key in ("stdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(key)) is not None
)


class OwnCodeError(MethodError, ImportError):
    """Code of the user's cannot be found or loaded, or is not what it was."""

    def __init__(self, reference: str, problem: str) -> None:
        super().__init__(reference, problem)
        self.reference, self.problem = reference, problem

    def __str__(self) -> str:
        return f"{self.reference!r}: {self.problem}"


def is_reference(name: str) -> bool:
    """Say whether a name stands for code of the user's."""
    return ":" in name


def load(reference: str) -> Any:
    """Return what a reference names.

    Raises:
        OwnCodeError: There is no such file, module or name in it.
        Exception: Whatever the code raises as it is imported.
    """
    where, _, attribute = reference.partition(":")
    names_file = where.endswith(".py")
    parts = attribute.split(".") if names_file else [*where.split("."), attribute]
    if not all(part.isidentifier() for part in parts):
        raise OwnCodeError(reference, "write mine.py:Name or package.module:Name.")
    if not names_file and _is_pythons_own(parts[0]):
        raise OwnCodeError(
            reference, f"{parts[0]} belongs to Python itself; name code of your own."
        )
    module = _load_file(reference) if names_file else importlib.import_module(where)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise OwnCodeError(reference, f"{where} has no {attribute!r}.") from error


def _is_pythons_own(name: str) -> bool:
    """Say whether a module comes with Python: it builds nothing, and may end the process."""
    if name not in sys.stdlib_module_names:
        return False
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.has_location or spec.origin is None:
        return True
    return Path(spec.origin).resolve().is_relative_to(_INSTALLED[0])


def file_of(reference: str) -> Path:
    """Find the file of ``mine.py:Name``: from the working folder on, then where modules lie.

    Raises:
        OwnCodeError: There is none.
    """
    name = Path(os.path.expanduser(reference.partition(":")[0]))
    for folder in (Path.cwd(), *map(Path, sys.path)):
        for candidate in (folder / name, folder / name.name):
            if candidate.is_file():
                return candidate.resolve()
    raise OwnCodeError(reference, f"there is no file {str(name)!r}, looked for from {Path.cwd()}.")


def _load_file(reference: str) -> Any:
    file = file_of(reference)
    loaded = sys.modules.get(file.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    # Its name is its own where that is free, so that what it imports may import it, too.
    is_taken = loaded is not None or file.stem in (*PACKAGES, *sys.stdlib_module_names)
    name = f"own_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}" if is_taken else file.stem
    if name in sys.modules and is_taken:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise OwnCodeError(reference, "Python cannot load it.")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: what is installed, and ours, come first
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def sources(reference: str) -> dict[str, Path]:
    """Return the user's files that a reference needs, by their path below the folder they lie in.

    That is the file and whatever it imports from the same folder; empty for what is installed, is
    ours, or is not on this machine.
    """
    first, root = _first(reference.partition(":")[0])
    if first is None or root is None:
        return {}
    found: dict[str, Path] = {}
    left = [first]
    while left:
        file = left.pop()
        name = file.relative_to(root).as_posix()
        if name not in found:
            found[name] = file
            left += _imported(file, root)
    return dict(sorted(found.items()))


def _first(where: str) -> tuple[Path | None, Path | None]:
    """Find the file that is named, and the folder that what it imports is looked for in."""
    if where.endswith(".py"):
        try:
            file = file_of(where)
        except OwnCodeError:
            return None, None
        return file, file.parent
    root = _root(where.partition(".")[0])
    return (None if root is None else _module_file(root, where)), root


def code_hash(reference: str) -> str | None:
    """Name the user's code by its content; None where there is none to look at."""
    files = sources(reference)
    if not files:
        return None
    digest = hashlib.sha256()
    for name, file in files.items():
        text = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()[:16]


def check_unchanged(reference: str, code: str | None) -> None:
    """Refuse code that is not what a sweep began with.

    Raises:
        OwnCodeError: It is another one on this machine.
    """
    if code is not None and (found := code_hash(reference)) not in (None, code):
        raise OwnCodeError(
            reference,
            f"the code is not what the sweep began with (content {found}, then {code}). Take the "
            "change back, or give the sweep another name; on a cluster, every node needs the same.",
        )


def _root(top: str) -> Path | None:
    """Return the folder a top-level module of the user's lies in."""
    place = None if top in (*PACKAGES, "prunesweep") else place_of(top)
    return None if place is None else place.parent


def place_of(module: str) -> Path | None:
    """Return the folder or file of a top-level module that is not installed; None for any other."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        place = Path(next(iter(spec.submodule_search_locations)))
    elif spec.origin and spec.origin.endswith(".py"):
        place = Path(spec.origin)
    else:
        return None
    place = place.resolve()
    return None if any(place.is_relative_to(path) for path in _INSTALLED) else place


def _module_file(root: Path, dotted: str) -> Path | None:
    place = root.joinpath(*dotted.split("."))
    for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Yield the files below ``root`` that one imports, and the packages it lies in."""
    for folder in file.relative_to(root).parents:
        if (package := root / folder / "__init__.py").is_file() and folder != Path():
            yield package
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # importing it says more
    around = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = around[: len(around) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        for name in names:
            if name and (found := _module_file(root, name)) is not None:
                yield found
