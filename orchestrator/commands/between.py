"""``compare --between``: two arms or controls, of one sweep or of two, in a sentence a target."""

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.commands.lookup import RecordsAt, find_sweep
from tracking.comparison.compare import side_of
from tracking.comparison.pairs import Pair, Side, pairs_of
from tracking.report.wording import points


def between(name: str, arms: tuple[str, str], margin: float, at: RecordsAt) -> dict[str, Any]:
    """Hold two arms against one another.

    Args:
        name: The sweep an arm is of where it names none.
        arms: Each an arm or control, or ``SWEEP/ARM``.
        margin: Points that a tie is closer than.
        at: Where the records are.

    Raises:
        PairError: They cannot be compared; the message says why.
    """
    first, second = (_side(name, arm, margin, at) for arm in arms)
    pairs = pairs_of(first, second, margin)
    return {
        "first": str(first),
        "second": str(second),
        "margin": margin,
        "targets": [{**pair.to_json(), "words": _words(first, second, pair)} for pair in pairs],
    }


def view(facts: Mapping[str, Any]) -> RenderableType:
    """Show a sentence a target."""
    return Text("\n".join(found["words"] for found in facts["targets"]))


def _side(name: str, arm: str, margin: float, at: RecordsAt) -> Side:
    sweep, slash, rest = arm.partition("/")
    with find_sweep(sweep if slash else name, at) as found:
        return side_of(found.ledger, found.record, rest or sweep, margin)


def _words(first: Side, second: Side, pair: Pair) -> str:
    test = pair.test
    if pair.verdict == "same":
        return f"{pair.target}: {first} and {second} are the very same trials."
    seeds = f"n={test.seeds[0]} and {test.seeds[1]}"
    range_ = f"{points(test.low)} to {points(test.high)}"
    over = "over seeds and test images" if test.images else "over seeds alone"
    found = f"{points(test.difference)} points (95 % {range_}, p={test.p:.2g}, {seeds}, {over})"
    said = {
        "first": f"{first} is better than {second}",
        "second": f"{second} is better than {first}",
        "tie": f"{first} and {second} tie",
        "undecided": f"undecided between {first} and {second}",
    }[pair.verdict]
    sentence = f"{pair.target}: {said}: {found}."
    if pair.verdict != "undecided" or pair.reach is None:
        return sentence
    needed = pair.reach.seeds
    more = (
        f"{needed} seeds each would show a difference like this one"
        if needed
        else ("no number of seeds would show so small a difference")
    )
    return f"{sentence} These seeds could have shown {points(pair.reach.smallest)}; {more}."
