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
from tests.import_graph import PAGE, box_graph, folder_graph, imports_of, modules, picture

#: What each package may import of the others.
MAY_IMPORT = {
    "methods": set[str](),
    "tracking": set[str](),
    "search_spaces": {"methods"},
    "workers": {"methods", "tracking"},
    "orchestrator": {"methods", "tracking", "search_spaces", "workers"},
}

#: What each folder may import of the other folders of its room.
MAY_IMPORT_INSIDE = {
    "orchestrator": {
        "commands": {"cluster", "loop", "agenda", "specification"},
        "cluster": {"loop", "agenda", "specification"},
        "loop": {"agenda", "specification"},
        "agenda": {"specification"},
        "specification": set[str](),
    },
    "tracking": {
        "report": {"comparison", "statistics"},
        "comparison": {"statistics"},
        "statistics": set[str](),
        "mlflow_mirror": {"ledger", "comparison", "report"},
        "ledger": set[str](),
    },
    "methods": {
        "structure": set[str](),
        "criteria": {"structure"},
        "scop": {"structure", "criteria"},
        "provable": {"structure", "criteria"},
        "functionality": {"structure", "criteria"},
        "weight_gates": {"structure", "criteria"},
        "stripe_wise": {"structure", "criteria"},
        "testing": {"structure"},
    },
    "workers": {
        "data": set[str](),
        "models": set[str](),
        "networks": set[str](),
        "node": {"data", "networks"},
        "training": {"data", "networks", "node"},
        "timing": {"training", "node"},
    },
}

#: Outside systems and the only places that know them.
HOMES = {
    "optuna": {"search_spaces"},
    "mlflow": {"tracking.mlflow_mirror"},
    "sqlalchemy": {"tracking.ledger", "tracking.mlflow_mirror", "tracking.database_url"},
    "alembic": {"tracking.ledger"},
    "pandas": {"tracking.comparison.frames", "orchestrator.stored_sweep"},
    "ray": {"workers.node", "orchestrator.cluster"},
    "torch_pruning": {"methods.structure"},
}

MOST_MODULES = 16  #: Of a folder, `__init__` included.


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
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            is_home = any(f"{name}.".startswith(f"{home}.") for home in HOMES[system])
            assert system not in tops or is_home, file


@pytest.mark.parametrize("room", MAY_IMPORT_INSIDE)
def test_folders_of_a_room_import_one_way(room: str) -> None:
    for box, uses in folder_graph().items():
        if box.startswith(f"{room}."):
            inside = {use.partition(".")[2] for use in uses if "." in use}
            assert inside <= MAY_IMPORT_INSIDE[room][box.partition(".")[2]], box


def test_no_imports_go_in_a_circle() -> None:
    graph = {box: uses & box_graph().keys() for box, uses in box_graph().items()}
    assert graph.keys() >= {"orchestrator.sweep", "workers.trial", "methods.base"}
    while ends := [box for box, uses in graph.items() if not uses]:
        graph = {box: uses - {*ends} for box, uses in graph.items() if box not in ends}
    assert graph == {}


def test_no_folder_is_a_heap() -> None:
    folders = {file.parent for package in MAY_IMPORT for file in modules(package)}
    heaps = {str(f): n for f in folders if (n := len(list(f.glob("*.py")))) > MOST_MODULES}
    assert heaps == {}


def test_the_picture_of_the_house_is_drawn_from_the_code() -> None:
    assert picture() in PAGE.read_text(encoding="utf-8"), "make docs draws it anew"


def test_workers_take_nothing_of_tracking_but_files_and_how_results_are_read() -> None:
    for file in modules("workers"):
        used = {name for name in imports_of(file) if name.partition(".")[0] == "tracking"}
        files = {"tracking.artifacts", "tracking.private_files"}
        assert used <= {*files, "tracking.answers", "tracking.results"}, file


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
