"""Code of the user's: a file beside the specification is enough, and its content names it."""

import sys
from pathlib import Path

import pytest

import methods
from methods.own_code import OwnCodeError, code_hash, file_of, load, sources
from workers.errors import ModelError
from workers.models import build_model
from workers.settings import ModelSettings

NET = """
from torch import nn
from parts.blocks import width

def build(num_classes, in_channels):
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width(), num_classes)]
    return nn.Sequential(nn.Conv2d(in_channels, width(), 3), *head)

def narrow(classes):
    return nn.Linear(1, classes)
"""
METHOD = """
from dataclasses import dataclass
from typing import ClassVar
from methods import PruningMethod

@dataclass(frozen=True, kw_only=True)
class WeightSpread(PruningMethod):
    name: ClassVar[str] = "weight_spread"
    p: float = 2.0

    def score(self, filters):
        return filters.weight.flatten(1).std(dim=1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a network, what it imports, and a method."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ownnet_of_test.py").write_text(NET)
    (tmp_path / "mine_of_test.py").write_text(METHOD)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    (tmp_path / "parts" / "blocks.py").write_text("def width():\n    return 8\n")
    (tmp_path / "parts" / "unused.py").write_text("1\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    return tmp_path


def settings(name: str, **more: str) -> ModelSettings:
    return ModelSettings.model_validate({"name": name, **more})


def test_a_network_is_built_from_a_file_of_the_working_folder(folder: Path) -> None:
    network = build_model(settings("ownnet_of_test.py:build"), 3, 1)
    assert next(type(layer).__name__ for layer in network.children()) == "Conv2d"


def test_the_file_may_be_in_a_folder_below(folder: Path) -> None:
    assert file_of("parts/blocks.py:width") == (folder / "parts" / "blocks.py").resolve()
    assert load("parts/blocks.py:width")() == 8


def test_its_name_may_be_one_of_pythons_or_ours(folder: Path) -> None:
    (folder / "tracking.py").write_text("here = 1\n")
    (folder / "json.py").write_text("here = 2\n")
    assert load("tracking.py:here") == 1
    assert load("json.py:here") == 2
    import json

    assert json.dumps([]) == "[]"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.py:build", "there is no file 'gone.py', looked for from"),
        ("ownnet_of_test.py:nothing", "ownnet_of_test.py has no 'nothing'"),
        ("ownnet_of_test.py:a-b", "write mine.py:Name or package.module:Name"),
    ],
)
def test_what_is_not_there_is_told_with_the_call(folder: Path, name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        build_model(settings(name), 3, 1)
    assert "build(num_classes, in_channels)" in str(caught.value)


def test_a_method_is_made_from_a_file(folder: Path) -> None:
    method = methods.create("mine_of_test.py:WeightSpread", {"p": 3.0})
    assert (method.name, type(method).__name__) == ("weight_spread", "WeightSpread")
    with pytest.raises(methods.SettingsError, match="'q' is unknown"):
        methods.create("mine_of_test.py:WeightSpread", {"q": 1})


def test_what_is_no_method_is_refused(folder: Path) -> None:
    with pytest.raises(OwnCodeError, match="must be a class made of PruningMethod"):
        methods.create("ownnet_of_test.py:build")
    (folder / "broken_of_test.py").write_text("1 / 0\n")
    with pytest.raises(OwnCodeError, match="ZeroDivisionError"):
        methods.create("broken_of_test.py:X")


def test_its_content_is_the_file_and_what_it_imports_from_beside_it(folder: Path) -> None:
    name = "ownnet_of_test.py:build"
    assert set(sources(name)) == {"ownnet_of_test.py", "parts/__init__.py", "parts/blocks.py"}
    before = code_hash(name)
    (folder / "parts" / "unused.py").write_text("2\n")
    assert code_hash(name) == before
    (folder / "parts" / "blocks.py").write_text("def width():\n    return 16\n")
    assert code_hash(name) != before
    assert code_hash("torch:nn") is code_hash("workers.models:build_model") is None


def test_another_content_than_the_sweep_began_with_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="the code is not what the sweep began with"):
        build_model(settings("ownnet_of_test.py:build", code="0123456789abcdef"), 3, 1)
