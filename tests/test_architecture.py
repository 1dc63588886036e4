"""The house stands as it was drawn: packages come from this checkout, imports flow one way."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import prunesweep
from tests.checkout import ROOT

#: What each package may import of the others.
MAY_IMPORT = {
    "methods": set[str](),
    "tracking": set[str](),
    "search_spaces": {"methods"},
    "workers": {"methods", "tracking"},
    "orchestrator": {"methods", "tracking", "search_spaces", "workers"},
}

#: Outside systems and the only places that know them.
HOMES = {
    "optuna": {"search_spaces"},
    "mlflow": {"tracking"},
    "sqlalchemy": {"tracking"},
    "alembic": {"tracking"},
    "ray": {"workers", "orchestrator"},
    "torch_pruning": {"methods"},
}


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_each_package_is_imported_from_this_checkout(package: str) -> None:
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file).resolve() == ROOT / package / "__init__.py"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_flow_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    for file in modules(package):
        tops = {name.partition(".")[0] for name in imports_of(file)}
        assert tops & MAY_IMPORT.keys() <= allowed, file


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_rooms_take_no_public_name_from_the_root_module_but_the_root_error(package: str) -> None:
    for file in modules(package):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "prunesweep":
                taken = {alias.name for alias in node.names} & set(prunesweep.__all__)
                assert taken <= {"PrunesweepError"}, file


@pytest.mark.parametrize("system", HOMES)
def test_each_outside_system_has_one_home(system: str) -> None:
    for package in MAY_IMPORT:
        for file in modules(package):
            tops = {name.partition(".")[0] for name in imports_of(file)}
            assert system not in tops or package in HOMES[system], file


def test_the_root_module_imports_no_package_before_it_is_asked() -> None:
    tree = ast.parse((ROOT / "prunesweep.py").read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in at_once}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
    assert set(prunesweep.PACKAGES) == MAY_IMPORT.keys()


def test_workers_take_nothing_of_tracking_but_files_and_how_results_are_read() -> None:
    for file in modules("workers"):
        used = {name for name in imports_of(file) if name.partition(".")[0] == "tracking"}
        assert used <= {"tracking.answers", "tracking.artifacts", "tracking.results"}, file


def test_ray_enters_the_workers_in_one_module() -> None:
    users = {file.name for file in modules("workers") if "ray" in imports_of(file)}
    assert users == {"actor.py"}


def test_a_plain_checkout_runs_without_being_installed(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "orchestrator", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert "run" in completed.stdout


def test_every_test_folder_is_a_package() -> None:
    folders = {file.parent for file in (ROOT / "tests").rglob("test_*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
