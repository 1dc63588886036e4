"""What can go wrong when records are kept, and what to do about it."""

import re

from prunesweep import PrunesweepError
from tracking.records import LeaseRecord

_USER = re.compile(r"^(?P<head>[^:/?#]+://[^:@/?#]*)(?::.*)?@(?P<tail>[^@]*)$", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_SECRET_OPTION = re.compile(r"(?i)([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&#]*")


def redact(url: str) -> str:
    """Return the URL without its passwords, fit for messages, logs and records.

    Hides the password before the host (up to the last ``@``, so an unescaped one cannot leak) and
    every option whose name speaks of a password, secret, token or key.
    """
    match = _USER.match(url)
    if match and match.group(0) != match["head"] + "@" + match["tail"]:
        url = f"{match['head']}:***@{match['tail']}"
    return _SECRET_OPTION.sub(r"\1***", url)


def redact_text(text: str) -> str:
    """Return a text without the passwords of the URLs in it."""
    return _URL.sub(lambda url: redact(url[0]), text)


class TrackingError(PrunesweepError):
    """Records or files cannot be kept, read or shown."""


class LedgerError(TrackingError):
    """The ledger refused a request, or cannot serve it."""


class LedgerUrlError(LedgerError, ValueError):
    """A URL does not name a database the ledger can live in."""

    def __init__(self, url: str, problem: str) -> None:
        self.url, self.problem = redact(url), problem
        super().__init__(self.url, problem)

    def __str__(self) -> str:
        return (
            f"Ledger URL {self.url!r} {self.problem}; write sqlite:///path/to/ledger.db for a "
            "file or postgresql+psycopg://user@host/database for a server."
        )


class LedgerUnreachableError(LedgerError, ConnectionError):
    """The database does not answer, or does not take what is written."""

    def __init__(self, url: str, cause: str) -> None:
        self.url, self.cause = redact(url), cause
        super().__init__(self.url, cause)

    def __str__(self) -> str:
        return (
            f"The ledger {self.url} cannot be reached or written: {self.cause}. Check that the "
            "server runs and takes these credentials, or that the folder is writable and on a "
            "local disk with space left; nothing half-written stays, so the sweep can be resumed."
        )


class LedgerMovedError(LedgerUnreachableError):
    """The file of a ledger that is in use is no longer where it was."""

    def __str__(self) -> str:
        return (
            f"The ledger {self.url} is not there any more: {self.cause}. Put the file back, with "
            "its -wal and -shm if they were moved along; nobody reads what is written meanwhile."
        )


class LedgerAwayError(LedgerError, LookupError):
    """The file of a ledger is gone, and what was left beside it says that it was there."""

    def __init__(self, url: str, trace: str) -> None:
        self.url, self.trace = redact(url), trace
        super().__init__(self.url, trace)

    def __str__(self) -> str:
        is_copy = ".rescued-" in self.trace
        return (
            f"The ledger {self.url} is away: its file is gone, and {self.trace} beside it says "
            "that it was there. Put the file back, with its -wal if that was moved along"
            + (f", or rename {self.trace}, which holds all that was in it" if is_copy else "")
            + "; to begin anew, remove all that is named like it."
        )


class MissingLedgerError(LedgerError, LookupError):
    """There is no ledger where one was to be read."""

    def __init__(self, url: str) -> None:
        self.url = redact(url)
        super().__init__(self.url)

    def __str__(self) -> str:
        return f"There is no ledger at {self.url}; the first sweep that runs with it makes one."


class LedgerSchemaError(LedgerError):
    """The database holds other tables than this version reads."""

    def __init__(self, url: str, found: str, expected: str) -> None:
        self.url, self.found, self.expected = redact(url), found, expected
        super().__init__(self.url, found, expected)

    def __str__(self) -> str:
        return (
            f"The database {self.url} holds {self.found}; this prunesweep reads and writes ledger "
            f"schema {self.expected}. Name a new file or database, or use the prunesweep version "
            "that wrote this one."
        )


class OldLedgerError(LedgerSchemaError):
    """The ledger was made by an older version, and can be brought up to date."""

    def __str__(self) -> str:
        return (
            f"The ledger {self.url} has schema {self.found}; this prunesweep reads and writes "
            f"schema {self.expected}. Let its drivers end, then bring it up to date, all records "
            "kept: prunesweep db upgrade LEDGER, where LEDGER is this address."
        )


class NewLedgerError(LedgerSchemaError):
    """The ledger was made, or brought up to date, by a newer version."""

    def __str__(self) -> str:
        return (
            f"The ledger {self.url} has schema {self.found}, which this prunesweep does not know; "
            f"it reads and writes schema {self.expected}. Upgrade prunesweep on this machine."
        )


class SweepExistsError(LedgerError, ValueError):
    """A sweep of this name is already recorded."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"There is already a sweep {self.name!r}, and a name stands for one sweep. Resume it, "
            "or give the new one another name."
        )


class UnknownSweepError(LedgerError, LookupError):
    """No sweep of this name is recorded."""

    def __init__(self, name: str, nearest: str | None = None) -> None:
        super().__init__(name, nearest)
        self.name, self.nearest = name, nearest

    def __str__(self) -> str:
        hint = f"did you mean {self.nearest!r}?" if self.nearest else "start one under that name."
        return f"There is no sweep {self.name!r} in this ledger; {hint}"


class UnknownTrialError(LedgerError, LookupError):
    """No such trial belongs to the sweep."""

    def __init__(self, trial_id: int, sweep: str) -> None:
        super().__init__(trial_id, sweep)
        self.trial_id, self.sweep = trial_id, sweep

    def __str__(self) -> str:
        return (
            f"Trial {self.trial_id} is not part of {self.sweep}; "
            "list the sweep's trials to see which are."
        )


class SweepHeldError(LedgerError):
    """Another driver runs the sweep."""

    def __init__(self, sweep: str, lease: LeaseRecord) -> None:
        super().__init__(sweep, lease)
        self.sweep, self.lease = sweep, lease

    def __str__(self) -> str:
        return (
            f"The sweep {self.sweep!r} is being run by {self.lease}. Wait for it, or stop it with "
            "Ctrl-C there and resume; if it has died, resume after that time."
        )


class FencedError(LedgerError):
    """Another driver has taken the sweep over, so this one may not write any more."""

    def __init__(self, sweep: str, epoch: int, current_epoch: int, owner: str | None) -> None:
        super().__init__(sweep, epoch, current_epoch, owner)
        self.sweep, self.epoch = sweep, epoch
        self.current_epoch, self.owner = current_epoch, owner

    def __str__(self) -> str:
        return (
            f"Sweep {self.sweep!r} was taken over by {self.owner} (epoch {self.current_epoch}); "
            f"this driver holds epoch {self.epoch} and may not write, for it had not renewed its "
            "lease in time. It ends here; the new driver goes on with every trial."
        )


class StaleAttemptError(LedgerError):
    """A report or result came from an attempt that is no longer the running one."""

    def __init__(self, trial_id: int, attempt: int, state: str, current_attempt: int) -> None:
        super().__init__(trial_id, attempt, state, current_attempt)
        self.trial_id, self.attempt = trial_id, attempt
        self.state, self.current_attempt = state, current_attempt

    def __str__(self) -> str:
        return (
            f"Attempt {self.attempt} of trial {self.trial_id} may not be written: the trial is "
            f"{self.state} and its latest attempt is {self.current_attempt}. Drop what the old "
            "attempt says; what is recorded stands."
        )


class TransitionError(LedgerError):
    """A trial was asked for a change of state its present state does not allow."""

    def __init__(self, trial_id: int, state: str, transition: str, needed: str) -> None:
        super().__init__(trial_id, state, transition, needed)
        self.trial_id, self.state, self.transition, self.needed = (
            trial_id,
            state,
            transition,
            needed,
        )

    def __str__(self) -> str:
        return (
            f"Trial {self.trial_id} is {self.state}; "
            f"{self.transition!r} needs a {self.needed} trial. "
            "Read its record again before deciding what to do with it."
        )


class EntryConflictError(LedgerError, ValueError):
    """The same place in a sweep was asked to hold two different trials."""

    def __init__(self, place: str, recorded_uid: str, uid: str) -> None:
        super().__init__(place, recorded_uid, uid)
        self.place, self.recorded_uid, self.uid = place, recorded_uid, uid

    def __str__(self) -> str:
        return (
            f"Entry {self.place} already stands for trial content {self.recorded_uid}, not "
            f"{self.uid}: what determines its result has changed since. Start a new sweep; it "
            "takes over finished trials of equal content."
        )


class IncompleteResultError(LedgerError, LookupError):
    """A stored result lacks what every result of its kind has."""

    def __str__(self) -> str:
        return (
            "A stored result lacks a number that every trial of its kind brings back: another "
            "version of prunesweep wrote it, or the ledger was changed by hand. Read it with the "
            "version that wrote it, or run the sweep anew under another name."
        )


class UnstorableError(LedgerError, TypeError):
    """A record holds a value that JSON cannot carry, or a time without a time zone."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(what, problem)
        self.what, self.problem = what, problem

    def __str__(self) -> str:
        return (
            f"{self.what} cannot be stored: {self.problem}. Give plain dicts, lists, strings, "
            "numbers, booleans and None; times with a time zone."
        )
