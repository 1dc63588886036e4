"""What a specification can name: methods and schedules with their settings, and networks.

It is read from a file beside this module, since asking the code loads torch. Where other packages
add methods, or another torchvision has other networks, the code is asked.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from methods.errors import UnknownMethodError
from methods.own_code import ENTRY_POINTS

STORED: Final = Path(__file__).with_name("catalog.json")  #: What `described` makes.


def methods_facts(name: str | None = None) -> list[dict[str, Any]]:
    """Describe every method and schedule, or the one that ``name`` or its alias stands for.

    Raises:
        UnknownMethodError: There is none of this name.
    """
    known = _methods()
    if name is None:
        return known
    found = [facts for facts in known if name == facts["name"] or name in facts["aliases"]]
    if not found:
        names = [other for facts in known for other in (facts["name"], *facts["aliases"])]
        raise UnknownMethodError(name, names)
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
    return {"models": _models(), "own": "package.module:callable"}


def models_view(facts: Mapping[str, Any]) -> RenderableType:
    """Show the networks, one a line, fit for grep."""
    return Group(*map(Text, facts["models"]), Text(f"{facts['own']} (your own code)"))


@cache
def _stored() -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def _methods() -> list[dict[str, Any]]:
    if entry_points(group=ENTRY_POINTS):
        from orchestrator.commands.catalog.described import described_methods

        return described_methods()
    return list(_stored()["methods"])


def _models() -> list[str]:
    try:
        is_known = version("torchvision") == _stored()["torchvision"]
    except PackageNotFoundError:  # then the code says what is missing
        is_known = False
    if not is_known:
        from workers.models import list_models

        return list(list_models())
    return list(_stored()["models"])
