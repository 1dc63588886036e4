"""What a sweep does before its first trial, said on a terminal from the first second."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status


class Phases:
    """One line that says what is going on; nothing where no terminal shows it.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def __call__(self, text: str) -> None:
        """Show what begins now, in place of what was before."""
        if not self.console.is_terminal or self.console.quiet:
            return
        if self._status is None:
            self._status = self.console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def end(self) -> None:
        """Leave the terminal to others."""
        if self._status is not None:
            self._status.stop()
            self._status = None
