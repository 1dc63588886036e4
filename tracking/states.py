"""What may follow what: the life of a trial as one table."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from tracking.records import TrialState


class Event(StrEnum):
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


#: Event -> (state it needs, state it leads to). Nothing leaves a final state but a retry.
TRANSITIONS: Mapping[Event, tuple[TrialState, TrialState]] = MappingProxyType(
    {
        Event.START: (TrialState.PENDING, TrialState.RUNNING),
        Event.REPORT: (TrialState.RUNNING, TrialState.RUNNING),
        Event.COMPLETE: (TrialState.RUNNING, TrialState.COMPLETED),
        Event.STOP: (TrialState.RUNNING, TrialState.STOPPED),
        Event.FAIL: (TrialState.RUNNING, TrialState.FAILED),
        Event.LOSE: (TrialState.RUNNING, TrialState.PENDING),
        Event.GIVE_UP: (TrialState.RUNNING, TrialState.FAILED),
        Event.RETRY: (TrialState.FAILED, TrialState.PENDING),
        Event.CANCEL: (TrialState.PENDING, TrialState.CANCELLED),
    }
)
