"""From a file and command-line overrides to a checked specification, or to all that is wrong."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import Problem, SpecError
from orchestrator.specification.arms import SHORTHANDS
from orchestrator.specification.messages import explain
from orchestrator.specification.settings import CHECK
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.text_file import read_text
from orchestrator.specification.yaml_reader import Path, read_yaml
from tracking.plain_text import one_line


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecFile:
    """A specification file as it was read, once, with the command line's overrides."""

    text: str  #: Of the file.
    tree: dict[str, Any]  #: What it says, overridden.
    places: "_Places"
    problems: tuple[Problem, ...]  #: What was wrong in the text and the overrides.

    @classmethod
    def read(cls, path: str | FilePath, overrides: Iterable[str] = ()) -> "SpecFile":
        """Read a file, or a pipe to its end, and override parts of it; nothing is written.

        Args:
            path: YAML file.
            overrides: ``key.path=VALUE`` each, the value in YAML; later ones win.

        Raises:
            SpecError: There is nothing that could be checked.
        """
        source = str(path)
        text = read_text(FilePath(path))
        document = read_yaml(text, source)
        if document.value is None and not document.problems:
            raise SpecError([Problem(source, "is empty; it needs name, model and arms")])
        if not isinstance(document.value, dict):
            raise SpecError([Problem(source, "is not a mapping; write key: value at the top")])
        places = _Places(source=source, lines=document.lines, overrides=set())
        problems = [
            Problem(f"{source}:{line}: {_dotted(at)}".removesuffix(": "), message)
            for at, line, message in document.problems
        ]
        file = cls(text=text, tree=document.value, places=places, problems=tuple(problems))
        return file.overridden(overrides)

    @classmethod
    def of(cls, tree: dict[str, Any]) -> "SpecFile":
        """Take what is given as Python objects for what a file says."""
        places = _Places(source="", lines={}, overrides=set())
        return cls(text="", tree=tree, places=places, problems=())

    def overridden(self, overrides: Iterable[str]) -> "SpecFile":
        """Override parts of it, in place; mistakes are among the problems of what is returned."""
        problems = list(self.problems)
        for override in overrides:
            problems += _override(self.tree, override, self.places.overrides)
        return replace(self, problems=tuple(problems))

    def spec(self, context: Mapping[str, bool] = CHECK) -> SweepSpec:
        """Check what was read.

        Args:
            context: Whether the sweep will run on this machine.

        Raises:
            SpecError: With every mistake that could be found, each at its place.
        """
        return _validated(self.tree, self.places, list(self.problems), context)

    def located(self, error: SpecError) -> SpecError:
        """Say where in the file, or on the command line, the keys stand that ``error`` is about.

        For problems found later, when the network and the data are looked at.
        """
        found = []
        for place, message in error.problems:
            keys = tuple(int(key) if key.isdecimal() else key for key in place.split("."))
            found.append(Problem(self.places.of(keys), message))
        return SpecError(found)


def load_spec(
    path: str | FilePath, overrides: Iterable[str] = (), context: Mapping[str, bool] = CHECK
) -> SweepSpec:
    """Read, override and check a specification; see :class:`SpecFile`.

    Raises:
        SpecError: With every mistake that could be found, each at its place.
    """
    return SpecFile.read(path, overrides).spec(context)


def parse_spec(data: Mapping[str, Any] | SweepSpec) -> SweepSpec:
    """Check a specification given as Python objects, as :func:`load_spec` checks a file.

    Raises:
        SpecError: With every mistake, placed by its keys.
    """
    tree = data.model_dump() if isinstance(data, SweepSpec) else dict(data)
    return _validated(tree, _Places(source="", lines={}, overrides=set()), [])


