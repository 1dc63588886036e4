"""One publisher per sweep: a second one waits until the first has ended.

A driver that was killed leaves its publisher behind for a moment, and the driver that resumes the
sweep starts another; two of them at once could create a run twice.
"""

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import sqlalchemy as sa

POLL_S = 0.5
CONNECT_TIMEOUT_S = 5


@contextmanager
def sole_publisher(ledger_url: str, sweep: str, stop: Event) -> Iterator[bool]:
    """Hold the right to publish a sweep; False when ``stop`` was set before it was free.

    The right ends with the process that holds it, however that ends. A SQLite ledger has a lock
    file beside it, a PostgreSQL ledger an advisory lock.
    """
    url = sa.make_url(ledger_url)
    with ExitStack() as stack:
        open_lock = _file_lock if url.get_backend_name() == "sqlite" else _advisory_lock
        take = open_lock(url, hashlib.sha256(sweep.encode()).digest(), stack)
        held = take()
        while not held and not stop.wait(POLL_S):
            held = take()
        yield held


def _file_lock(url: sa.URL, digest: bytes, stack: ExitStack) -> Callable[[], bool]:
    database = Path(url.database or "").absolute()
    name = f"{database.name}.publisher-{digest.hex()[:12]}"
    file = stack.enter_context(database.with_name(name).open("a"))

    def take() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return take


def _advisory_lock(url: sa.URL, digest: bytes, stack: ExitStack) -> Callable[[], bool]:
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        isolation_level="AUTOCOMMIT",  # no transaction that would sit idle
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
    )
    connection = stack.enter_context(engine.connect())
    key = int.from_bytes(digest[:8], signed=True)
    return lambda: bool(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))))
