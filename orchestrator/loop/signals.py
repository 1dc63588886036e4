"""How a driver ends that is told to stop, and in what state it leaves its sweep."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.errors import SweepFailedError
from orchestrator.loop.driver import Driver
from tracking.errors import TrackingError
from tracking.ledger.writer import SweepWriter
from tracking.records import SweepState


@contextmanager
def stopping_on_signals(driver: Driver) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM stop the driver in good order; the second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        driver.stop()
        for number, handler in before.items():
            signal.signal(number, handler)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def left_in_order(writer: SweepWriter) -> Iterator[None]:
    """Record that a sweep is interrupted when anything but its end or failure stops the driver."""
    try:
        yield
    except SweepFailedError:
        raise
    except BaseException:
        with suppress(TrackingError):
            writer.set_state(SweepState.INTERRUPTED)
        raise
