"""How a driver ends that is told to stop, and in what state it leaves its sweep."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.errors import SweepFailedError
from orchestrator.loop.driver import Driver
from orchestrator.loop.interrupts import held_back, interrupt, on_stop_signals
from tracking.errors import TrackingError
from tracking.ledger.writer import SweepWriter


@contextmanager
def stopping_on_signals(driver: Driver) -> Iterator[None]:
    """Let the first stop signal end the driver's loop at its next turn; the second interrupts."""
    told = False

    def stop(number: int, frame: object) -> None:
        nonlocal told
        if told:
            interrupt(number, frame)
        told = True
        driver.stop()

    with on_stop_signals(stop):
        yield


@contextmanager
def left_in_order(writer: SweepWriter) -> Iterator[None]:
    """Record that a sweep is interrupted when anything but its end or failure stops the driver."""
    try:
        yield
    except SweepFailedError:
        raise
    except BaseException:
        with held_back(), suppress(TrackingError):
            writer.interrupt()
        raise
