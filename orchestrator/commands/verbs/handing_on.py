"""Verbs that bring what a sweep found to where others look: files, MLflow, Optuna's dashboard."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.exits import FAILED
from orchestrator.commands.verbs.options import AsJson, Ledger, Name, Store


def export(
    name: Name,
    trial: Annotated[
        str,
        typer.Argument(
            help="Its number, the first digits of its uid, or best:ARM:TARGET.", metavar="TRIAL"
        ),
    ],
    to: Annotated[
        Path, typer.Option(help="Folder to write: new, empty, or of the same trial.", metavar="DIR")
    ],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX file, too.")] = False,
    torch_export: Annotated[
        bool, typer.Option("--torch-export", help="Write a file for torch.export.load, too.")
    ] = False,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Write a pruned network to a folder that anyone can load."""
    from orchestrator import exporting
    from orchestrator.commands import views
    from orchestrator.commands.lookup import RecordsAt, find_sweep, require_variables

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        tracking = require_variables(found.tracking)
        forms = exporting.forms_of(onnx=onnx, torch_export=torch_export)
        done = exporting.export(found.ledger, found.record, tracking, trial, to, forms)
    chosen, folder = done.trial, done.folder
    files = sorted(file.name for file in folder.iterdir())
    facts = {"trial": chosen.id, "uid": chosen.uid, "folder": str(folder), "files": files}
    words = f"Trial {chosen.id} is in {folder}: {', '.join(files)}"
    views.show(facts, lambda _: words, as_json=as_json)


def ui(
    name: Annotated[
        str | None, typer.Argument(help="Name of the sweep; all of them without.", metavar="NAME")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; a free one without.")] = None,
    store: Store = None,
) -> None:
    """Serve the MLflow UI of a store on this machine, until Ctrl-C."""
    from orchestrator.commands.lookup import NoMlflowError, RecordsAt, require_variables
    from tracking.mlflow_mirror.addresses import addresses_of
    from tracking.mlflow_mirror.server import sqlite_file, start_server

    tracking = RecordsAt(store=store).tracking()
    uri = require_variables(tracking).mlflow_url or ""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise NoMlflowError(str(file))
    with start_server(uri, tracking.artifacts_url, port=port) as server:
        for line in addresses_of(server.url, name):
            typer.echo(line)
        typer.echo("MLflow answers at this address; Ctrl-C ends it.", err=True)
        with suppress(KeyboardInterrupt):
            server.wait()
            typer.echo("MLflow ended by itself.", err=True)
            raise typer.Exit(FAILED)


def publish(
    name: Name, store: Store = None, ledger: Ledger = None, as_json: AsJson = False
) -> None:
    """Send to MLflow what it lacks of a sweep, as after an outage."""
    from orchestrator.commands import publishing, views
    from orchestrator.commands.lookup import RecordsAt, find_sweep

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = publishing.publish(found)
    views.show(facts, publishing.view, as_json=as_json)
    raise typer.Exit(FAILED if facts["left"] else 0)


def study(
    name: Name,
    to: Annotated[str, typer.Option(help="Address of an Optuna storage.", metavar="URL")],
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Write the searches of a sweep as Optuna studies, for optuna-dashboard to show."""
    from orchestrator.commands import studies, views
    from orchestrator.commands.lookup import RecordsAt, find_sweep

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = studies.write_studies(found, to)
    views.show(facts, studies.view, as_json=as_json)
