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
    StaleAttemptError,
    SweepExistsError,
    TrackingError,
    TransitionError,
    UnknownSweepError,
    UnknownTrialError,
    UnstorableError,
    redact,
)
from tracking.records import (
    AttemptRecord,
    EntryRecord,
    MetricPoint,
    NewEntry,
    Outcome,
    Role,
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
    "LedgerError",
    "LedgerSchemaError",
    "LedgerUnreachableError",
    "LedgerUrlError",
    "MetricPoint",
    "NewEntry",
    "Outcome",
    "Role",
    "StaleAttemptError",
    "SweepExistsError",
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
]
