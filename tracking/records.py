"""What the ledger keeps, as data: sweeps, trials, entries, attempts and metrics.

A record is a copy of what was stored when it was read; a change is a new record. Times carry a
time zone and are in UTC.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from tracking.cancellations import Cancellations
from tracking.places import Place
from tracking.processes import Process


class TrialState(StrEnum):
    """Where a trial stands; see `tracking.ledger.states` for what may follow what."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"  #: Ended early, because it did not look promising.
    FAILED = "failed"
    CANCELLED = "cancelled"  #: By hand, or because its arm was given up.

    @property
    def is_final(self) -> bool:
        """Nothing more happens to the trial by itself."""
        return self not in {TrialState.PENDING, TrialState.RUNNING}


class SweepState(StrEnum):
    """Where a sweep stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class Outcome(StrEnum):
    """How one attempt at a trial ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"  #: Its machine, or the driver that owned it, went away.
    CANCELLED = "cancelled"


class Loss(StrEnum):
    """Why an attempt was lost."""

    WORKER = "worker"  #: Its process ended: a crash, or a signal.
    MEMORY = "memory"  #: Its process was killed because memory ran out.
    DEVICE_MEMORY = "device_memory"  #: Its share of a GPU was too small; it gets a larger one.
    HUNG = "hung"  #: It said nothing for too long.
    NODE = "node"  #: Its machine died, or is out of reach.
    PREEMPTED = "preempted"  #: Its machine was taken back, as announced.
    DRIVER = "driver"  #: The driver went away, or gave it back.

    @property
    def may_be_its_own(self) -> bool:
        """The trial may be to blame, so it is not tried again for ever."""
        return self in {Loss.WORKER, Loss.MEMORY, Loss.HUNG}


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord:
    """Everything one specification asked for."""

    id: int
    name: str
    spec: dict[str, Any]
    spec_hash: str
    state: SweepState
    epoch: int  #: Grows whenever a driver takes over; an older driver may not write.
    owner: str | None  #: The driver that holds the epoch; None before the first.
    artifacts: dict[str, str]  #: Name -> path relative to the artifact store, as ``report.html``.
    experiment_id: str | None  #: Where MLflow shows the sweep.
    run_id: str | None  #: The parent run in MLflow.
    created_at: datetime
    rev: int  #: Grows with every change of this record.
    published_rev: int  #: The ``rev`` that MLflow shows.
    stop_epoch: int | None = None  #: The driver of this epoch is asked to stop.
    cancelled: dict[str, Any] | None = None  #: What is not run any more; see `cancellations`.
    extension: dict[str, Any] | None = None  #: What was asked for last, until it is fulfilled.

    @property
    def cancellations(self) -> Cancellations:
        """What of it was cancelled by hand."""
        return Cancellations.read(self.cancelled)

    @property
    def standing(self) -> str:
        """Where it stands, for people: ``cancelled`` where nothing of it is run any more."""
        return "cancelled" if self.cancellations.whole else str(self.state)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseRecord:
    """Who drives a sweep, and until when nobody else may."""

    driver: str  #: Told apart from every other driver, of the same process too.
    process: Process
    taken_at: datetime
    expires_at: datetime  #: By the database's clock; put off while the driver lives.
    is_over: bool  #: When it was read: it had expired, or its process was known to have ended.
    note: dict[str, Any] | None = None  #: What the driver says of itself, as whom it waits for.

    def __str__(self) -> str:
        return (
            f"process {self.process.pid} on {self.process.host} since {_shown(self.taken_at)}, "
            f"until {_shown(self.expires_at)} at least"
        )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One piece of work: run once, however many entries ask for it."""

    id: int
    sweep_id: int
    uid: str  #: Content hash of all that determines the result.
    spec: dict[str, Any]
    state: TrialState
    attempt: int  #: Number of the latest attempt, from 1; 0 before the first.
    losses: int  #: Attempts lost since it was new or retried for which it may be to blame.
    result: dict[str, Any] | None
    error: str | None  #: What went wrong, for people: usually a traceback.
    cause: str | None  #: One word or line for the table: kind of failure, or why it was stopped.
    reused_from: int | None  #: Trial of an earlier sweep the result was taken from; no attempts.
    created_at: datetime
    started_at: datetime | None  #: Start of the latest attempt.
    ended_at: datetime | None  #: When the state became final.
    rev: int  #: Grows with every change of the trial, its attempts, metrics or entries.
    published_rev: int  #: The ``rev`` that MLflow shows; smaller than ``rev``: to be published.


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryRecord:
    """A place in a sweep that wants a trial. Several entries may point at one trial."""

    id: int
    sweep_id: int
    place: Place
    trial_id: int
    proposal: dict[str, Any] | None  #: What rebuilds the sampler: params and its attributes.
    at: datetime  #: When it was first wanted.


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRecord:
    """One execution of a trial."""

    trial_id: int
    n: int  #: From 1.
    node: str  #: Name of the machine, as what runs trials tells them apart.
    pid: int
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None  #: None while it runs.
    loss: Loss | None  #: Why it was lost; None otherwise, and where an older version wrote it.
    error: str | None  #: Why it ended, unless it completed.
    run_id: str | None  #: Its run in MLflow.


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricPoint:
    """One value of a curve."""

    step: int
    key: str
    value: float  #: NaN and infinities are kept as they came.
    at: datetime
