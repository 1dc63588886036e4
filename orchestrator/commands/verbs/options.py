"""Arguments and options that several verbs take."""

from typing import Annotated

import typer

from orchestrator.specification.variables import LEDGER, STORE

Spec = Annotated[str, typer.Argument(help="YAML file.", metavar="SPEC")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="In place of the file's, as in recipe.epochs=3.", metavar="KEY=VALUE"),
]
Store = Annotated[
    str | None,
    typer.Option(envvar=STORE, help="Folder of records and artifacts.", metavar="DIR"),
]
Ledger = Annotated[
    str | None,
    typer.Option(envvar=LEDGER, help="Database URL of the ledger.", metavar="URL"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Plain = Annotated[bool, typer.Option("--plain", help="Show progress as lines.")]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster that this machine is part of: auto or HOST:PORT.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Trials at a time.")]
Wait = Annotated[
    float,
    typer.Option(
        min=0.0, help="Seconds to wait for another driver's lease to end.", metavar="SECONDS"
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run and what it takes.")]
Name = Annotated[str, typer.Argument(help="Name of the sweep.", metavar="NAME")]
