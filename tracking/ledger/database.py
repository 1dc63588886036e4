"""The database under the ledger: opening it, and its transactions."""

import hashlib
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from tracking.errors import (
    LedgerAwayError,
    LedgerMovedError,
    LedgerUnreachableError,
    LedgerUrlError,
    MissingLedgerError,
    redact,
    redact_text,
)
from tracking.ledger import schema, tables, traces
from tracking.ledger.open_file import OpenFile
from tracking.private_files import make_file, make_folder

LOCK_TIMEOUT_S = 30.0  #: How long a transaction waits for another one to end.
CONNECT_TIMEOUT_S = 5
_SCHEMA_LOCK = 7_305_113_264  # any number, as long as every opener of a PostgreSQL ledger uses it


class Database:
    """Connections to one ledger, safe to share between threads; made without any of them.

    Raises:
        LedgerUrlError: The URL is not of a kind the ledger can use.
    """

    def __init__(self, url: str) -> None:
        parsed = _parse(url)
        self.url = redact(url)  #: Without passwords.
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        self._file = Path(parsed.database or "").absolute() if self._is_sqlite else None
        self._open = OpenFile(self._file) if self._file else None
        self._engine = _sqlite_engine(parsed) if self._is_sqlite else _postgresql_engine(parsed)
        if self._open:
            opened = self._open.opened
            sa.event.listen(self._engine, "connect", lambda *_: opened())
        self._insert = sqlite.insert if self._is_sqlite else postgresql.insert

    @property
    def place(self) -> str:
        """Where the ledger is, as a name that tells nothing: 16 hexadecimal digits.

        Another ledger of the same place is its successor.
        """
        where = f"{socket.gethostname()}:{self._file}" if self._file else self.url
        return hashlib.sha256(where.encode()).hexdigest()[:16]

    def prepare(self, *, create: bool) -> None:
        """Check the schema, before anything else; with ``create`` make it where there is none.

        Raises:
            MissingLedgerError: There is none, and none is to be made.
            LedgerAwayError: Its file is gone, and something beside it says that it was there.
            LedgerUnreachableError: The database does not answer within seconds, or refuses.
            LedgerSchemaError: It holds tables of another version, or another program's.
        """
        with self._translating(DBAPIError, sqlite3.Error, OSError):
            revision = self.revision()
            if revision is not None:
                schema.check(revision, self.url)
            elif self._file and (left := traces.found(self._file)):
                raise LedgerAwayError(self.url, left[0].name)
            elif not create:
                raise MissingLedgerError(self.url)
            if create:
                self._make_ready()

    def revision(self) -> str | None:
        """Return the revision of the ledger that is there, or None; creates nothing."""
        with self._translating(DBAPIError, sqlite3.Error, OSError):
            if self._file and not (self._file.is_file() and self._file.stat().st_size):
                return None
            with self.read() as connection:
                return schema.revision_of(connection, self.url)

    def upgrade(self) -> str | None:
        """Bring the schema up to date; return what it was, None for an empty database.

        Raises:
            MissingLedgerError: There is no file.
            NewLedgerError: It is of a newer version already.
            LedgerSchemaError: It holds another program's tables.
            LedgerUnreachableError: The database does not answer, or drivers keep it busy.
        """
        before = self.revision()
        if before is None and self._is_sqlite:
            raise MissingLedgerError(self.url)
        with self._translating(DBAPIError, sqlite3.Error, OSError), self._changing() as connection:
            before = schema.revision_of(connection, self.url)
            if before is None:
                schema.create(connection)
            elif before in schema.REVISIONS:
                schema.upgrade(connection, before)
            else:
                schema.check(before, self.url)
        return before

    def clock(self, connection: sa.Connection) -> datetime:
        """Return what time it is for everybody who uses this database."""
        if self._is_sqlite:  # a file on this machine
            return datetime.now(UTC)
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection for reading; it neither waits for writers nor holds them up."""
        self.check_place()
        with self._translating(OperationalError, InterfaceError), self._engine.connect() as found:
            yield found

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give one transaction: committed whole when the block ends, rolled back when it raises.

        Raises:
            LedgerMovedError: The file is no longer where it was; what was written is lost with it,
                or there again when the file is.
        """
        self.check_place()
        with (
            self._translating(OperationalError, InterfaceError),
            self._engine.connect() as connection,
        ):
            connection.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection
                self.check_place()
        if self._open:
            self._open.used()
        self.check_place()  # nobody is told that something is stored in a file that has no name

    def check_place(self) -> None:
        """See that what is open is what lies at the ledger's path; asks a server nothing.

        Raises:
            LedgerMovedError: It is not.
        """
        if self._open and (problem := self._open.problem):
            raise LedgerMovedError(self.url, problem)

    def reopen(self) -> None:
        """Let the next use open what lies at the path by now, where that is another file."""
        if self._open and self._open.is_replaced:
            self._engine.dispose()
            self._open.forget()

    def rescue(self) -> Path | None:
        """Copy a file that was removed while it is open to a new one beside; return that.

        None: there is nothing to rescue, or it cannot be done.
        """
        if not (self._open and self._open.has_no_name and self._pool_has_some):
            return None
        now = datetime.now(UTC)
        copy = self._open.path.with_name(f"{self._open.path.name}.rescued-{now:%Y%m%d-%H%M%S}")
        try:
            make_file(copy)
            with self._engine.connect() as connection, sqlite3.connect(copy) as target:
                raw: Any = connection.connection.dbapi_connection
                raw.backup(target)
            target.close()
        except (DBAPIError, sqlite3.Error, OSError):
            return None
        return copy

    @property
    def _pool_has_some(self) -> bool:
        pool = self._engine.pool
        return isinstance(pool, sa.pool.QueuePool) and pool.checkedin() > 0

    def insert_unless_there(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Build an insert that leaves a row with the same key as it is."""
        return self._insert(table).on_conflict_do_nothing()

    def close(self) -> None:
        """Close the pooled connections; the next use opens new ones."""
        self._engine.dispose()
        if self._open:
            self._open.closed()

    @contextmanager
    def _translating(self, *kinds: type[Exception]) -> Iterator[None]:
        try:
            yield
        except LedgerUnreachableError:  # said already
            raise
        except kinds as error:
            cause = redact_text(str(getattr(error, "orig", None) or error).strip())
            password = self._engine.url.password
            cause = cause.replace(str(password), "***") if password else cause
            raise LedgerUnreachableError(self.url, cause) from None

    def _enter_wal(self) -> None:
        # SQLite does not wait for its busy timeout when two openers change the journal mode
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                with self._engine.connect() as connection:
                    raw = connection.connection.dbapi_connection
                    assert raw is not None
                    mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                break
            except Exception as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise LedgerUnreachableError(self.url, f"its journal mode stays {mode!r}, not 'wal'")

    def _make_ready(self) -> None:
        """Create what is missing; of several openers at once, one does."""
        if self._file:
            make_folder(self._file.parent)
            make_file(self._file)  # SQLite gives its mode to the -wal and -shm beside it
            traces.leave(self._file)
            self._enter_wal()
        with self.read() as connection:
            if schema.revision_of(connection, self.url) is not None:
                return
        with self._changing() as connection:
            if schema.revision_of(connection, self.url) is None:
                schema.create(connection)

    @contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        """Give a transaction in which nobody else changes the schema."""
        with self.write() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            yield connection


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise LedgerUrlError(url, "is not a database URL") from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise LedgerUrlError(url, f"names {parsed.get_backend_name()!r}, which is not supported")
    if parsed.get_backend_name() == "postgresql" and url.partition("?")[0].count("@") > 1:
        raise LedgerUrlError(url, "has an '@' in its password or name, to be written %40")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise LedgerUrlError(url, "names no file, so nothing would outlive this process")
    return parsed


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=tables.encode,
        json_deserializer=tables.decode,
        hide_parameters=True,
        connect_args={"timeout": LOCK_TIMEOUT_S},
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=tables.encode,
        json_deserializer=tables.decode,
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": 30_000},
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S:g}s'")
            # a driver that froze in a transaction must not keep its successor out
            cursor.execute("SET idle_in_transaction_session_timeout = '20s'")
        connection.commit()

    return engine
