"""Signals that tell a command to stop: each ends it as Ctrl-C does, from first line to last."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

#: Ctrl-C, what `kill` and schedulers send, and a terminal that is closed.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED: Final = 130  #: Exit code of a command that was stopped.

Handler = Callable[[int, Any], object]

_came: list[int] = []  # stop signals that interrupted this process


def interrupt(number: int, _frame: object) -> NoReturn:
    """Handle a stop signal as Python handles Ctrl-C.

    Raises:
        KeyboardInterrupt: Always.
    """
    _came.append(number)
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Say whether a stop signal came: libraries make other errors of `KeyboardInterrupt`."""
    return bool(_came)


@contextmanager
def on_stop_signals(handler: Handler = interrupt) -> Iterator[None]:
    """Have stop signals handled by ``handler`` in the block, and as before afterwards.

    What is ignored stays so, as `nohup` and shells want it. Elsewhere than in the main thread
    nothing changes, because Python handles signals there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, found in before.items():
        if found is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, found in before.items():
            signal.signal(number, found if found is not None else signal.SIG_DFL)


@contextmanager
def held_back() -> Iterator[None]:
    """Have stop signals handled once the block has ended: it is not left half-way."""
    came: list[int] = []
    with on_stop_signals(lambda number, _: came.append(number)):
        yield
    if came:
        signal.raise_signal(signal.Signals(came[0]))


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Have stop signals handled in the block, and after it, as before it, whatever it installs.

    A handler that the block installed and that ends Python when SIGTERM comes is taken for a stop.
    Processes that are started in the block do not hear of a closed terminal: who started them
    ends them.

    Raises:
        KeyboardInterrupt: A stop signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # inherited by processes
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)  # one that came meanwhile is handled now


def leave_at_once(code: int) -> None:
    """Let a stop signal end this process from now on: all is said and done, and only Ray closes."""

    def leave(_number: int, _frame: object) -> None:
        os._exit(code)

    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)
