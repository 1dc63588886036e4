"""Whether a method of the user's keeps the contract of methods, rule by rule."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from methods.testing.rules import RuleAnswer, ask
from workers.raised import told, users_place


def contract_facts(reference: str) -> dict[str, Any]:
    """Ask a method for every rule.

    Raises:
        MethodError: It cannot be loaded, is no method, or has no default settings.
    """
    answers = ask(reference)
    return {
        "method": reference,
        "is_kept": all(answer.is_kept for answer in answers),
        "rules": [_rule(answer) for answer in answers],
    }


def contract_view(facts: Mapping[str, Any]) -> RenderableType:
    """Show the rules, and under those that are broken what went wrong and what to do."""
    lines = [line for rule in facts["rules"] for line in _lines(rule)]
    counts = {state: sum(r["state"] == state for r in facts["rules"]) for state in _MARKS}
    told_counts = f"{counts['kept']} rules kept, {counts['broken']} broken"
    more = f", {counts['not asked']} not asked" if counts["not asked"] else ""
    return Group(*lines, Text(f"{facts['method']}: {told_counts}{more}."))


_MARKS = {"kept": "ok       ", "broken": "BROKEN   ", "not asked": "not asked"}


def _rule(answer: RuleAnswer) -> dict[str, Any]:
    state = "kept" if answer.is_kept else "broken"
    first = next(iter(answer.raised.values()), None)
    return {
        "rule": answer.rule,
        "state": state if answer.not_asked is None else "not asked",
        "why": answer.not_asked if first is None else _said(first),
        "broken_on": [network for network in answer.raised if network],
        "advice": None if answer.is_kept else answer.advice,
    }


def _said(error: BaseException) -> str | None:
    """Say what was raised; None where the rule itself found the method wrong."""
    is_finding = isinstance(error, AssertionError) and users_place(error) is None
    return None if is_finding else told(error)


def _lines(rule: Mapping[str, Any]) -> list[Text]:
    networks = ", ".join(rule["broken_on"])
    where = f" (on {networks})" if networks else ""
    why = f": {rule['why']}" if rule["state"] == "not asked" else ""
    lines = [Text(f"{_MARKS[rule['state']]} {rule['rule']}{where}{why}")]
    if rule["state"] == "broken":
        lines += [Text(f"{'':10}{text}") for text in (rule["why"], rule["advice"]) if text]
    return lines
