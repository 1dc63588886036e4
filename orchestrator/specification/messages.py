"""What pydantic found wrong with a specification, in the words of a person running sweeps."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from methods.errors import SettingsError
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.yaml_reader import Path
from workers.settings import Recipe

#: Mappings that are checked as the fields of a record.
_RECORDS_IN_MAPPINGS: Final = {"baseline": Recipe}

_RULES: Final = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": (
        "must begin with a letter or digit and go on, up to 100 in all, with those or . _ + -"
    ),
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "string_unicode": "must be text without lone surrogates",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must have {max_length} values at most",
    "too_short": "must have {min_length} value at least",
}
_HIDDEN: Final = "tracking"  #: Section whose values may be secret.
_MOST_SHOWN: Final = 60  #: Characters of a value in a message.
_MOST_ITEMS: Final = 20
_DEEPEST_SHOWN: Final = 3


def explain(error: ValidationError, prefix: Path = ()) -> list[tuple[Path, str]]:
    """Return place and message of every mistake; values of ``tracking`` are never shown."""
    found: list[tuple[Path, str]] = []
    for details in error.errors(include_url=False):
        path: Path = (*prefix, *details["loc"])
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, ValidationError):
            found += explain(cause, path)
        elif isinstance(cause, SettingsError):
            inside = () if cause.setting == "settings" else (cause.setting,)
            found.append(((*path, *inside), cause.problem.rstrip(".")))
        else:
            found.append((path, str(cause).rstrip(".") if cause else _message(path, details)))
    return found


def _message(path: Path, details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return f"unknown key; {nearest_key(path)}"
    shown = "" if path[:1] == (_HIDDEN,) else f"is {_shown(details['input'])}; "
    if kind == "literal_error":
        return f"{shown}{_choice(details['input'], context['expected'])}"
    rule = _RULES.get(kind)
    return shown + (rule.format(**context) if rule else details["msg"])


def nearest_key(path: Path) -> str:
    """Say which key was probably meant by the last of ``path``, or list those of its place."""
    known = sorted(_fields_at(path[:-1]))
    close = get_close_matches(str(path[-1])[:_MOST_SHOWN], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def _fields_at(path: Path) -> Mapping[str, Any]:
    """Fields of the record that stands at ``path``."""
    record: type[BaseModel] = SweepSpec
    for key in path:
        if isinstance(key, str):
            inside = _RECORDS_IN_MAPPINGS.get(key) or record_in(record.model_fields[key].annotation)
            assert inside is not None, "only records have unknown keys"
            record = inside
    return record.model_fields


def record_in(annotation: Any) -> type[BaseModel] | None:
    """Return the record a field holds, alone, in a list or optionally."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (record_in(part) for part in get_args(annotation))
    return next((record for record in found if record is not None), None)


def _choice(value: Any, expected: str) -> str:
    names = expected.replace("'", "").replace(" or ", ", ").split(", ")
    close = get_close_matches(value[:_MOST_SHOWN], names, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"must be {expected}{hint}"


def _shown(value: Any) -> str:
    text = json.dumps(_beginning(value), default=str, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def _beginning(value: Any, depth: int = 0) -> Any:
    """Return as much of a value as can be shown, since an alias may stand for very much."""
    if isinstance(value, str):
        return value[: _MOST_SHOWN + 1]
    if isinstance(value, dict):
        return {
            str(key)[:_MOST_SHOWN]: _beginning(item, depth + 1)
            for key, item in islice(value.items(), _MOST_ITEMS if depth < _DEEPEST_SHOWN else 0)
        }
    if isinstance(value, list | tuple):
        shown = islice(value, _MOST_ITEMS if depth < _DEEPEST_SHOWN else 0)
        return [_beginning(item, depth + 1) for item in shown]
    return value
