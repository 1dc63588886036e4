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
    reading.status,
    stopping.stop,
    stopping.cancel,
    handing_on.export,
    handing_on.ui,
    handing_on.publish,
    handing_on.study,
    preparing.doctor,
    preparing.methods,
    preparing.models,
)
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
    app.command()(_verb)
for _verb in DATABASE_VERBS:
    _db.command()(_verb)


@app.callback()
def prunesweep(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Find out which filter-pruning method works, on your network, at your budget."""


def main() -> None:
    """Run the command line."""
    app()
