"""How the command ends: known errors become one message and an exit code of their kind."""

import os
from collections.abc import Mapping
from typing import Any, Final

import typer
from typer.core import TyperGroup

from methods.errors import MethodError
from orchestrator.errors import InputError, LedgerLostError, StoreLostError, SweepError
from orchestrator.loop.interrupts import INTERRUPTED
from prunesweep import PackageInTheWayError, PrunesweepError
from search_spaces.errors import SearchSpaceError
from tracking.errors import FencedError, TrackingError, redact_text
from tracking.plain_text import visible_lines
from workers.errors import WorkerError

FAILED, BAD_INPUT = 1, 2

#: What a family ends the command with; the one nearest to an error decides.
EXIT_CODES: Final[Mapping[type[PrunesweepError], int]] = {
    InputError: BAD_INPUT,
    MethodError: BAD_INPUT,
    SearchSpaceError: BAD_INPUT,
    TrackingError: BAD_INPUT,
    FencedError: FAILED,  # another driver goes on with the sweep
    WorkerError: BAD_INPUT,
    SweepError: FAILED,
    PackageInTheWayError: BAD_INPUT,
    LedgerLostError: os.EX_TEMPFAIL,  # 75: the same command may succeed later
    StoreLostError: os.EX_TEMPFAIL,
}


class ErrorsAsMessages(TyperGroup):
    """Shows a known error as its message, and ends with the exit code of its kind."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that ``ctx`` holds."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            code = exit_code(error)
            if code is None or ctx.params.get("debug"):
                raise
            typer.echo(visible_lines(redact_text(str(error))), err=True)
            raise typer.Exit(code) from None


def exit_code(error: Exception) -> int | None:
    """Return what a known error ends the command with; None for a mistake of our own."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), None)
