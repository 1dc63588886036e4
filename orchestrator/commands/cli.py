"""The command line: the verbs in the order in which help and `docs/cli.md` show them.

Facts go to standard output, progress and errors to standard error. Modules of verbs only declare
what can be typed, and import what a verb needs when it runs, so that help, completion and mistakes
of typing answer at once.
"""

from collections.abc import Callable
from typing import Annotated

import typer

from orchestrator.commands.exits import ErrorsAsMessages
from orchestrator.commands.verbs import (
    database,
    driving,
    handing_on,
    jobs,
    preparing,
    reading,
    stopping,
)

VERBS: tuple[Callable[..., None], ...] = (
    driving.run,
    jobs.submit,
    driving.resume,
    driving.extend,
    driving.retry,
    reading.compare,
    reading.list_sweeps,
    reading.status,
    reading.show,
    reading.logs,
    stopping.stop,
    stopping.cancel,
    stopping.gc,
    handing_on.export,
    handing_on.ui,
    handing_on.publish,
    handing_on.study,
    preparing.doctor,
    preparing.check,
    preparing.inspect,
    preparing.methods,
    preparing.models,
)
#: Of verbs whose name means something else in Python.
NAMES = {reading.list_sweeps: "list"}
DATABASE_VERBS: tuple[Callable[..., None], ...] = (database.current, database.upgrade)

app = typer.Typer(
    name="prunesweep",
    cls=ErrorsAsMessages,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show local variables, and these may hold passwords
    context_settings={"help_option_names": ["-h", "--help"]},
)
_db = typer.Typer(help="Look after the database of a ledger.", no_args_is_help=True)
app.add_typer(_db, name="db")

for _verb in VERBS:
    app.command(NAMES.get(_verb))(_verb)
for _verb in DATABASE_VERBS:
    _db.command()(_verb)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"prunesweep {version('prunesweep')}")
        except PackageNotFoundError:
            typer.echo("prunesweep, from a checkout that is not installed")
        raise typer.Exit


@app.callback()
def prunesweep(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Find out which filter-pruning method works, on your network, at your budget."""


def main() -> None:
    """Run the command line."""
    app()
