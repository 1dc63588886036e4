"""What the command writes to where nothing can be written: the work stands, and one line says so.

A pipe whose reader has gone, a disk that is full, a terminal that cannot show a character: none of
them may undo a sweep of hours, or hide its result behind a traceback.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT_LOST: Final = os.EX_IOERR  #: 74, exit code of a command whose output could not be written.
_OUT, _ERR = 1, 2

_outputs: list["_Output"] = []  # in force now: standard output, standard error


class _Output(io.FileIO):
    """A descriptor that takes everything; from the first failure on it keeps nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.problem: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        if self.problem is None:
            try:
                return super().write(data)
            except OSError as error:
                self.problem = error
        return memoryview(data).nbytes


@contextmanager
def outputs_guarded() -> Iterator[None]:
    """In the block, write to the standard streams without an error, whatever becomes of them.

    Characters that an encoding lacks are replaced.
    """
    _open_what_is_closed()
    before = sys.stdout, sys.stderr
    _outputs[:] = [_Output(_OUT), _Output(_ERR)]
    sys.stdout, sys.stderr = map(_text, _outputs, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        _outputs.clear()
        sys.stdout, sys.stderr = before


def output_problem() -> str | None:
    """Say why the standard output takes nothing more; None: it has taken all so far."""
    if not _outputs:
        return None
    sys.stdout.flush()
    problem = _outputs[0].problem
    return None if problem is None else problem.strerror or str(problem)


def _text(output: _Output, before: TextIO | None) -> io.TextIOWrapper:
    is_terminal = output.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=getattr(before, "encoding", None),
        errors="replace",
        line_buffering=is_terminal or output.fileno() == _ERR,
        write_through=getattr(before, "write_through", False),
    )


def _open_what_is_closed() -> None:
    """Keep the numbers of closed standard streams from going to files, a ledger among them."""
    for number in (0, _OUT, _ERR):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free: this one
