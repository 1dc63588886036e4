"""Judging the rows of one table: an order by mean, and a test that says what of it is sure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

from tracking.comparison import Row, Verdict
from tracking.statistics import SIGNIFICANCE, PairedTest, compare_pairs, holm


def ranked(arms: Sequence[Row]) -> list[Row]:
    """Judge the arms against the highest mean: it first, then the others, then those left out."""
    contenders = contending(arms)
    contestants = {row.name for row in contenders}
    others = [row for row in arms if row.name not in contestants]
    off = [replace(row, verdict=Verdict.OFF_TARGET) for row in others if row.accuracy]
    missing = [row for row in others if not row.accuracy]
    if not contenders:
        return [*sorted(off, key=_descending), *missing]
    family = holm(_raw(combinations(contenders, 2)))
    lead, judged = contenders[0], []
    for row in contenders[1:]:
        p = family.get((lead.name, row.name))
        verdict = _verdict(p)
        judged.append(replace(row, test=_test(lead, row), p=p, verdict=verdict))
    lead = replace(lead, leads=True, verdict=_verdict_of_lead({row.verdict for row in judged}))
    return [lead, *judged, *sorted(off, key=_descending), *missing]


def tested(controls: Sequence[Row], arms: Sequence[Row]) -> list[Row]:
    """Test each control that may be compared against the arm with the highest mean."""
    contenders = contending(arms)
    if not contenders:
        return list(controls)
    lead = contenders[0]
    fair = [row for row in controls if row.on_target is not False]
    family = holm(_raw((arm, control) for arm in contenders for control in fair))
    return [
        replace(row, test=_test(lead, row), p=family.get((lead.name, row.name)))
        if row in fair
        else row
        for row in controls
    ]


def contending(arms: Sequence[Row]) -> list[Row]:
    """Return the arms that can be ranked, by descending mean; equal means keep their order."""
    fit = (row for row in arms if row.accuracy is not None and row.on_target is not False)
    return sorted(fit, key=_descending)


def _test(first: Row, second: Row) -> PairedTest | None:
    return compare_pairs(first.by_seed, second.by_seed)


def _raw(pairs: Iterable[tuple[Row, Row]]) -> dict[tuple[str, str], float]:
    """Test every pair that shares enough seeds, by names."""
    return {(a.name, b.name): test.p for a, b in pairs if (test := _test(a, b)) is not None}


def _verdict_of_lead(others: set[Verdict]) -> Verdict:
    """The highest mean is the best only when that is sure of every other row."""
    if not others:
        return Verdict.ONLY
    return next((v for v in (Verdict.TIE, Verdict.UNTESTED) if v in others), Verdict.BEST)


def _verdict(p: float | None) -> Verdict:
    if p is None:
        return Verdict.UNTESTED
    return Verdict.WORSE if p < SIGNIFICANCE else Verdict.TIE


def _descending(row: Row) -> float:
    return -row.accuracy.mean if row.accuracy else math.inf
