"""What a specification can name, described from the code itself: what `catalog.json` holds.

    python -m orchestrator.commands.catalog.described

writes that file anew; a test holds the two together. Describing loads torch and torchvision, which
takes seconds that a person who looks a name up should not wait for.
"""

import inspect
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

import methods
from methods.schedule import PRESETS
from orchestrator.commands.catalog.listed import STORED
from workers.models import list_models

_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_COMMENT = re.compile(r"^    (\w+):.*#: (.*)$", re.MULTILINE)


def described() -> dict[str, Any]:
    """Describe every method, schedule and network."""
    return {
        "methods": described_methods(),
        "models": list(list_models()),
        "torchvision": version("torchvision"),
    }


def described_methods() -> list[dict[str, Any]]:
    """Describe every method and schedule."""
    known = [_method(method) for method in methods.available().values()]
    return [*known, *(_schedule(preset) for preset in PRESETS)]


def _method(method: type[methods.PruningMethod]) -> dict[str, Any]:
    return {
        "name": method.name,
        "kind": "method",
        "summary": _summary(method),
        "source": method.source,
        "allocates": method.allocates,
        "schedulable": method.schedulable,
        "aliases": {name: dict(preset) for name, preset in methods.aliases_of(method).items()},
        "settings": _settings(method, {}),
    }


def _schedule(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "schedule",
        "summary": _summary(methods.Schedule),
        "source": "",
        "allocates": False,
        "schedulable": True,
        "aliases": {},
        "settings": [
            setting
            for setting in _settings(methods.Schedule, PRESETS[name])
            if setting["name"] != "name"
        ],
    }


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _settings(kind: type, preset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the fields of a record: default, possible values, meaning."""
    properties = TypeAdapter(kind).json_schema().get("properties", {})
    meanings = dict(_COMMENT.findall(_source(kind)))
    return [
        {
            "name": name,
            "default": preset.get(name, schema.get("default")),
            "values": _values(schema),
            "meaning": meanings.get(name, ""),
        }
        for name, schema in properties.items()
    ]


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except OSError:  # of an installed package that has none
        return ""


def _values(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(_values(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    words = [str(schema.get("type", "anything"))]
    words += [f"{rule} {schema[key]:g}" for key, rule in _LIMITS.items() if key in schema]
    return ", ".join(words)


def main() -> None:
    """Write the file anew."""
    STORED.write_text(json.dumps(described(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
