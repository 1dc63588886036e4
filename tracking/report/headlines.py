"""The one sentence of a table: who leads, how many are level, how many below, and beside chance.

Up to a few arms are named; more are counted, and `folds_of` lists who they are. An arm that is not
shown to beat random pruning is never called best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tracking.comparison.comparison import Row, Table, Verdict
from tracking.comparison.random_control import against_random, random_row
from tracking.report.wording import equals, named, percent, points
from tracking.statistics.model import SIGNIFICANCE, Difference

_LEVEL = (Verdict.UNDECIDED, Verdict.UNTESTED, Verdict.TIE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Arms that a sentence counts."""

    title: str  #: As in ``worse than l1``.
    names: tuple[str, ...]


def headline(table: Table, lead: Row) -> str:
    """Say where the highest mean of a table stands."""
    if table.harm is not None:
        return no_verdict(table.harm)
    doubt = _doubt(table, lead)
    told = _where_it_stands(table, lead, doubt)
    weak = [name for name in not_above_random(table) if name != lead.name]
    return told + (f" Not shown to beat random pruning: {named(weak)}." if weak else "")


def no_verdict(harm: Difference) -> str:
    """Say that the recipe harms the dense network, so that nothing is concluded."""
    return (
        "No verdict: trained by this recipe, the dense network itself loses "
        f"{-harm.difference:.2f} points ({-harm.high:.2f} to "
        f"{-harm.low:.2f}), so a lower learning rate or another recipe comes first."
    )


def _where_it_stands(table: Table, lead: Row, doubt: str) -> str:
    mean = f"{percent(lead.accuracy.mean if lead.accuracy else None)} % test accuracy"
    of = f" of {len(_ranked(table))} arms" if len(_ranked(table)) > 2 else ""
    worse, same = (_of(table, each) for each in (Verdict.WORSE, Verdict.SAME))
    below = f"{named(worse)} {'is' if len(worse) == 1 else 'are'} worse" if worse else ""
    if any(_of(table, each) for each in _LEVEL):
        parts = [_level(table, lead, mean, of), *([below] if below else [])]
        return "; ".join([*parts, *([f"{lead.name} {doubt}"] if doubt else [])]) + "."
    if worse and doubt:
        return f"{lead.name} has the highest mean{of} ({mean}), and {below}, but it {doubt}."
    if worse:
        return f"{lead.name} is best{of}, with {mean}: {below}."
    told = f"{lead.name} reaches {mean}; no other arm is there to compare it with"
    if same:
        told = f"{named([lead.name, *same])} are the same runs, with {mean}"
    return told + (f", and it {doubt}." if doubt else ".")


def _level(table: Table, lead: Row, mean: str, of: str) -> str:
    """Say which arms the leader is not told from."""
    undecided = [row for row in table.arms if row.verdict is Verdict.UNDECIDED and not row.leads]
    untested, ties = (_of(table, each) for each in (Verdict.UNTESTED, Verdict.TIE))
    if undecided:
        names = named([row.name for row in undecided])
        told = (
            f"{lead.name} has the highest mean{of} ({mean}), but it is undecided whether it is "
            f"better than {names}: {_how_far(lead, undecided)}"
        )
        told += _would_show(undecided[0]) if len(undecided) == 1 else ""
        return told + (
            f"; {named(ties)} {'ties' if len(ties) == 1 else 'tie'} with it" if ties else ""
        )
    if untested:
        return (
            f"{lead.name} has the highest mean{of} ({mean}), but there are too few shared seeds to "
            f"tell it from {named(untested)}"
        )
    return (
        f"{named([lead.name, *ties])} tie, at up to {mean}: they are shown to be within "
        f"{table.margin:g} points of {lead.name}"
    )


def _how_far(lead: Row, rows: Sequence[Row]) -> str:
    mean = lead.accuracy.mean if lead.accuracy else 0.0
    gap = max(mean - row.accuracy.mean for row in rows if row.accuracy)
    least = min(row.p for row in rows if row.p is not None)
    if len(rows) == 1:
        return f"{gap:.2f} points apart ({equals(least)})"
    return f"up to {gap:.2f} points apart (smallest {equals(least)})"


def _would_show(row: Row) -> str:
    """Say what the seeds could have shown of the one row that is undecided, and what would."""
    if row.reach is None:
        return ""
    seeds = "no number of seeds" if row.reach.seeds is None else f"{row.reach.seeds} seeds each"
    shown = f"{row.reach.smallest:.2f} points"
    return f"; these seeds could have shown {shown}, and {seeds} would show this"


def could_show(table: Table) -> str:
    """Say what the seeds could have shown of several rows that are undecided; empty otherwise."""
    rows = [row for row in table.arms if row.verdict is Verdict.UNDECIDED and not row.leads]
    known = [row.reach.smallest for row in rows if row.reach is not None]
    if len(rows) < 2 or not known:
        return ""
    low, high = (f"{f(known):.2f}" for f in (min, max))
    return f"These seeds could have shown {low if low == high else f'{low} to {high}'} points."


def _doubt(table: Table, lead: Row) -> str:
    """Say, as what the leader does, that it does not beat random pruning; empty if it does."""
    control = random_row(table)
    if control is None or control.accuracy is None or lead.accuracy is None:
        return ""
    ahead = lead.accuracy.mean - control.accuracy.mean
    if control.same_as == lead.name:
        return "is the same as random pruning"
    if control.p is None:
        return f"was run with too few seeds to tell it from random pruning ({points(ahead)} points)"
    if control.p >= SIGNIFICANCE:
        return f"cannot be told from random pruning ({points(ahead)} points, {equals(control.p)})"
    if ahead <= 0:
        return f"is beaten by random pruning ({points(ahead)} points, {equals(control.p)})"
    return ""


def not_above_random(table: Table) -> tuple[str, ...]:
    """Return the arms that were held against random pruning and are not shown to beat it."""
    return tuple(held.arm for held in against_random(table) if not held.beats)


def folds_of(table: Table, lead: Row) -> tuple[Fold, ...]:
    """List the arms by where they stand; what has nobody is left out."""
    found = [
        Fold(title="best" if lead.verdict is Verdict.BEST else "highest mean", names=(lead.name,)),
        Fold(title=f"tie with {lead.name}", names=_of(table, Verdict.TIE)),
        Fold(title=f"not told from {lead.name}", names=_of(table, Verdict.UNDECIDED)),
        Fold(title="too few seeds to tell", names=_of(table, Verdict.UNTESTED)),
        Fold(title=f"worse than {lead.name}", names=_of(table, Verdict.WORSE)),
        Fold(title="not shown to beat random pruning", names=not_above_random(table)),
        Fold(title=f"the same runs as {lead.name}", names=_of(table, Verdict.SAME)),
        Fold(title="off target, not ranked", names=_of(table, Verdict.OFF_TARGET)),
        Fold(title="without a result", names=_of(table, Verdict.MISSING)),
    ]
    if table.harm is not None:
        found = found[-2:]  # those without a place in the ranking anyway
    elif _doubt(table, lead):
        found[0] = Fold(title="highest mean, not above random pruning", names=(lead.name,))
    return tuple(fold for fold in found if fold.names)


def _of(table: Table, verdict: Verdict) -> tuple[str, ...]:
    return tuple(row.name for row in table.arms if row.verdict is verdict and not row.leads)


def _ranked(table: Table) -> list[Row]:
    return [row for row in table.arms if row.accuracy and row.verdict is not Verdict.OFF_TARGET]
