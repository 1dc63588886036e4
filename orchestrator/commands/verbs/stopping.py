"""Verbs that end a sweep, or some of it, and clear away what nobody needs: from any machine."""

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
    from orchestrator.commands import views
    from orchestrator.commands.lookup import RecordsAt, find_sweep
    from orchestrator.commands.requests import stopping

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
    from orchestrator.commands import views
    from orchestrator.commands.lookup import RecordsAt, find_sweep
    from orchestrator.commands.requests import cancelling

    if arm is not None and trial is not None:
        raise typer.BadParameter("name an arm or a trial, not both")
    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = cancelling.cancel(found, arm=arm, trial=trial)
    views.show(facts, cancelling.view, as_json=as_json)


def gc(
    name: Annotated[
        str | None, typer.Argument(help="Name of the sweep, unless --all.", metavar="NAME")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All sweeps of the ledger that share the artifacts.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """List weights that no table and no winner needs; with --delete remove them."""
    from orchestrator.commands import upkeep, views
    from orchestrator.commands.lookup import RecordsAt, find_sweep, open_existing, require_variables

    if (name is None) is not every:
        raise typer.BadParameter("name a sweep, or say --all")
    at = RecordsAt(store=store, ledger=ledger)
    with open_existing(require_variables(at.tracking()).ledger_url) as opened:
        there = [record.name for record in opened.sweeps()]
    if name is None and not there:
        views.show({"files": [], "bytes": 0}, lambda _: "There is no sweep yet.", as_json=as_json)
        return
    with find_sweep(name or there[-1], at) as found:
        facts = upkeep.collect(found, [name] if name else there, delete=delete)
    views.show(facts, upkeep.collect_view, as_json=as_json)
