"""The page of the command line says what the program does."""

import re
from typing import Any

import pytest
import typer.main

from orchestrator.commands.cli import app
from tests.checkout import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text()


def _verbs(group: Any, prefix: str = "") -> dict[str, Any]:
    """Return every command by what is typed for it, as ``db upgrade``."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inside = hasattr(command, "commands")
        found |= _verbs(command, f"{name} ") if inside else {prefix + name: command}
    return found


VERBS = _verbs(typer.main.get_command(app))


def section(verb: str) -> str:
    found = re.search(rf"^## {verb}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_every_verb_has_a_section_and_every_section_a_verb() -> None:
    assert re.findall(r"^## ([a-z ]+)$", PAGE, re.MULTILINE) == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_section_begins_with_what_the_verb_does(verb: str) -> None:
    assert section(verb).strip().startswith(VERBS[verb].help)


@pytest.mark.parametrize("verb", VERBS)
def test_a_section_lists_the_arguments_and_options(verb: str) -> None:
    rows = re.findall(r"^\| `([^` ]+)[^`]*` \| (.*) \|$", section(verb), re.MULTILINE)
    parameters = [p for p in VERBS[verb].params if p.name != "help"]
    ordered = sorted(parameters, key=lambda p: p.param_type_name != "argument")
    assert rows == [
        (p.metavar if p.param_type_name == "argument" else p.opts[0], p.help) for p in ordered
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_a_section_shows_how_the_verb_is_called(verb: str) -> None:
    names = [p.metavar for p in VERBS[verb].params if p.param_type_name == "argument"]
    (usage,) = re.findall(rf"^    prunesweep {verb} (.*)\[OPTIONS\]$", section(verb), re.MULTILINE)
    assert re.findall(r"[A-Z]+(?:=[A-Z]+)?", usage) == names


def test_the_variables_of_the_page_are_those_of_the_program() -> None:
    variables = {p.envvar for verb in VERBS.values() for p in verb.params if p.envvar}
    assert set(re.findall(r"PRUNESWEEP_[A-Z]+", PAGE)) == variables
