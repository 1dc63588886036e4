"""Asking the driver of a sweep to stop, from whatever machine reaches its ledger."""

import time
from collections.abc import Mapping
from typing import Any

from orchestrator.commands.lookup import Found, command
from tracking.records import LeaseRecord

POLL_S = 0.25  #: Between two looks at whether it has ended.


def stop(found: Found, wait_s: float) -> dict[str, Any]:
    """Ask the driver of a sweep to stop, wait until it has, and say how that went.

    Args:
        found: The sweep.
        wait_s: How long to wait for the driver; it hears of the request within a second or two.
    """
    ledger, record = found.ledger, found.record
    lease = _alive(found)
    driver = None if lease is None else f"process {lease.process.pid} on {lease.process.host}"
    deadline = time.monotonic() + wait_s
    left = lease
    while left is not None and lease is not None and left.process == lease.process:
        ledger.ask_to_stop(record.id)  # again: a driver that met an outage began a new epoch
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
        left = _alive(found)
    is_running = left is not None and lease is not None and left.process == lease.process
    return {
        "sweep": record.name,
        "driver": driver,
        "stopped": driver is not None and not is_running,
        "state": ledger.sweep(record.name).standing,
        "resume": command("resume", record.name, found.tracking),
    }


def view(facts: Mapping[str, Any]) -> str:
    """Tell what became of the driver."""
    name = facts["sweep"]
    if facts["driver"] is None:
        return f"No driver runs {name}; there is nothing to stop. It is {facts['state']}."
    if facts["stopped"]:
        return f"{name}: {facts['driver']} has stopped. To go on: {facts['resume']}"
    return (
        f"{name}: {facts['driver']} was asked to stop and still runs. It stops at its next turn, "
        "or when its ledger or cluster answers again; ask again to wait for it."
    )


def _alive(found: Found) -> LeaseRecord | None:
    """Return who drives a sweep, and may be alive."""
    lease = found.ledger.lease(found.record.id)
    return None if lease is None or lease.is_over else lease
