"""Help, completion and mistakes of typing need nothing that takes long to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.commands.catalog.described import described
from orchestrator.commands.catalog.listed import STORED
from orchestrator.commands.cli import NAMES, VERBS
from tests.checkout import ROOT
from tests.orchestrator.command_line import write_spec

HEAVY = {
    *("torch", "torchvision", "torch_pruning", "mlflow", "ray", "optuna", "sqlalchemy", "alembic"),
    *("numpy", "scipy", "matplotlib", "pandas", "sklearn", "fsspec"),
}
ASK = """
import json, sys
from typer.testing import CliRunner
from orchestrator.commands.cli import app
called = [CliRunner().invoke(app, words, env=env) for words, env in json.loads(sys.argv[1])]
print(json.dumps([[result.exit_code, result.output] for result in called]))
print(json.dumps(sorted(sys.modules)))
"""


def answers(
    *calls: tuple[list[str], dict[str, str]], timeout_s: float = 55
) -> tuple[list[tuple[int, str]], set[str]]:
    """Call the command line in a fresh process: exit codes and output, and what it imported."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(calls)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
    results, imported = done.stdout.splitlines()
    return [(code, text) for code, text in json.loads(results)], set(json.loads(imported))


def test_the_help_of_every_verb_imports_nothing_heavy() -> None:
    names = [NAMES.get(verb, verb.__name__) for verb in VERBS]
    pages = [["--help"], ["db", "--help"], ["--version"], *([name, "--help"] for name in names)]
    results, imported = answers(*((page, {}) for page in pages))
    assert [code for code, _ in results] == [0] * len(pages)
    assert imported & HEAVY == set()


@pytest.mark.parametrize("words", [["run"], ["compare", "x", "--nope"], ["extend", "x"], ["nope"]])
def test_a_mistake_of_typing_imports_nothing_heavy(words: list[str]) -> None:
    results, imported = answers((words, {}))
    assert results[0][0] == 2
    assert imported & HEAVY == set()


def test_completion_imports_nothing_heavy() -> None:
    shell = {
        "_PRUNESWEEP_COMPLETE": "complete_bash",
        "COMP_WORDS": "prunesweep re",
        "COMP_CWORD": "1",
    }
    results, imported = answers(([], shell))
    assert set(results[0][1].split()) >= {"resume", "retry"}
    assert imported & HEAVY == set()


def test_methods_and_networks_are_listed_without_loading_them() -> None:
    results, imported = answers((["methods"], {}), (["methods", "fpgm"], {}), (["models"], {}))
    assert [code for code, _ in results] == [0, 0, 0]
    assert "geometric_median (method)" in results[1][1]
    assert "cifar_resnet20" in results[2][1]
    assert imported & HEAVY == set()


@pytest.mark.integration  # it loads torch, in a process of its own
def test_a_bad_value_is_told_before_what_a_sweep_runs_with_is_loaded(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, recipe={"epochs": -1})
    results, imported = answers((["run", str(spec)], {}), timeout_s=250)
    assert results[0][0] == 2
    assert "recipe.epochs" in results[0][1]
    assert imported & {"ray", "optuna", "mlflow", "scipy", "torchvision", "matplotlib"} == set()


def test_what_is_listed_is_what_the_code_says() -> None:
    assert json.loads(STORED.read_text(encoding="utf-8")) == described()
