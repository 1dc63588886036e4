"""Files and folders that only their owner reads, unless a folder is shared with its group.

What a store holds (weights, specifications, logs) is nobody else's on a machine that several use.
A folder with the set-group-ID bit (``chmod 2770``) is there to be shared: what is made in it is
open to its group, as far as the process's umask lets it be. What exists keeps its mode.
"""

import os
import stat
from pathlib import Path
from typing import Final

PRIVATE_UMASK: Final = 0o077  #: For processes that write nothing but a store's files.
_OTHERS: Final = 0o077
_ENTER: Final = 0o011


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, those that are missing: 0700.

    Raises:
        OSError: It cannot be made, or is a file.
    """
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        path.mkdir(mode=0o770 if _is_shared(path.parent) else 0o700, exist_ok=True)


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file; one that is made is 0600. An ``opener`` for `open`."""
    mode = 0o660 if _is_shared(Path(path).parent) else 0o600
    return os.open(path, flags, mode)


def make_file(path: Path) -> None:
    """Make an empty file, 0600, where there is none, for a library that would make it readable."""
    os.close(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))


def open_to_others(path: Path) -> str | None:
    """Return the mode of a file or folder that others on this machine can read or change."""
    try:
        mode = path.stat().st_mode
        if not mode & _OTHERS or (stat.S_ISDIR(mode) and mode & stat.S_ISGID):
            return None
        if _is_shared(path.parent) or not all(p.stat().st_mode & _ENTER for p in path.parents):
            return None
    except OSError:  # not there
        return None
    return f"{stat.S_IMODE(mode):04o}"


def _is_shared(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_ISGID)
