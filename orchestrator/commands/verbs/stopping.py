"""Verbs that end a sweep, or some of it, from whatever machine reaches its ledger."""

from typing import Annotated

import typer

from orchestrator.commands.exits import FAILED
from orchestrator.commands.verbs.options import AsJson, Ledger, Name, Store


def stop(
    name: Name,
    wait: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds to wait for its driver to end.", metavar="SECONDS"),
    ] = 60.0,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Stop the driver of a sweep in good order, wherever it runs."""
    from orchestrator.commands import stopping, views
    from orchestrator.commands.lookup import RecordsAt, find_sweep

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = stopping.stop(found, wait)
    views.show(facts, stopping.view, as_json=as_json)
    raise typer.Exit(FAILED if facts["driver"] and not facts["stopped"] else 0)


def cancel(
    name: Name,
    arm: Annotated[
        str | None, typer.Option(help="Only this arm or control.", metavar="ARM")
    ] = None,
    trial: Annotated[
        str | None,
        typer.Option(
            help="Only this trial: its number, or the first digits of its uid.", metavar="TRIAL"
        ),
    ] = None,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Run no more of a sweep, of an arm or of a trial; what has run is kept."""
    from orchestrator.commands import cancelling, views
    from orchestrator.commands.lookup import RecordsAt, find_sweep

    if arm is not None and trial is not None:
        raise typer.BadParameter("name an arm or a trial, not both")
    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = cancelling.cancel(found, arm=arm, trial=trial)
    views.show(facts, cancelling.view, as_json=as_json)
