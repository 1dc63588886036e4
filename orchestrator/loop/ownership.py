"""Who runs a sweep: one driver waits until it is free, and takes it."""

import os
import socket
import time
from contextlib import suppress

from orchestrator.agenda.front_controls import settled
from orchestrator.agenda.survey import Survey
from orchestrator.errors import SpecChangeError, SweepCancelledError
from orchestrator.specification.changes import as_begun, forbidden_changes
from orchestrator.specification.extensions import Extension
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.stored import spec_of
from tracking.errors import SweepHeldError, UnknownSweepError
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter
from tracking.records import LeaseRecord


def driver_name() -> str:
    """Name this process, as the owner of a sweep."""
    return f"{socket.gethostname()}:{os.getpid()}"


def wait_until_free(ledger: Ledger, sweep: str, wait_s: float) -> None:
    """Wait until no driver is known to run a sweep: only `take` makes sure of it.

    Raises:
        SweepHeldError: One still does after ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    while (lease := _lease(ledger, sweep)) is not None:
        if time.monotonic() >= deadline:
            raise SweepHeldError(sweep, lease)
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def refuse_cancelled(ledger: Ledger, sweep: str) -> None:
    """Refuse a sweep nothing of which is to be run.

    Raises:
        SweepCancelledError: It was cancelled as a whole.
    """
    with suppress(UnknownSweepError):
        if ledger.sweep(sweep).cancellations.whole:
            raise SweepCancelledError(sweep)


def _lease(ledger: Ledger, sweep: str) -> LeaseRecord | None:
    with suppress(UnknownSweepError):
        lease = ledger.lease(ledger.sweep(sweep).id)
        return None if lease is None or lease.is_over else lease
    return None


def take(
    ledger: Ledger, spec: SweepSpec, surveyed: Survey, *, extend: Extension | bool
) -> tuple[SweepWriter, SweepSpec]:
    """Create a sweep, or take it over if the specification allows.

    Args:
        ledger: Where the sweep is, or will be.
        spec: What is asked for now.
        surveyed: What it stands on, which settles what the specification leaves open.
        extend: More than before may be asked for; the request, if there is one.

    Returns:
        What writes the sweep, and the specification as it is stored.

    Raises:
        SpecChangeError: The name belongs to a sweep that would give other results.
        SweepHeldError: Another driver runs it now.
    """
    try:
        record = ledger.sweep(spec.name)
    except UnknownSweepError:
        spec = settled(spec, surveyed)
        ledger.create_sweep(spec.name, spec.model_dump(mode="json"), spec.spec_hash)
        return ledger.take_over(spec.name, driver_name()), spec
    before = spec_of(record)
    if changes := forbidden_changes(before, spec, extend=bool(extend)):
        raise SpecChangeError(spec.name, changes)
    spec = settled(as_begun(spec, before), surveyed)
    # Taken over first: until then, its driver of before could still write by the old specification.
    writer = ledger.take_over(spec.name, driver_name())
    # The request along with what it changes: made again after a kill, it is known.
    request = extend.to_json() if isinstance(extend, Extension) else None
    writer.amend_spec(spec.model_dump(mode="json"), spec.spec_hash, request)
    return writer, spec
