"""A ledger that goes away under a sweep: its driver waits, and takes the sweep up where it was."""

import math
import time
from collections.abc import Callable

from orchestrator.errors import LedgerLostError
from tracking.errors import LedgerMovedError, LedgerUnreachableError, UnknownSweepError
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter

PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  #: Between two tries; each is twice as long as the last.
SOUND_S = 60.0  #: A ledger that has served for so long is back; before, it is the same outage.


class Outages:
    """What one driver bears of a ledger that does not answer, or takes nothing.

    Args:
        ledger: It.
        name: The driver's sweep.
        owner: The driver, as in `Ledger.take_over`.
        patience_s: Longest outage that is waited for.
        tell: Is given a sentence when one begins, and when it is over.
    """

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        owner: str,
        patience_s: float,
        tell: Callable[[str], None],
    ) -> None:
        self._ledger, self._name, self._owner = ledger, name, owner
        self._patience_s, self._tell = patience_s, tell
        self._back_at, self._left_s, self._pause_s = -math.inf, patience_s, PAUSE_S
        self._created_at = ledger.sweep(name).created_at
        self._rescued = False

    def outlast(self, writer: SweepWriter, error: LedgerUnreachableError) -> SweepWriter:
        """Wait until the sweep can be taken again; return what writes it from then on.

        What ran is pending again, and goes on from its checkpoints.

        Args:
            writer: The driver's own, which can write no more.
            error: What it met.

        Raises:
            LedgerLostError: The outage lasts too long.
            SweepHeldError: Another driver has taken the sweep meanwhile.
        """
        begun = time.monotonic()
        if begun - self._back_at > SOUND_S:
            self._left_s, self._pause_s = self._patience_s, PAUSE_S
        if self._left_s > 0:
            self._tell(f"{error} Waiting for it, {self._left_s:.0f} s at most.")
        self._rescue()
        while self._left_s > 0:
            tried = time.monotonic()
            time.sleep(min(self._pause_s, self._left_s))
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            try:
                self._look_again()
                writer.lease.release()  # nobody else's: it would still keep this driver out
                new = self._ledger.take_over(self._name, self._owner)
            except LedgerUnreachableError as again:
                error = again
            else:
                self._back_at = time.monotonic()
                self._tell(f"The ledger is back after {self._back_at - begun:.0f} s.")
                return new
            finally:
                self._left_s -= time.monotonic() - tried
        raise LedgerLostError(self._name, str(error)) from None

    def make_sure(self) -> None:
        """See once more that all is where others will look for it, before it is said to be.

        Raises:
            LedgerLostError: The ledger's file was removed, moved or replaced.
        """
        try:
            self._ledger.database.check_place()
        except LedgerMovedError as error:
            self._rescue()
            raise LedgerLostError(self._name, str(error)) from None

    def _look_again(self) -> None:
        """Open what lies at the ledger's path by now, and see that it is the same ledger."""
        self._ledger.database.reopen()
        try:
            found = self._ledger.sweep(self._name).created_at
        except UnknownSweepError:
            found = None
        if found != self._created_at:
            problem = "another ledger lies in its place, without the sweep that was begun here"
            raise LedgerMovedError(self._ledger.url, problem)

    def _rescue(self) -> None:
        """Save what only this process still holds open, once."""
        copy = None if self._rescued else self._ledger.database.rescue()
        if copy is not None:
            self._rescued = True
            self._tell(f"All that the removed ledger held is saved in {copy}: put it in its place.")
