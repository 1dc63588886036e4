"""Specifications as the ledger keeps them: read again, also those of earlier versions."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import Problem, SpecError
from orchestrator.specification.spec import SweepSpec
from tracking.records import SweepRecord


def spec_of(record: SweepRecord) -> SweepSpec:
    """Return the specification a sweep has stored.

    Raises:
        SpecError: It was written by a version of prunesweep with other keys.
    """
    try:
        return SweepSpec.model_validate(as_it_ran(record.spec))
    except ValidationError as error:
        where = f"stored specification of {record.name}: "
        raise SpecError([Problem(where + key, why) for key, why in mistakes(error)]) from None


def as_it_ran(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what an earlier version did where today's default is another.

    A sweep that began then goes on as it was: its proposals were all trained.
    """
    search = stored.get("search") or {}
    return {**stored, "search": {"proxy": False, **search}}


def mistakes(error: ValidationError, *prefix: str) -> list[tuple[str, str]]:
    """Return key and message of every mistake."""
    from orchestrator.specification.messages import (
        explain,  # takes seconds to import, for it knows the methods
    )

    return [(".".join(map(str, path)), message) for path, message in explain(error, prefix)]
