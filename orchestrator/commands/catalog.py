"""What a specification can name: methods and schedules with their settings, and networks."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from rich.console import Group, RenderableType
from rich.text import Text

import methods
from methods.schedule import PRESETS
from workers.models import list_models

_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_COMMENT = re.compile(r"^    (\w+):.*#: (.*)$", re.MULTILINE)


def methods_facts(name: str | None = None) -> list[dict[str, Any]]:
    """Describe every method and schedule, or the one that ``name`` or its alias stands for.

    Raises:
        UnknownMethodError: There is none of this name.
    """
    known = [_method(method) for method in methods.available().values()]
    known += [_schedule(preset) for preset in PRESETS]
    if name is None:
        return known
    found = [facts for facts in known if name == facts["name"] or name in facts["aliases"]]
    if not found:
        names = [other for facts in known for other in (facts["name"], *facts["aliases"])]
        raise methods.UnknownMethodError(name, names)
    return found


def methods_view(facts: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show methods and schedules with their settings."""
    lines: list[RenderableType] = []
    for entry in facts:
        lines.append(
            Text.assemble((entry["name"], "bold"), f" ({entry['kind']}): {entry['summary']}")
        )
        lines += [Text(f"    Source: {entry['source']}")] if entry["source"] else []
        lines += [Text("    Chooses its own ratios for a target.")] if entry["allocates"] else []
        lines += [Text("    Takes no schedule.")] if not entry["schedulable"] else []
        for setting in entry["settings"]:
            says = f": {setting['meaning']}" if setting["meaning"] else ""
            lines.append(
                Text(f"    {setting['name']} = {setting['default']} ({setting['values']}){says}")
            )
        for alias, preset in entry["aliases"].items():
            stands = ", ".join(f"{key} = {value}" for key, value in preset.items())
            lines.append(Text(f"    Also {alias}" + (f": {stands}" if stands else "")))
        lines.append(Text(""))
    return Group(*lines[:-1])


def models_facts() -> dict[str, Any]:
    """List the networks known by name, and the form of others."""
    return {"models": list(list_models()), "own": "package.module:callable"}


def models_view(facts: Mapping[str, Any]) -> RenderableType:
    """Show the networks, one a line, fit for grep."""
    return Group(*map(Text, facts["models"]), Text(f"{facts['own']} (your own code)"))


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
