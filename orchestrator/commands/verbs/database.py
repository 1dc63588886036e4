"""Verbs that look after the database of a ledger."""

from typing import Annotated

import typer

from orchestrator.commands.verbs.options import AsJson, Store
from orchestrator.specification.variables import LEDGER

Database = Annotated[
    str | None,
    typer.Argument(envvar=LEDGER, help="Its database URL; the store's without.", metavar="LEDGER"),
]


def current(ledger: Database = None, store: Store = None, as_json: AsJson = False) -> None:
    """Show which schema a ledger has."""
    from orchestrator.commands import upkeep, views
    from orchestrator.commands.lookup import RecordsAt

    facts = upkeep.current(RecordsAt(store=store, ledger=ledger))
    views.show(facts, upkeep.current_view, as_json=as_json)


def upgrade(ledger: Database = None, store: Store = None, as_json: AsJson = False) -> None:
    """Bring the schema of a ledger up to date; all records are kept."""
    from orchestrator.commands import upkeep, views
    from orchestrator.commands.lookup import RecordsAt

    facts = upkeep.upgrade(RecordsAt(store=store, ledger=ledger))
    views.show(facts, upkeep.upgrade_view, as_json=as_json)
