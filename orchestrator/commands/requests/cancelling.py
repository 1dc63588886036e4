"""Not running a trial, an arm or a whole sweep any more."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from orchestrator.commands.lookup import Found, command, find_trial
from orchestrator.errors import InputError
from orchestrator.trial_choice import TrialChoiceError
from tracking.cancellations import Cancellations
from tracking.errors import SweepHeldError
from tracking.matrix import cost_points, matrix_of
from tracking.places import DENSE, SCRATCH, is_drop
from tracking.records import SweepState, TrialState


class UnknownArmError(InputError, LookupError):
    """A sweep has no arm or control of this name."""

    def __init__(self, sweep: str, arm: str, known: list[str]) -> None:
        super().__init__(sweep, arm, known)
        self.sweep, self.arm, self.known = sweep, arm, list(known)

    def __str__(self) -> str:
        near = get_close_matches(self.arm, self.known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return (
            f"Sweep {self.sweep!r} has no arm or control {self.arm!r}{hint} "
            f"There are: {', '.join(self.known)}."
        )


class NeededControlError(InputError):
    """A control cannot be cancelled, because targets are held against it."""

    def __init__(self, sweep: str, control: str) -> None:
        super().__init__(sweep, control)
        self.sweep, self.control = sweep, control

    def __str__(self) -> str:
        return (
            f"Control {self.control!r} of sweep {self.sweep!r} cannot be cancelled: the accuracy "
            "drops of its targets are held against it. Cancel arms, or the whole sweep."
        )


def cancel(found: Found, *, arm: str | None = None, trial: str | None = None) -> dict[str, Any]:
    """Note what is not to be run any more, and see to it at once where no driver runs.

    Raises:
        UnknownArmError: There is no such arm or control.
        NeededControlError: Targets are held against it.
        TrialChoiceError: The trial cannot be told, has ended, or all others need it.
    """
    ledger, record = found.ledger, found.record
    if arm is not None:
        what = Cancellations(arms=frozenset({_known_arm(found, arm)}))
    elif trial is not None:
        what = Cancellations(uids=frozenset({_open_trial(found, trial)}))
    else:
        what = Cancellations(whole=True)
    ledger.ask_to_cancel(record.id, what)
    is_driven = True
    with suppress(SweepHeldError):
        _see_to_it(found)
        is_driven = False
    facts = ledger.sweep(record.name)
    return {
        "sweep": record.name,
        "cancelled": facts.cancellations.to_json(),
        "driver_told": is_driven,
        "trials": ledger.counts(record.id)[TrialState.CANCELLED],
        "restore": f"{command('resume', record.name, found.tracking)} --restore",
    }


def view(facts: Mapping[str, Any]) -> str:
    """Tell what is not run any more."""
    cancelled = facts["cancelled"]
    parts = ["the whole sweep"] if cancelled["whole"] else []
    parts += [f"arm {arm}" for arm in cancelled["arms"]]
    parts += [f"trial {uid[:12]}" for uid in cancelled["uids"]]
    told = "Its driver sees to it within seconds" if facts["driver_told"] else "No driver runs it"
    return (
        f"{facts['sweep']}: cancelled are {', '.join(parts)}. {told}; what has a result keeps it. "
        f"To take all of it back: {facts['restore']}"
    )


def _known_arm(found: Found, arm: str) -> str:
    """Return the name of an arm or control that the sweep asks for, or has."""
    there = {entry.place.arm for entry in found.ledger.entries(found.record.id)}
    asked = {cell.arm for cell in matrix_of(found.record.spec).cells if cell.arm != SCRATCH}
    known = sorted((there | asked) - {""})
    if arm not in known:
        raise UnknownArmError(found.record.name, arm, known)
    if arm == DENSE and any(is_drop(point.label) for point in cost_points(found.record.spec)):
        raise NeededControlError(found.record.name, arm)
    return arm


def _open_trial(found: Found, text: str) -> str:
    """Return the name of a trial that may still be cancelled, or was."""
    trial = find_trial(found, text)
    if trial.state.is_final and trial.state is not TrialState.CANCELLED:
        raise TrialChoiceError(found.record.name, text, f"it is {trial.state}: nothing to cancel.")
    entries = found.ledger.entries(found.record.id)
    roles = {entry.place.role for entry in entries if entry.trial_id == trial.id}
    if needed := {role for role in roles if role.is_needed_by_all}:
        problem = f"all others need it ({', '.join(sorted(needed))}); cancel the whole sweep."
        raise TrialChoiceError(found.record.name, text, problem)
    return trial.uid


def _see_to_it(found: Found) -> None:
    """Cancel what is pending, as the sweep's driver for that moment.

    Raises:
        SweepHeldError: A driver runs it, and does that itself.
    """
    ledger, record = found.ledger, found.record
    writer = ledger.take_over(record.name, f"prunesweep cancel on {socket.gethostname()}")
    try:
        with writer.transaction():
            writer.cancel_pending(ledger.requests(record.id).cancelled)
            was_running = record.state is SweepState.RUNNING
            writer.set_state(SweepState.INTERRUPTED if was_running else record.state)
    finally:
        writer.lease.release()
