"""Where the records of a sweep are, for a command that has only a name; nothing is created here."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from orchestrator.errors import InputError, Problem, SpecError
from orchestrator.specification.settings import CHECK, TrackingSettings
from orchestrator.specification.stored import mistakes
from orchestrator.specification.variables import LEDGER, STORE
from orchestrator.trial_choice import choose_trial
from tracking.errors import MissingLedgerError, redact
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.server import sqlite_file
from tracking.records import SweepRecord, TrialRecord

_OPTIONS: Final = {"tracking.store": "--store", "tracking.ledger": "--ledger"}


class NoLedgerError(InputError, LookupError):
    """There is no ledger where one was to be read."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file = file

    def __str__(self) -> str:
        return (
            f"There is no ledger at {self.file}. Name the folder the sweep was run with, --store "
            f"DIR or ${STORE}, or its database, --ledger URL or ${LEDGER}."
        )


class NoMlflowError(InputError, LookupError):
    """There is no MLflow store where one was to be shown."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file = file

    def __str__(self) -> str:
        return (
            f"There is no MLflow store at {self.file}. Name the folder a sweep was run with, "
            f"--store DIR or ${STORE}; `prunesweep publish NAME` fills an empty one."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordsAt:
    """Where the command line says that records are; None: it does not say."""

    store: str | None = None
    ledger: str | None = None

    @property
    def overrides(self) -> tuple[str, ...]:
        """The same as overrides of a specification."""
        given = {"tracking.store": self.store, "tracking.ledger": self._ledger_text}
        return tuple(f"{key}={_quoted(text)}" for key, text in given.items() if text is not None)

    def tracking(self, stored: TrackingSettings | None = None) -> TrackingSettings:
        """Return where to read and write: what is given here, then what the sweep has stored.

        A ledger that is not given is the one in the store, wherever that was when the sweep ran.

        Raises:
            SpecError: An address is not one, or has a password in its text.
        """
        settings = stored.model_dump() if stored else {}
        if self.ledger is None or self.store is not None:
            settings["store"] = self.store or TrackingSettings().store
        settings["ledger"] = self._ledger_text
        return _checked(settings)

    @property
    def _ledger_text(self) -> str | None:
        """Name the variable where the address came from it: what it holds is never stored."""
        from_environment = self.ledger is not None and self.ledger == os.environ.get(LEDGER)
        return f"${{{LEDGER}}}" if from_environment else self.ledger


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"  # YAML, in which such a text has no escapes


def _checked(settings: dict[str, Any], *, here: bool = False) -> TrackingSettings:
    """Validate ``settings``; with ``here`` also that every environment variable in it is set."""
    try:
        return TrackingSettings.model_validate(settings, context=CHECK if here else None)
    except ValidationError as error:
        found = mistakes(error, "tracking")
        raise SpecError([Problem(_OPTIONS.get(key, key), why) for key, why in found]) from None


def require_variables(tracking: TrackingSettings) -> TrackingSettings:
    """Return ``tracking`` once every environment variable in it is set.

    Raises:
        SpecError: One is not.
    """
    return _checked(tracking.model_dump(), here=True)


def open_existing(url: str) -> Ledger:
    """Open a ledger that is there.

    Raises:
        NoLedgerError: It is not.
        LedgerError: It cannot be used.
    """
    try:
        return Ledger.open(url, create=False)
    except MissingLedgerError:
        raise no_ledger(url) from None


def no_ledger(url: str) -> NoLedgerError:
    """Return the error of a ledger that is not there."""
    file = sqlite_file(url)
    return NoLedgerError(redact(url) if file is None else str(file))


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A sweep that is in a ledger."""

    ledger: Ledger
    record: SweepRecord
    tracking: TrackingSettings


@contextmanager
def find_sweep(name: str, at: RecordsAt) -> Iterator[Found]:
    """Open the ledger and look a sweep up.

    Raises:
        NoLedgerError: There is no ledger.
        UnknownSweepError: It has no sweep of this name.
        SpecError: An address is not one, or another version of prunesweep stored it.
    """
    with open_existing(require_variables(at.tracking()).ledger_url) as ledger:
        record = ledger.sweep(name)
        stored = _checked(record.spec.get("tracking", {}))
        yield Found(ledger=ledger, record=record, tracking=at.tracking(stored))


def find_trial(found: Found, text: str) -> TrialRecord:
    """Return the trial that ``text`` stands for: a number, the start of a uid, best:ARM:TARGET.

    Raises:
        TrialChoiceError: None or several do.
    """
    return choose_trial(found.ledger, found.record, text)


def command(verb: str, name: str, tracking: TrackingSettings) -> str:
    """Return the shell command that does ``verb`` to a sweep whose records are at ``tracking``."""
    parts = ["prunesweep", verb, *([name] if name else [])]
    parts += ["--store", shlex.quote(str(tracking.folder))]
    if tracking.ledger is not None and tracking.ledger != f"${{{LEDGER}}}":
        parts.insert(0, f'{LEDGER}="{tracking.ledger}"')  # the shell fills variables in
    return " ".join(parts)
