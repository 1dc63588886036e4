"""Hosts with addresses of their own: network namespaces of this machine, joined by a switch."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.orchestrator.ray_cluster import Host


class NoNamespacesError(Exception):
    """This machine, or this user, cannot make network namespaces."""


class Network:
    """Hosts on one network, which can be cut off one by one; on Linux, by root.

    Their processes and files are this machine's; their network is not, nor has it a way out.

    Args:
        hosts: How many.

    Raises:
        NoNamespacesError: They cannot be made here.
    """

    def __init__(self, hosts: int) -> None:
        name = f"sweep-{os.getpid()}"
        self._switch = f"{name}-switch"
        self._namespaces = [f"{name}-{number}" for number in range(1, hosts + 1)]
        self.hosts = [
            Host(address=f"10.77.0.{number}", enter=("ip", "netns", "exec", namespace))
            for number, namespace in enumerate(self._namespaces, 1)
        ]
        try:
            self._build()
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            why = getattr(error, "stderr", None) or str(error)
            raise NoNamespacesError(f"no network namespaces here: {why.strip()}") from error

    def _build(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "name", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        for host, namespace in zip(self.hosts, self._namespaces, strict=True):
            _ip("netns", "add", namespace)
            peer = ("type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("-n", self._switch, "link", "add", "name", _port(host), *peer)
            _ip("-n", self._switch, "link", "set", _port(host), "master", "switch", "up")
            _ip("-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", device, "up")
            # leads nowhere; programs ask it which address is their own
            _ip("-n", namespace, "route", "add", "default", "dev", "eth0")

    def cut(self, host: Host) -> None:
        """Pull a host's cable: what is sent to it, or by it, is lost without a word."""
        _ip("-n", self._switch, "link", "set", _port(host), "down")

    def mend(self, host: Host) -> None:
        """Put the cable back."""
        _ip("-n", self._switch, "link", "set", _port(host), "up")

    def close(self) -> None:
        """Take everything down, once nothing runs there any more."""
        for namespace in (*self._namespaces, self._switch):
            if os.path.exists(f"/run/netns/{namespace}"):
                _ip("netns", "delete", namespace)


@contextmanager
def network(hosts: int) -> Iterator[Network]:
    """Have a network until the block ends.

    Raises:
        NoNamespacesError: It cannot be made here.
    """
    made = Network(hosts)
    try:
        yield made
    finally:
        made.close()


def _port(host: Host) -> str:
    """Return the name of a host's port at the switch."""
    return f"port{host.address.rpartition('.')[2]}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
