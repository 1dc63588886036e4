"""The command as a process: what stops it, and what it ends with.

Light to import: it is there before anything that takes long.
"""

import atexit
import os
import sys
import traceback
from typing import NoReturn

from orchestrator.loop.interrupts import (
    INTERRUPTED,
    leave_at_once,
    on_stop_signals,
    was_interrupted,
)
from orchestrator.output import OUTPUT_LOST, output_problem, outputs_guarded


def run_program() -> NoReturn:
    """Run the command line and end this process; a stop signal ends it with 130 at any moment.

    Output that cannot be written costs the work nothing: one line says so, and the exit code 74.
    """
    with outputs_guarded():
        _run_and_end()


def _run_and_end() -> NoReturn:
    with on_stop_signals():
        try:
            code = _exit_code()
        except BaseException as error:  # a mistake of our own, or an import that was broken off
            code = 1
            if not (was_interrupted() or isinstance(error, KeyboardInterrupt)):
                traceback.print_exc()
        if was_interrupted() and code not in (0, INTERRUPTED):  # what a library made of it
            code = INTERRUPTED
            sys.stderr.write("Stopped.\n")
        if problem := output_problem():
            done = "" if code else " What the command did stands."
            code = code or OUTPUT_LOST
            sys.stderr.write(f"The output could not be written: {problem}.{done}\n")
    leave_at_once(code)
    if code == INTERRUPTED:
        # Python would end itself by SIGINT if a library met the interrupt while it was imported.
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def _exit_code() -> int:
    """Run the command; return what it ends with."""
    from orchestrator.commands.cli import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
