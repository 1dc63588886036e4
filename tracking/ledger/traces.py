"""What lies beside the path of a SQLite ledger and says that one was made there.

A ledger whose file is away (moved, say, or removed under a driver) looks like one that never was.
Whoever would make a new one looks here first; ``rm ledger.db*`` takes the traces along, and is how
one begins anew. Of a folder that is away as a whole nothing can be known.
"""

import glob
from pathlib import Path

from tracking.private_files import make_file

MADE = ".made"  #: An empty file beside the ledger, for as long as this one is meant to be there.


def leave(file: Path) -> None:
    """Mark that a ledger was made at this path."""
    make_file(_beside(file, MADE))


def found(file: Path) -> list[Path]:
    """Return what is left of a ledger whose file is gone: copies first, the newest at the top."""
    if file.exists():
        return []
    pattern = f"{glob.escape(file.name)}.rescued-*[0-9]"
    rescued = sorted(file.parent.glob(pattern), reverse=True)
    others = (_beside(file, end) for end in (MADE, "-wal"))
    return [*rescued, *(path for path in others if path.exists())]


def _beside(file: Path, end: str) -> Path:
    return file.with_name(f"{file.name}{end}")
