"""What code that is not ours raised, told in one line with its place."""

import sysconfig
import traceback
from pathlib import Path
from typing import Final

from prunesweep import PACKAGES

_OURS: Final = tuple(Path(__file__).resolve().parents[1] / name for name in PACKAGES)
_INSTALLED: Final = tuple(
    Path(path)
    for key in ("stdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(key)) is not None
)


def told(error: BaseException) -> str:
    """Say what was raised and where: in the user's own file if the way there leads through one."""
    frames = traceback.extract_tb(error.__traceback__)
    place = users_place(error) or next(map(_place, frames[::-1]), None)
    where = f" ({place})" if place else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}".removesuffix(": ") + where


def users_place(error: BaseException) -> str | None:
    """Return the last line of the user's own files on the way to an error, if there is one."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((_place(frame) for frame in frames if _is_users(Path(frame.filename))), None)


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _is_users(file: Path) -> bool:
    return file.is_absolute() and not any(
        file.is_relative_to(place) for place in (*_INSTALLED, *_OURS)
    )
