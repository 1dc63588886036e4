"""What befalls a sweep besides kills: its ledger is moved or removed, signals, other commands."""

import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.chaos.saboteur import Victim
from benchmarks.chaos.world import Supervisor
from tracking.errors import LedgerError
from tracking.ledger.ledger import Ledger
from tracking.records import TrialState

RESCUE_S = 120.0  #: Longest that a driver may take to save a ledger that was removed.
LONGEST_S = 20.0  #: After which a command beside the sweep is killed, at the latest.
#: Kinds that any ledger can take, and those that want one in a file.
COMMANDS = ("extend", "export", "second", "hangup", "terminate")
FILE_KINDS = ("ledger", "deletion")


class LedgerFile:
    """The SQLite ledger of a sweep, to be moved away or removed, and put back.

    Args:
        file: It.
        name: The sweep.
        drivers: Whoever drives it.
    """

    def __init__(self, file: Path, name: str, drivers: Supervisor) -> None:
        self._file, self._name, self._drivers = file, name, drivers
        self._away = file.with_name("away")

    def move(self, _: random.Random) -> str | None:
        """Rename the file, with its log, to another folder."""
        if not self._file.exists():
            return None
        self._away.mkdir(exist_ok=True)
        for part in self._parts():
            part.rename(self._away / part.name)
        return "moved away"

    def put_back(self) -> None:
        """Undo a move; what lies there by now was made meanwhile, and goes."""
        for part in self._parts():
            part.unlink()
        for part in self._away.glob(f"{self._file.name}*"):
            part.rename(self._file.with_name(part.name))

    def remove(self, _: random.Random) -> str | None:
        """Remove the file for good, if a driver is at work that has it open."""
        if not self._is_driven():
            return None
        for part in self._parts():
            part.unlink(missing_ok=True)
        return "removed"

    def restore(self) -> None:
        """Put in its place what the driver has saved.

        Raises:
            RuntimeError: It has saved nothing.
        """
        deadline = time.monotonic() + RESCUE_S
        while not (saved := sorted(self._file.parent.glob(f"{self._file.name}.rescued-*[0-9]"))):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._file} was removed under a driver that saved nothing")
            time.sleep(0.1)
        for part in self._parts():
            part.unlink()
        saved[-1].replace(self._file)

    def _parts(self) -> list[Path]:
        names = ("", "-wal", "-shm")
        parts = [self._file.with_name(f"{self._file.name}{end}") for end in names]
        return [part for part in parts if part.exists()]

    def _is_driven(self) -> bool:
        with suppress(LedgerError), Ledger.open(f"sqlite:///{self._file}", create=False) as ledger:
            sweep = ledger.sweep(self._name)
            lease = ledger.lease(sweep.id)
            runs = ledger.counts(sweep.id)[TrialState.RUNNING] > 0
            return runs and lease is not None and lease.process.pid == self._drivers.pid
        return False


def disturbances(drivers: Supervisor, name: str, arm: str, target: str) -> Mapping[str, Victim]:
    """Return what comes from beside: each is asked for what changes nothing, and killed.

    Args:
        drivers: Run the sweep.
        name: The sweep.
        arm: One of its arms.
        target: One of its targets.
    """
    network = drivers.folder / "network"
    again = ("extend", name, "--seeds", "1", "--address", drivers.address)
    export = ("export", name, f"best:{arm}:{target}", "--to", str(network))
    second = ("run", str(drivers.spec), "--address", drivers.address, "--quiet")

    def beside(*command: str) -> Callable[[random.Random], str]:
        return lambda draw: drivers.beside(command, draw.uniform(0.0, LONGEST_S))

    return {
        "extend": Victim(kill=beside(*again)),
        "export": Victim(kill=beside(*export)),
        "second": Victim(kill=beside(*second)),
        "hangup": Victim(kill=lambda _: drivers.send(signal.SIGHUP)),
        "terminate": Victim(kill=lambda _: drivers.send(signal.SIGTERM)),
    }
