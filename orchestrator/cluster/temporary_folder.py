"""The folder in which a Ray of this machine keeps sockets and logs: tried before Ray starts."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ray._common.utils import get_default_system_temp_dir

from orchestrator.errors import InputError

#: What Ray appends, with the largest process number; the longest of its sockets.
_SOCKET: Final = "ray-12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST_SOCKET: Final = 103 if sys.platform == "darwin" else 107  #: Bytes, of the system.
LEAST_FREE: Final = 16 << 20  #: Bytes of disk, without which Ray ends half-way.


class TemporaryFolderError(InputError):
    """Ray cannot keep its files where it would."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"{self.path}, where Ray keeps sockets and logs, {self.problem}. Name another folder "
            "in RAY_TMPDIR, such as RAY_TMPDIR=/tmp."
        )


def private_temporary_folder() -> str:
    """Make a folder that nobody else enters, and return a place in it for Ray's files.

    Ray opens its own folders to everybody, and reads there where others run; so not in /tmp/ray.
    """
    folder = _system_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return os.path.join(tempfile.mkdtemp(prefix="ray-", dir=folder), "ray")  # 0700


def _system_folder() -> Path:
    named: Callable[[], str] = get_default_system_temp_dir  # RAY_TMPDIR, TMPDIR or /tmp
    return Path(named()).absolute()


def check_temporary_folder() -> None:
    """Refuse a folder in which Ray would fail after half a minute, with another reason.

    Raises:
        TemporaryFolderError: It cannot be written, is full, or its sockets' paths are too long.
    """
    folder = _system_folder()
    if len(os.fsencode(folder / _SOCKET)) > LONGEST_SOCKET:
        room = LONGEST_SOCKET - len(_SOCKET) - 1
        raise TemporaryFolderError(
            str(folder), f"has a path too long for sockets, which leave {room} bytes for it"
        )
    there = folder
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise TemporaryFolderError(str(folder), f"cannot be made below {there}, no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise TemporaryFolderError(str(folder), f"cannot be written: {there} takes nothing")
        found = os.statvfs(there)
    except OSError as error:
        raise TemporaryFolderError(str(folder), f"cannot be used: {error.strerror}") from error
    if found.f_bavail * found.f_frsize < LEAST_FREE:
        raise TemporaryFolderError(str(folder), "is on a disk that is full")