def _validated(
    tree: dict[str, Any],
    places: "_Places",
    problems: list[Problem],
    context: Mapping[str, bool] = CHECK,
) -> SweepSpec:
    found = [
        (path, "has a '${'; environment variables are read in 'tracking' only")
        for path, text in _texts(tree, ())
        if "${" in text and path[0] != "tracking"
    ]
    spec = None
    try:
        spec = SweepSpec.model_validate(lists_as_tuples(tree), strict=True, context=dict(context))
    except ValidationError as error:
        found += explain(error)
    known = {problem.place for problem in problems}
    placed = [Problem(places.of(path), message) for path, message in found]
    problems = problems + [problem for problem in placed if problem.place not in known]
    if spec is None or problems:
        raise SpecError(problems)
    return spec


@dataclass(frozen=True, kw_only=True, slots=True)
class _Places:
    """Where each part of a specification was written."""

    source: str  #: File name; empty for Python objects.
    lines: Mapping[Path, int]
    overrides: set[Path]  #: Paths that the command line set.

    def of(self, path: Path) -> str:
        """Name a place: ``sweep.yaml:12: recipe.epochs``, ``override recipe.epochs``."""
        prefixes = [path[:length] for length in range(len(path), 0, -1)]
        override = next((prefix for prefix in prefixes if prefix in self.overrides), None)
        if override is not None:
            rest = "" if override == path else f": {_dotted(path)}"
            return f"override {_dotted(override)}{rest}"
        line = next((self.lines[prefix] for prefix in prefixes if prefix in self.lines), None)
        if line is not None:
            return f"{self.source}:{line}: {_dotted(path)}"
        return ": ".join(part for part in (self.source, _dotted(path)) if part) or "specification"


def _override(tree: dict[str, Any], text: str, done: set[Path]) -> list[Problem]:
    """Set one value in ``tree`` and note its path in ``done``, or return what is wrong."""
    dotted, equals, value_text = text.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys) or set(dotted) & set(":/@"):
        key = "" if set(dotted) & set(":/@") else dotted.strip()  # it may hold a password
        return [Problem(f"override {key}".strip(), "must read KEY=VALUE, as in recipe.epochs=3")]
    place = f"override {dotted.strip()}"
    try:
        document = read_yaml(value_text, place)
    except SpecError as error:
        return [Problem(place, message) for _, message in error.problems]
    if document.problems:
        return [Problem(place, message) for _, _, message in document.problems]
    path: Path = ()
    here: Any = tree
    for key, then in zip(keys, [*keys[1:], None], strict=True):
        if isinstance(here, list):
            if not key.isdecimal() or int(key) >= len(here):
                known = f"0 to {len(here) - 1}" if here else "none: the list is empty"
                message = f"{_dotted(path)} is a list; {key!r} must be a position, {known}"
                return [Problem(place, message)]
            step: str | int = int(key)
        elif isinstance(here, dict):
            step = key
        else:
            message = f"{_dotted(path)} is a single value and has no {key!r} inside"
            return [Problem(place, message)]
        path = (*path, step)
        if then is None:
            here[step] = document.value
        else:
            here[step] = _opened(here.get(step) if isinstance(here, dict) else here[step], path)
            here = here[step]
    done.add(path)
    return []


def _opened(value: Any, path: Path) -> Any:
    """Return ``value`` as something an override can reach into."""
    if value is None:
        return {}
    last = next((key for key in reversed(path) if isinstance(key, str)), "")
    if isinstance(value, str) and last in SHORTHANDS and path[0] in SHORTHANDS:
        return {SHORTHANDS[last]: value}
    return value


def _dotted(path: Path) -> str:
    return ".".join(one_line(str(key), 60) for key in path[:20])


def _texts(value: Any, path: Path) -> list[tuple[Path, str]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _texts(item, (*path, key))]
    if isinstance(value, list | tuple):
        return [found for i, item in enumerate(value) for found in _texts(item, (*path, i))]
    return [(path, value)] if isinstance(value, str) else []


def lists_as_tuples(value: Any) -> Any:
    """Turn lists into the tuples that frozen records hold."""
    if isinstance(value, dict):
        return {key: lists_as_tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(lists_as_tuples(item) for item in value)
    return value
