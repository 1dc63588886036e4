"""Verbs for before a sweep: what a specification can name, and whether it will hold."""

from typing import Annotated

import typer

from orchestrator.commands.exits import FAILED
from orchestrator.commands.verbs.options import AsJson, Ledger, Overrides, Spec, Store


def doctor(
    context: typer.Context,
    spec: Spec,
    overrides: Overrides = None,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Try the whole chain on a few images before anything is spent."""
    from orchestrator.commands import views
    from orchestrator.commands.doctor import examine
    from orchestrator.commands.lookup import RecordsAt
    from orchestrator.sweep import Sweep

    at = RecordsAt(store=store, ledger=ledger)
    sweep = Sweep.from_file(spec, [*(overrides or ()), *at.overrides])
    tell = (lambda _: None) if as_json else views.print_finding
    root = context.find_root()
    findings = examine(sweep, tell, debug=bool(root.params.get("debug")))
    if as_json:
        views.print_json([finding.to_json() for finding in findings])
    raise typer.Exit(0 if all(finding.ok for finding in findings) else FAILED)


def check(
    method: Annotated[
        str,
        typer.Argument(help="mine.py:Name or package.module:Name.", metavar="METHOD"),
    ],
    as_json: AsJson = False,
) -> None:
    """Try whether a method of your own keeps what every method must."""
    from orchestrator.commands import contract, views

    facts = contract.contract_facts(method)
    views.show(facts, contract.contract_view, as_json=as_json)
    raise typer.Exit(0 if facts["is_kept"] else FAILED)


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="A network as specifications name it, or a YAML file.", metavar="MODEL"
        ),
    ],
    overrides: Overrides = None,
    image: Annotated[
        str | None, typer.Option(help="Shape of one image, as 3x224x224.", metavar="CxHxW")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of logits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what of a network can be pruned: groups, their share of the MACs, what stays and why."""
    from orchestrator.commands import inspection, views

    facts = inspection.inspect_facts(model, overrides or (), image, classes)
    views.show(facts, inspection.inspect_view, as_json=as_json)


def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, alias or schedule.", metavar="NAME")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List pruning methods and schedules with their settings."""
    from orchestrator.commands import views
    from orchestrator.commands.catalog import listed

    views.show(listed.methods_facts(name), listed.methods_view, as_json=as_json)


def models(as_json: AsJson = False) -> None:
    """List the networks that a specification can name."""
    from orchestrator.commands import views
    from orchestrator.commands.catalog import listed

    views.show(listed.models_facts(), listed.models_view, as_json=as_json)
