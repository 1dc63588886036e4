"""How the command ends: known errors become one message and an exit code of their kind."""

from typing import Any

import typer
from typer.core import TyperGroup

from orchestrator.errors import PrunesweepError
from tracking.errors import redact_text

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


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
            typer.echo(redact_text(str(error)), err=True)
            raise typer.Exit(code) from None


def exit_code(error: Exception) -> int | None:
    """Return what a known error ends the command with; None for a mistake of our own."""
    from methods.errors import MethodError
    from search_spaces.errors import SearchSpaceError
    from tracking.errors import FencedError, TrackingError
    from workers.errors import WorkerError

    if isinstance(error, PrunesweepError):
        return error.exit_code
    if isinstance(error, FencedError):
        return FAILED
    known = isinstance(error, TrackingError | WorkerError | MethodError | SearchSpaceError)
    return BAD_INPUT if known else None
