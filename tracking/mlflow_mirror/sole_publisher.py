"""One publisher per sweep: a second one waits until the first has ended.

A driver that was killed leaves its publisher behind for a moment, and the driver that resumes the
sweep starts another; two of them at once could create a run twice.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TextIO

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tracking.private_files import open_private

POLL_S = 0.5
CONNECT_TIMEOUT_S = 5


@contextmanager
def sole_publisher(ledger_url: str, sweep: str, stop: Event) -> Iterator[Callable[[], bool]]:
    """Wait for the right to publish a sweep, until ``stop`` is set, and hold it in the block.

    The right ends with the process that holds it, however that ends. A SQLite ledger has a lock
    file beside it, a PostgreSQL ledger an advisory lock, which its server forgets when it is
    started again; then another publisher may be first.

    Yields:
        What says whether this one has the right now; if it was lost and is free, it is taken again.
    """
    url, digest = sa.make_url(ledger_url), hashlib.sha256(sweep.encode()).digest()
    is_file = url.get_backend_name() == "sqlite"
    lock = _FileLock(url, digest) if is_file else _AdvisoryLock(url, digest)
    try:
        while not lock.take() and not stop.wait(POLL_S):
            pass
        yield lock.take
    finally:
        lock.release()


class _FileLock:
    def __init__(self, url: sa.URL, digest: bytes) -> None:
        database = Path(url.database or "").absolute()
        self._path = database.with_name(f"{database.name}.publisher-{digest.hex()[:12]}")
        self._file = self._opened()

    def _opened(self) -> TextIO:
        return open(self._path, "a", opener=open_private)

    def take(self) -> bool:
        if not self._is_there():  # removed, along with the ledger: others lock another file
            self._file.close()
            self._file = self._opened()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self._is_there()

    def _is_there(self) -> bool:
        """Say whether the file that is open is the one that others find."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        self._file.close()


class _AdvisoryLock:
    def __init__(self, url: sa.URL, digest: bytes) -> None:
        self._engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",  # no transaction that would sit idle
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        )
        key = int.from_bytes(digest[:8], signed=True)
        self._try = sa.select(sa.func.pg_try_advisory_lock(key))
        self._connection: sa.Connection | None = None

    def take(self) -> bool:
        try:
            self._connection = self._connection or self._engine.connect()
            return bool(self._connection.scalar(self._try))  # by whom it is held, as often as asked
        except DBAPIError:  # the server has ended, or does not answer
            self.release()
            return False

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError):
                connection.close()
