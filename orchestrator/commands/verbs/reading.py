"""Verbs that read the ledger: how arms compare, where sweeps stand."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.commands.verbs.options import AsJson, Ledger, Name, Store

if TYPE_CHECKING:
    from tracking.comparison.comparison import Comparison


def compare(
    name: Name,
    form: Annotated[
        Literal["text", "md", "json", "html"], typer.Option("--format", help="How to write it.")
    ] = "text",
    to: Annotated[
        Path | None, typer.Option(help="File to write; standard output without it.", metavar="FILE")
    ] = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two arms or controls, or SWEEP/ARM.", metavar="ARM ARM"),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Points that a tie is closer than.", min=0.0, max=100.0)
    ] = 0.5,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Compare the arms of a sweep by what is in the ledger, finished or not."""
    from orchestrator.commands import between as pairs
    from orchestrator.commands import views
    from orchestrator.commands.lookup import RecordsAt, find_sweep
    from tracking.comparison.compare import compare as compare_arms
    from tracking.report import report

    at = RecordsAt(store=store, ledger=ledger)
    if between is not None:
        views.show(pairs.between(name, between, margin, at), pairs.view, as_json=as_json)
        return
    with find_sweep(name, at) as found:
        comparison = compare_arms(found.ledger, found.record, margin)
    writers: dict[str, Callable[[Comparison], str]] = {
        "text": report.to_text,
        "md": report.to_markdown,
        "json": report.to_json,
        "html": report.to_html,
    }
    chosen = "json" if as_json else form
    if to is not None:
        views.write_file(to, writers[chosen](comparison))
    elif chosen == "text":
        views.stdout().print(report.to_renderable(comparison))
    else:
        typer.echo(writers[chosen](comparison), nl=False)


Trial = Annotated[
    str,
    typer.Argument(
        help="Its number, the first digits of its uid, or best:ARM:TARGET.", metavar="TRIAL"
    ),
]


def list_sweeps(store: Store = None, ledger: Ledger = None, as_json: AsJson = False) -> None:
    """List all sweeps of a store: how far each has come, and whether its driver lives."""
    from orchestrator.commands import status as stand
    from orchestrator.commands import views
    from orchestrator.commands.lookup import RecordsAt, open_existing, require_variables

    at = RecordsAt(store=store, ledger=ledger)
    with open_existing(require_variables(at.tracking()).ledger_url) as opened:
        views.show(stand.list_facts(opened), stand.list_view, as_json=as_json)


def show(
    name: Name, trial: Trial, store: Store = None, ledger: Ledger = None, as_json: AsJson = False
) -> None:
    """Show one trial: what is run, its attempts and reports, its error, its files."""
    from orchestrator.commands import trials, views
    from orchestrator.commands.lookup import RecordsAt, find_sweep

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = trials.show_facts(found, trial)
    views.show(facts, trials.show_view, as_json=as_json)


def logs(
    name: Name, trial: Trial, store: Store = None, ledger: Ledger = None, as_json: AsJson = False
) -> None:
    """Show what each attempt at a trial logged."""
    from orchestrator.commands import trials, views
    from orchestrator.commands.lookup import RecordsAt, find_sweep

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = trials.logs_facts(found, trial)
    views.show(facts, trials.logs_view, as_json=as_json)


def status(
    name: Annotated[
        str | None, typer.Argument(help="Name of the sweep; all of them without.", metavar="NAME")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every two seconds, until it has ended.")
    ] = False,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Show where sweeps stand: counts, the best so far, what runs, what failed."""
    from orchestrator.commands import status as stand
    from orchestrator.commands import views
    from orchestrator.commands.lookup import RecordsAt, find_sweep, open_existing, require_variables

    at = RecordsAt(store=store, ledger=ledger)
    if name is None:
        with open_existing(require_variables(at.tracking()).ledger_url) as opened:
            views.show(stand.sweeps_facts(opened), stand.sweeps_view, as_json=as_json)
        return
    if watch and not as_json:
        stand.watch(name, at, views.stdout())
        return
    with find_sweep(name, at) as found:
        views.show(stand.status_facts(found), stand.status_view, as_json=as_json)
