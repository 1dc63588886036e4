"""Processes told apart: by the machine they run on, their number, and when they began."""

import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One process, never mistaken for another that later got its number."""

    host: str  #: Name of its machine, for people.
    pid: int
    place: str  #: Where its number means it: this boot of the machine, this pid namespace.
    birth: str  #: When it began, in the words of its operating system.


def this_process() -> Process:
    """Return the process that calls."""
    pid = os.getpid()
    return Process(host=socket.gethostname(), pid=pid, place=_place(), birth=_birth(pid) or "")


def has_ended(process: Process) -> bool:
    """Say whether a process is known to have ended; of another machine nothing is known."""
    if process.place != _place():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # there is one, of another user
    birth = _birth(process.pid)
    return birth is not None and birth != process.birth


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # containers count on their own
    except OSError:
        return socket.gethostname()


def _birth(pid: int) -> str | None:
    """Return when a process began; "ended" for one its parent has not fetched, None: hidden."""
    if Path("/proc/self/stat").exists():
        try:  # the name, in parentheses, may hold anything; then state, ..., ticks since the boot
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return "ended" if fields[0] in {"Z", "X"} else fields[19]
    with suppress(OSError):
        listed = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return listed.stdout.strip() or None
    return None
