"""The token of a Ray on this machine: for its owner alone before Ray starts, or no Ray."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.token_file import TokenFileError, make_token_private
from tests.checkout import ROOT


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


#: Starts Ray as a sweep does, and prints the address of every socket that its processes listen on.
LISTENERS = """
import os, subprocess
from orchestrator.cluster.connection import connect
from orchestrator.specification.settings import ResourceSettings
connect(ResourceSettings(workers=1))
import ray
ray.get(ray.remote(lambda: 0).remote())
parents = dict(map(int, line.split()) for line in
    subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines())
def is_ours(pid):
    while pid > 1 and pid != os.getpid():
        pid = parents.get(pid, 0)
    return pid == os.getpid()
inodes = set()
for pid in filter(is_ours, parents):
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        continue
    inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
for table in ("tcp", "tcp6"):
    for row in open(f"/proc/net/{table}").read().splitlines()[1:]:
        fields = row.split()
        if fields[3] == "0A" and fields[9] in inodes:
            print(fields[1].partition(":")[0])
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
def test_ray_on_this_machine_listens_on_loopback_only(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert len(found) > 3
    assert set(found) <= LOOPBACK
    assert mode(home / ".ray" / "auth_token") == 0o600
