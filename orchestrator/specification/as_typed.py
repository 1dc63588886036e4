"""Arms and targets as they are typed on a command line, checked before a sweep is asked for."""

import re
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError

from orchestrator.errors import Problem, SpecError
from orchestrator.specification.arms import SHORTHANDS, ArmSettings
from orchestrator.specification.extensions import stated
from orchestrator.specification.loading import lists_as_tuples
from orchestrator.specification.messages import explain
from orchestrator.specification.settings import CHECK
from orchestrator.specification.targets import TARGET_FIELDS, TargetSettings
from orchestrator.specification.yaml_reader import Path, read_yaml

ARM, TARGET = "--arm", "--target"
_COST: Final = re.compile(r"(macs|params|latency)-(\d{1,3}(?:\.\d{1,6})?)%")
_DROP: Final = re.compile(r"drop-(\d{1,3}(?:\.\d{1,6})?)")


def read_arm(text: str) -> dict[str, Any]:
    """Read an arm as a specification's ``arms`` take it: a method, or a mapping in YAML.

    Raises:
        SpecError: There is no such arm.
    """
    document = read_yaml(text, ARM)
    if document.problems:
        raise SpecError([Problem(ARM, message) for _, _, message in document.problems])
    return checked_arm(document.value)


def checked_arm(value: Any) -> dict[str, Any]:
    """Return an arm, given as plain values, as a specification holds it, in JSON.

    Raises:
        SpecError: There is no such arm.
    """
    if isinstance(value, str):
        value = {SHORTHANDS["arms"]: value}
    if not isinstance(value, Mapping):
        raise SpecError([Problem(ARM, "names no method; write l1, or {name: mine, method: l1}")])
    tree = lists_as_tuples(dict(value))
    try:
        arm = ArmSettings.model_validate(tree, strict=True, context=dict(CHECK))
    except ValidationError as error:
        raise _located(error, ARM, ("arms", 0)) from None
    return stated(arm)


def read_target(text: str) -> tuple[str, float]:
    """Read a target by its label, ``macs-70%``, or as ``macs_reduction=0.7``.

    Returns:
        The field of a specification's ``targets``, and the value.

    Raises:
        SpecError: There is no such target.
    """
    text = text.strip()
    field, _, number = text.partition("=")
    if cost := _COST.fullmatch(text):
        field, number = f"{cost[1]}_reduction", str(Decimal(cost[2]) / 100)
    elif drop := _DROP.fullmatch(text):
        field, number = "accuracy_drop", drop[1]
    value: float | None = None
    with suppress(ValueError):
        value = float(number)
    if field not in TARGET_FIELDS or value is None:
        known = ", ".join(TARGET_FIELDS)
        rule = f"write macs-70% or macs_reduction=0.7; there are {known}"
        raise SpecError([Problem(TARGET, f"{text[:60]!r} is no target; {rule}")])
    try:
        TargetSettings.model_validate({field: (value,)}, strict=True)
    except ValidationError as error:
        raise _located(error, TARGET, ("targets",)) from None
    return field, value


def _located(error: ValidationError, option: str, path: Path) -> SpecError:
    """Say what is wrong with what an option says that a specification holds at ``path``."""
    problems = []
    for at, message in explain(error, path):
        key = ".".join(map(str, at[len(path) :]))
        problems.append(Problem(": ".join(filter(None, (option, key))), message))
    return SpecError(problems)
