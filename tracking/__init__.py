"""What happened: records, the ledger, publishing, comparison and report.

The records and errors are imported from here. `tracking.ledger` (SQLAlchemy), `tracking.artifacts`
and the MLflow publisher are imported by module, so a worker that stores a file loads no database.
"""

from tracking.errors import (
    EntryConflictError,
    FencedError,
    LedgerError,
    LedgerSchemaError,
    LedgerUnreachableError,
    LedgerUrlError,
    MissingLedgerError,
    NewLedgerError,
    OldLedgerError,
    StaleAttemptError,
    SweepExistsError,
    SweepHeldError,
    TrackingError,
    TransitionError,
    UnknownSweepError,
    UnknownTrialError,
    UnstorableError,
    redact,
    redact_text,
)
from tracking.places import Place, Role
from tracking.records import (
    AttemptRecord,
    EntryRecord,
    LeaseRecord,
    Loss,
    MetricPoint,
    Outcome,
    SweepRecord,
    SweepState,
    TrialRecord,
    TrialState,
)

__all__ = [
    "AttemptRecord",
    "EntryConflictError",
    "EntryRecord",
    "FencedError",
    "LeaseRecord",
    "LedgerError",
    "LedgerSchemaError",
    "LedgerUnreachableError",
    "LedgerUrlError",
    "Loss",
    "MetricPoint",
    "MissingLedgerError",
    "NewLedgerError",
    "OldLedgerError",
    "Outcome",
    "Place",
    "Role",
    "StaleAttemptError",
    "SweepExistsError",
    "SweepHeldError",
    "SweepRecord",
    "SweepState",
    "TrackingError",
    "TransitionError",
    "TrialRecord",
    "TrialState",
    "UnknownSweepError",
    "UnknownTrialError",
    "UnstorableError",
    "redact",
    "redact_text",
]
