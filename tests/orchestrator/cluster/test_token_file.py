"""The token of a Ray on this machine: for its owner alone before Ray starts, or no Ray."""

import os
import stat
from pathlib import Path

import pytest

from orchestrator.cluster.token_file import TokenFileError, make_token_private


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_owner_alone(home: Path) -> None:
    make_token_private()
    token = home / ".ray" / "auth_token"
    assert (mode(token.parent), mode(token)) == (0o700, 0o600)
    assert len(token.read_text()) == 64
    assert os.listdir(token.parent) == ["auth_token"]


def test_one_that_ray_made_is_kept_and_closed_to_others(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o755)
    token.write_text("a" * 64)
    token.chmod(0o644)
    make_token_private()
    assert (mode(token.parent), mode(token), token.read_text()) == (0o700, 0o600, "a" * 64)


def test_a_link_is_refused(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / ".ray").symlink_to(home / "elsewhere")
    with pytest.raises(TokenFileError, match="is a link"):
        make_token_private()
    assert os.listdir(home / "elsewhere") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_another_user_is_refused(home: Path) -> None:
    (home / ".ray").mkdir()
    os.chown(home / ".ray", 12345, -1)
    with pytest.raises(TokenFileError, match=r"belongs to another user \(12345\)\. Give"):
        make_token_private()


def test_a_home_that_cannot_be_written_is_named(home: Path) -> None:
    (home / ".ray").write_text("")
    with pytest.raises(TokenFileError, match=r"auth_token, where .* cannot be used: File exists"):
        make_token_private()


@pytest.mark.parametrize(
    ("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN_PATH", "/x")]
)
def test_a_token_of_ones_own_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    make_token_private()
    assert os.listdir(home) == []
