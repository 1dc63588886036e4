"""The token of a Ray that is started here: whoever reads it runs code as you, so only you can."""

import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import InputError

_ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  #: Where Ray is given a token of yours.
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


class TokenFileError(InputError):
    """Ray's token cannot be kept from others."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"{self.path}, where Ray keeps the token that lets programs in, {self.problem}. Give "
            "the folder to yourself (chown, chmod 700), or name another file in "
            "RAY_AUTH_TOKEN_PATH, with RAY_AUTH_MODE=token."
        )


def make_token_private() -> None:
    """Make the token file that Ray would make, readable by its owner alone, or correct the modes.

    Raises:
        TokenFileError: Folder or file belong to another user, are links, or cannot be written.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if any(os.environ.get(name) for name in _ELSEWHERE):
        return
    token = Path.home() / ".ray" / "auth_token"
    try:
        token.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        _restrict(token.parent, PRIVATE_FOLDER, stat.S_ISDIR)
        if not os.path.lexists(token):
            _make(token)
        _restrict(token, PRIVATE_FILE, stat.S_ISREG)
    except OSError as error:
        raise TokenFileError(str(token), f"cannot be used: {error.strerror}") from error


def _restrict(path: Path, mode: int, is_kind: Callable[[int], bool]) -> None:
    found = path.lstat()
    if not is_kind(found.st_mode):
        raise TokenFileError(str(path), "is a link, or something else than it should be")
    if found.st_uid != os.geteuid():
        raise TokenFileError(str(path), f"belongs to another user ({found.st_uid})")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(mode)
        if stat.S_IMODE(path.lstat().st_mode) & 0o077:
            raise TokenFileError(str(path), "stays open to others: its file system has no modes")


def _make(token: Path) -> None:
    """Write a token, whole or not at all; one that another process made meanwhile stays."""
    number, name = tempfile.mkstemp(dir=token.parent, prefix=".auth_token-")  # 0600
    try:
        with os.fdopen(number, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        os.link(name, token)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
