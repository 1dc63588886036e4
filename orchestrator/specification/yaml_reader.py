"""YAML as specifications use it: plain data, and the line each value stands in.

Stricter than PyYAML where that saves a sweep: a key given twice is an error, ``1e-3`` is a number,
``no`` and ``off`` are text, tags are refused.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from orchestrator.errors import Problem, SpecError

Path = tuple[str | int, ...]  #: Keys and list positions from the top.

#: Aliases of aliases can stand for more than memory holds.
_MOST_VALUES: Final = 10_000
_MOST_CHARACTERS: Final = 1_000_000
_DEEPEST: Final = 50  #: Nested values; no specification goes deeper than ten.


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What a text says."""

    value: Any  #: Dictionaries, lists, text, numbers, booleans and None.
    lines: Mapping[Path, int]  #: Line of each key or list item, from 1.
    problems: tuple[tuple[Path, int, str], ...]  #: Place, line and what is wrong there.


class _Loader(yaml.SafeLoader):
    """Resolves plain text as YAML 1.2 does."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's own way to begin without any)


_NUMBER_STARTS: Final = list("-+.0123456789")
for _tag, _pattern, _starts in (
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]{1,400}$", _NUMBER_STARTS),
    (
        "float",
        r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        _NUMBER_STARTS,
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _starts)


def read_yaml(text: str, source: str) -> Document:
    """Read one YAML document.

    Args:
        text: The document.
        source: What messages call it.

    Raises:
        SpecError: ``text`` is not YAML; with the line and column.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        builder = _Builder()
        value = None if node is None else builder.build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise SpecError([Problem(place, _syntax(error))]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"has the character {chr(error.character)!r}, which YAML does not allow"
        raise SpecError([Problem(f"{source}:{line}", message)]) from None
    except RecursionError:
        message = "is nested too deeply, or an alias contains itself"
        raise SpecError([Problem(source, message)]) from None
    return Document(value=value, lines=builder.lines, problems=tuple(builder.problems))


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    if "\\t" in problem:
        return "a tab; YAML is indented with spaces"
    if "expected a single document" in (error.context or ""):
        return "a second document begins with '---'; a file holds one specification"
    return f"is not YAML: {problem}"


class _Builder:
    """Turns nodes into data and notes where each stood."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.characters = 0
        self.problems: list[tuple[Path, int, str]] = []

    def build(self, node: yaml.Node, path: Path) -> Any:
        line = self._note(node, path)
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            try:
                return _SCALARS[kind](node.value)
            except ValueError:
                pass  # a tag that the text does not bear out, as in !!int abc
        self.problems.append((path, line, f"has the tag {node.tag!r}; write plain values"))
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.tag.endswith(":str"):
                self.problems.append((path, line, "has a key that is not text; put it in quotes"))
                continue
            key = key_node.value
            inside = (*path, key)
            if key in found:
                first = self.lines[inside]
                self.problems.append((inside, line, f"is given twice, first in line {first}"))
                continue
            self._note(key_node, inside)
            found[key] = self.build(value_node, inside)
        return found

    def _note(self, node: yaml.Node, path: Path) -> int:
        line = int(node.start_mark.line) + 1
        if isinstance(node, yaml.ScalarNode):
            self.characters += len(node.value)
        for what, found, most in (
            ("values", len(self.lines), _MOST_VALUES),
            ("characters", self.characters, _MOST_CHARACTERS),
        ):
            if found > most:
                problem = f"more than {most} {what}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if len(path) > _DEEPEST:
            raise RecursionError
        self.lines.setdefault(path, line)
        return line


_SCALARS: Final[Mapping[str, Callable[[str], Any]]] = {
    "null": lambda _text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
    "str": str,
}
