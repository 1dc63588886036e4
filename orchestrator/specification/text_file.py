"""The text of a specification: a regular file or a pipe, of a size that people write, read once."""

import os
import stat
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from orchestrator.errors import Problem, SpecError

MOST_BYTES: Final = 256 * 1024  #: A hundred times what a long specification takes.


def read_text(path: Path) -> str:
    """Return the text of a file, or of a pipe until it ends.

    Raises:
        SpecError: There is no such file, it is none or too large, or it holds no UTF-8.
    """
    source = str(path)
    try:
        content = _content(path)
        if len(content) > MOST_BYTES:
            message = f"has more than {MOST_BYTES // 1024} KiB; no specification needs as much"
        else:
            return content.decode("utf-8-sig")
    except FileNotFoundError:
        message = f"there is no such file{_nearest_file(path)}"
    except IsADirectoryError:
        message = "is a folder; name a specification file"
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        source, message = f"{source}:{line}", "is not UTF-8 text; save it as UTF-8"
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise SpecError([Problem(source, message)])


def _content(path: Path) -> bytes:
    """Return what a file holds, at most one byte more than is allowed."""
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise ValueError("it is neither a file nor a pipe")
        return file.read(MOST_BYTES + 1)


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {str(path.parent)!r} does not exist either"
    near = [file.name for file in path.parent.iterdir() if file.suffix in {".yaml", ".yml"}]
    close = get_close_matches(path.name[:255], near, n=1)
    return f"; did you mean {str(path.with_name(close[0]))!r}?" if close else ""
