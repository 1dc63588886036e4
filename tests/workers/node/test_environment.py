import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from workers.node import environment
from workers.node.environment import COMMIT_VARIABLE, code_version, describe_environment


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    code_version.cache_clear()
    yield
    code_version.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which the module believes to lie in."""

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "workers" / "node").mkdir(parents=True)
    (tmp_path / "workers" / "node" / "environment.py").write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(
        environment, "__file__", str(tmp_path / "workers" / "node" / "environment.py")
    )
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    return tmp_path


def test_a_clean_checkout_is_named_by_its_commit(checkout: Path) -> None:
    found = describe_environment(torch.device("cpu"))
    assert len(found["commit"]) == 40
    assert found["dirty"] is False


def test_a_changed_checkout_is_dirty(checkout: Path) -> None:
    (checkout / "workers" / "node" / "environment.py").write_text("changed")
    found = describe_environment(torch.device("cpu"))
    assert len(found["commit"]) == 40
    assert found["dirty"] is True


def test_code_inside_another_repository_does_not_take_its_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = checkout / "site-packages" / "workers"
    inside.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(inside / "node" / "environment.py"))
    found = describe_environment(torch.device("cpu"))
    assert (found["commit"], found["dirty"]) == (None, None)


def test_a_copy_without_history_is_told_by_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        environment, "__file__", str(tmp_path / "workers" / "node" / "environment.py")
    )
    monkeypatch.setenv(COMMIT_VARIABLE, "abc-dirty")
    found = describe_environment(torch.device("cpu"))
    assert (found["commit"], found["dirty"]) == ("abc", True)


def test_packages_and_device_are_named() -> None:
    found = describe_environment(torch.device("cpu"))
    assert found["packages"]["torch"] == torch.__version__
    assert set(found["packages"]) == {"torch", "torchvision", "torch-pruning", "ray", "numpy"}
    assert all(found["packages"].values())
    assert found["device"] == "cpu"
    assert found["device_name"]
    assert found["threads"] == torch.get_num_threads()
