"""Looking after a store: the schema of its ledger, and weights that nobody needs any more."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from orchestrator.commands.lookup import Found, RecordsAt, no_ledger, require_variables
from tracking.artifacts import ArtifactStore
from tracking.errors import MissingLedgerError
from tracking.ledger.database import Database
from tracking.ledger.schema import HEAD
from tracking.retention import remove, unneeded


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


def collect(found: Found, names: Collection[str], *, delete: bool) -> dict[str, Any]:
    """List the weights of some sweeps that nobody needs, and with ``delete`` remove them."""
    artifacts = ArtifactStore(require_variables(found.tracking).artifacts_url)
    files = unneeded(found.ledger, artifacts, names)
    if delete:
        remove(artifacts, files)
    return {
        "store": artifacts.url,
        "deleted": delete,
        "files": [asdict(file) for file in files],
        "bytes": sum(file.size for file in files),
    }


def collect_view(facts: Mapping[str, Any]) -> str:
    """Tell what is not needed, and what became of it."""
    count, size = len(facts["files"]), f"{facts['bytes'] / 1e6:.1f} MB"
    if not count:
        return f"{facts['store']} holds no weights that nobody needs."
    if facts["deleted"]:
        return f"{count} file(s) of weights removed from {facts['store']}: {size}"
    by_sweep = Counter[str]()
    for file in facts["files"]:
        by_sweep[file["sweep"]] += file["size"]
    parts = ", ".join(f"{name} {held / 1e6:.1f} MB" for name, held in by_sweep.items())
    return (
        f"{count} file(s) of weights in {facts['store']} are needed by no table and no winner: "
        f"{size} ({parts}). Nothing was removed; --delete does that."
    )


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
