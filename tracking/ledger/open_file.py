"""The file that a SQLite ledger's connections have open, held against what lies at its path.

A file that was removed or renamed takes what is written to it without a word, and everybody else
reads another one, or none. SQLite does not look, so the ledger does.
"""

import os
from contextlib import suppress
from pathlib import Path

_Identity = tuple[int, int]  # device and inode


class OpenFile:
    """One database file as it was when it was opened, and its write-ahead log.

    Args:
        path: Of the database, absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._known: _Identity | None = None
        self._known_log: _Identity | None = None
        self._must_exist = False

    def opened(self) -> None:
        """Take note of what a connection has just opened; of the first one, until `forget`."""
        self._known = self._known or _identity(self.path)

    def used(self) -> None:
        """Take note of the log, which is there once a connection was used."""
        self._known_log = self._known_log or _identity(self._log)

    def closed(self) -> None:
        """No connection is open any more; with the last one SQLite removes the log."""
        self._known_log = None

    def forget(self) -> None:
        """Take whatever lies at the path from now on; nothing is made there.

        The log of a file that was replaced is put aside: SQLite would play it into the new one.
        """
        if self._known_log and _identity(self._log) == self._known_log:
            for end in ("-wal", "-shm"):
                part = self.path.with_name(f"{self.path.name}{end}")
                with suppress(OSError):
                    part.replace(part.with_name(f"{part.name}.replaced"))
        self._known = self._known_log = None
        self._must_exist = True

    @property
    def problem(self) -> str | None:
        """What has become of the open file; None: it is where it was."""
        now = _identity(self.path)
        if now is None and (self._known or self._must_exist):
            return "its file was removed or moved while it was in use"
        if self._known and now != self._known:
            return "another file was put in the place of the one in use"
        if self._known_log and _identity(self._log) != self._known_log:
            return f"its journal {self._log.name} was removed while it was in use"
        return None

    @property
    def is_replaced(self) -> bool:
        """Something else lies at the path, which could be opened instead."""
        return self.problem is not None and _identity(self.path) is not None

    @property
    def has_no_name(self) -> bool:
        """The file, or its log, is removed for good: it lasts as long as it is open."""
        known = {self._known, self._known_log} - {None}
        try:
            numbers = os.listdir("/proc/self/fd")
        except OSError:  # no Linux: it may only have been moved, and another copy does no harm
            return self.problem is not None
        return any(_is_nameless(f"/proc/self/fd/{number}", known) for number in numbers)


def _identity(path: Path) -> _Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_nameless(descriptor: str, known: set[_Identity | None]) -> bool:
    try:
        found = os.stat(descriptor)
    except OSError:  # closed meanwhile
        return False
    return (found.st_dev, found.st_ino) in known and found.st_nlink == 0
