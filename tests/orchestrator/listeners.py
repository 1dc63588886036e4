"""Which processes below another one listen where, as the kernel has it."""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

#: Of IPv4, of IPv4 in IPv6, and of IPv6.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
_LISTENS = "0A"


class Listener(NamedTuple):
    """A port, and whose it is."""

    process: str  #: Name, up to 15 characters of it.
    pid: int
    address: str  #: In hexadecimal, as in /proc/net/tcp.
    port: int

    @property
    def answers_anybody(self) -> bool:
        """It gives metrics to one who shows no token."""
        with suppress(OSError, HTTPException, ValueError):  # of what speaks no HTTP
            url = f"http://127.0.0.1:{self.port}/metrics"
            with urllib.request.urlopen(url, timeout=5.0) as answer:
                return bool(answer.status == 200)
        return False


def listeners(root: int) -> set[Listener]:
    """Return the TCP ports that a process and those it started listen on."""
    sockets = {inode: (name, pid) for pid, name in _family(root) for inode in _sockets(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == _LISTENS and fields[9] in sockets:
                address, _, port = fields[1].partition(":")
                found.add(Listener(*sockets[fields[9]], address, int(port, 16)))
    return found


def _family(root: int) -> Iterator[tuple[int, str]]:
    """Yield the process and its descendants, with their names."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            parents[int(entry.name)], names[int(entry.name)] = int(rest.split()[1]), name
    for pid, name in names.items():
        above = pid
        while above not in (0, root):
            above = parents.get(above, 0)
        if above == root:
            yield pid, name


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                link = os.readlink(f"/proc/{pid}/fd/{number}")
                if link.startswith("socket:["):
                    yield link[len("socket:[") : -1]
