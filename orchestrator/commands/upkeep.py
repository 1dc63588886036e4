"""Looking after the database of a ledger: which schema it has, and bringing that up to date."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.commands.lookup import RecordsAt, no_ledger, require_variables
from tracking.errors import MissingLedgerError
from tracking.ledger.database import Database
from tracking.ledger.schema import HEAD


def current(at: RecordsAt) -> dict[str, Any]:
    """Say which schema the ledger of ``at`` has, and which one this version uses.

    Raises:
        NoLedgerError: There is no ledger.
        LedgerError: The database does not answer, or is another program's.
    """
    with _database(at) as database:
        revision = database.revision()
        if revision is None:
            raise MissingLedgerError(database.url)
        return {"ledger": database.url, "schema": revision, "newest": HEAD}


def upgrade(at: RecordsAt) -> dict[str, Any]:
    """Bring the ledger of ``at`` up to date; an empty PostgreSQL database becomes one.

    Raises:
        NoLedgerError: There is no file.
        LedgerError: The database does not answer, is another program's or of a newer version.
    """
    with _database(at) as database:
        before = database.upgrade()
        return {"ledger": database.url, "before": before, "schema": HEAD, "newest": HEAD}


def current_view(facts: Mapping[str, Any]) -> str:
    """Tell the schema of a ledger."""
    line = f"{facts['ledger']} has schema {facts['schema']}"
    if facts["schema"] == facts["newest"]:
        return f"{line}, the newest"
    return f"{line}; this prunesweep reads and writes schema {facts['newest']}"


def upgrade_view(facts: Mapping[str, Any]) -> str:
    """Tell what was done to a ledger."""
    if facts["before"] == facts["schema"]:
        return current_view(facts)
    was = f"schema {facts['before']}" if facts["before"] else "empty"
    return f"{facts['ledger']} was {was} and has schema {facts['schema']} now"


@contextmanager
def _database(at: RecordsAt) -> Iterator[Database]:
    url = require_variables(at.tracking()).ledger_url
    database = Database(url)
    try:
        yield database
    except MissingLedgerError:
        raise no_ledger(url) from None
    finally:
        database.close()
