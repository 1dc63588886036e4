"""Judging the rows of one table: an order by mean, and a test that says what of it is sure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tracking.comparison.comparison import Row, Verdict
from tracking.comparison.statistics import SIGNIFICANCE, PairedTest, compare_pairs, corrected


def ranked(arms: Sequence[Row]) -> list[Row]:
    """Judge the arms against the highest mean: it first, then the others, then those left out."""
    contenders = contending(arms)
    contestants = {row.name for row in contenders}
    others = [row for row in arms if row.name not in contestants]
    off = [replace(row, verdict=Verdict.OFF_TARGET) for row in others if row.accuracy]
    missing = [row for row in others if not row.accuracy]
    if not contenders:
        return [*sorted(off, key=_descending), *missing]
    lead, *rest = contenders
    tests, p_values = _against(lead, rest, best_of=len(contenders), among_themselves=True)
    judged = [
        replace(
            row,
            test=tests.get(row.name),
            p=p_values.get(row.name),
            verdict=_verdict(p_values.get(row.name)),
        )
        for row in rest
    ]
    lead = replace(lead, leads=True, verdict=_verdict_of_lead({row.verdict for row in judged}))
    return [lead, *judged, *sorted(off, key=_descending), *missing]


def tested(controls: Sequence[Row], arms: Sequence[Row]) -> list[Row]:
    """Test each control that may be compared against the arm with the highest mean."""
    contenders = contending(arms)
    if not contenders:
        return list(controls)
    fair = [row for row in controls if row.on_target is not False]
    tests, p_values = _against(contenders[0], fair, best_of=len(contenders), among_themselves=False)
    return [
        replace(row, test=tests.get(row.name), p=p_values.get(row.name)) if row in fair else row
        for row in controls
    ]


def contending(arms: Sequence[Row]) -> list[Row]:
    """Return the arms that can be ranked, by descending mean; equal means keep their order."""
    fit = (row for row in arms if row.accuracy is not None and row.on_target is not False)
    return sorted(fit, key=_descending)


def _against(
    lead: Row, others: Iterable[Row], *, best_of: int, among_themselves: bool
) -> tuple[dict[str, PairedTest], dict[str, float]]:
    """Test rows that share enough seeds with the leader; return tests and corrected p by name."""
    made = {row.name: compare_pairs(lead.by_seed, row.by_seed) for row in others}
    tests = {name: test for name, test in made.items() if test is not None}
    p_values = corrected(
        {name: test.p for name, test in tests.items()},
        seeds=max((test.seeds for test in tests.values()), default=0),
        best_of=best_of,
        among_themselves=among_themselves,
    )
    return tests, p_values


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
