"""The life of a trial: what may follow what, and the one statement that makes it so."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from tracking.ledger.tables import trials
from tracking.records import TrialState


class Transition(StrEnum):
    """Something that happens to a trial."""

    START = "start"
    REPORT = "report"
    COMPLETE = "complete"
    STOP = "stop"
    FAIL = "fail"
    LOSE = "lose"  #: The machine or the driver went away; the trial will be tried again.
    GIVE_UP = "give_up"  #: Lost once too often.
    RETRY = "retry"
    CANCEL = "cancel"
    ABORT = "abort"  #: Cancelled while it ran.
    REVIVE = "revive"  #: What was cancelled is wanted after all.


#: Transition -> (state it needs, state it leads to). Nothing leaves a final state but a retry.
TRANSITIONS: Mapping[Transition, tuple[TrialState, TrialState]] = MappingProxyType(
    {
        Transition.START: (TrialState.PENDING, TrialState.RUNNING),
        Transition.REPORT: (TrialState.RUNNING, TrialState.RUNNING),
        Transition.COMPLETE: (TrialState.RUNNING, TrialState.COMPLETED),
        Transition.STOP: (TrialState.RUNNING, TrialState.STOPPED),
        Transition.FAIL: (TrialState.RUNNING, TrialState.FAILED),
        Transition.LOSE: (TrialState.RUNNING, TrialState.PENDING),
        Transition.GIVE_UP: (TrialState.RUNNING, TrialState.FAILED),
        Transition.RETRY: (TrialState.FAILED, TrialState.PENDING),
        Transition.CANCEL: (TrialState.PENDING, TrialState.CANCELLED),
        Transition.ABORT: (TrialState.RUNNING, TrialState.CANCELLED),
        Transition.REVIVE: (TrialState.CANCELLED, TrialState.PENDING),
    }
)

_COUNTED = {
    Transition.START: ("attempt",),
    Transition.LOSE: ("losses",),
    Transition.GIVE_UP: ("losses",),
}


def move(
    connection: sa.Connection, transition: Transition, which: Mapping[str, int], **changes: Any
) -> "list[sa.Row[Any]]":
    """Move the trials that a transition is open to: the only place that changes a state.

    Args:
        connection: Transaction to write in.
        transition: What happens; trials not in the state it needs are left alone.
        which: Columns and the values they must have, ``{"sweep_id": 1}`` for a whole sweep.
        changes: New values of other columns; ``attempt`` and ``losses`` are added to what is there
            when the transition is a start or a loss.

    Returns:
        Id and attempt of each trial that was moved.
    """
    _, reached = TRANSITIONS[transition]
    if reached.is_final:
        changes["ended_at"] = datetime.now(UTC)
    elif transition in {Transition.RETRY, Transition.REVIVE}:
        changes["ended_at"] = None
    values = {f"in_{name}": value for name, value in which.items()}
    values |= {f"new_{name}": value for name, value in changes.items()}
    return list(
        connection.execute(_statement(transition, tuple(which), tuple(changes)), values).all()
    )


@cache  # building a statement takes longer than running it
def _statement(
    transition: Transition, which: tuple[str, ...], changed: tuple[str, ...]
) -> sa.Executable:
    needed, reached = TRANSITIONS[transition]
    counted = _COUNTED.get(transition, ())
    new: dict[str, Any] = {}
    for name in changed:
        column = trials.c[name]
        value = sa.bindparam(f"new_{name}", type_=column.type)
        new[name] = column + value if name in counted else value
    return (
        sa.update(trials)
        .where(
            trials.c.state == needed,
            *(trials.c[name] == sa.bindparam(f"in_{name}") for name in which),
        )
        .values(state=reached, rev=trials.c.rev + 1, **new)
        .returning(trials.c.id, trials.c.attempt)
    )
