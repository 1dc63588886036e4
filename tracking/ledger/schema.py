"""Revisions of the ledger's schema: which one a database has, and bringing it up to date.

A new ledger is made from `tables`, which are the newest revision; `migrations` leads there from
every older one, and a test compares the two.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tracking.errors import LedgerSchemaError, NewLedgerError, OldLedgerError
from tracking.ledger import tables

if TYPE_CHECKING:
    from alembic.config import Config

#: Oldest first; the last one is what this version reads and writes.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
HEAD = REVISIONS[-1]
_UNNUMBERED = "ledger_schema"  # a table of ledgers from before there were revisions: 0001 today


def revision_of(connection: sa.Connection, url: str) -> str | None:
    """Return the revision of the ledger in a database; None: there are no tables of a ledger.

    Raises:
        LedgerSchemaError: There is half a ledger, or another program's tables are in the way.
    """
    existing = set(sa.inspect(connection).get_table_names())
    if tables.version.name in existing:
        noted = connection.execute(sa.select(tables.version.c.version_num)).scalars().all()
        if len(noted) != 1:
            raise LedgerSchemaError(url, f"a ledger with {len(noted)} revisions", HEAD)
        return str(noted[0])
    if _UNNUMBERED in existing:
        return REVISIONS[0]
    alone = connection.dialect.name == "sqlite"  # a server's database may be shared with MLflow
    foreign = existing if alone else existing & set(tables.metadata.tables)
    if foreign:
        names = ", ".join(sorted(foreign)[:5])
        raise LedgerSchemaError(url, f"tables that are not a ledger's: {names}", HEAD)
    return None


def check(revision: str, url: str) -> None:
    """Refuse a ledger that this version does not read.

    Raises:
        OldLedgerError: `upgrade` brings it up to date.
        NewLedgerError: A newer version made it.
    """
    if revision not in REVISIONS:
        raise NewLedgerError(url, revision, HEAD)
    if revision != HEAD:
        raise OldLedgerError(url, revision, HEAD)


def create(connection: sa.Connection) -> None:
    """Make the tables of a new ledger."""
    tables.metadata.create_all(connection, checkfirst=False)
    connection.execute(sa.insert(tables.version).values(version_num=HEAD))


def upgrade(connection: sa.Connection, revision: str) -> None:
    """Lead a ledger from an older revision to the newest, in the transaction of ``connection``."""
    from alembic import command  # a tenth of a second that every other command is spared

    config = alembic_config(connection)
    if not sa.inspect(connection).has_table(tables.version.name):
        command.stamp(config, revision)
    command.upgrade(config, "head")


def alembic_config(connection: sa.Connection) -> "Config":
    """Return what Alembic's commands need to work on the ledger behind ``connection``."""
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
