"""Judging the rows of one table: an order by mean, and a test that says what of it is sure.

Within an accuracy drop the order is by cost, and the test is of what is lost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracking.comparison.comparison import Row, Verdict, Within
from tracking.matrix import CostPoint
from tracking.places import DENSE
from tracking.statistics.model import (
    SIGNIFICANCE,
    Difference,
    Reach,
    corrected,
    difference_of,
    images_variance,
    is_tie,
    moderated,
    reach_of,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What a row's accuracy rests on."""

    uids: frozenset[str]  #: Of its trials.
    answers: NDArray[np.bool_] | None  #: Which test images were got right, ``[seeds, images]``.


def judged(
    arms: Sequence[Row], controls: Sequence[Row], samples: Mapping[str, Sample], margin: float
) -> tuple[Row, ...]:
    """Judge the arms against the highest mean, and hold the controls against it.

    Args:
        arms: Rows to be ranked.
        controls: Rows to be tested, not ranked.
        samples: What each row rests on, by its name.
        margin: Points that a tie is closer than.

    Returns:
        The highest mean, the other ranked arms, those left out, then the controls.
    """
    rows = _with_spreads([*contending(arms), *controls], samples)
    contenders = [row for row in rows if row.role == "arm"]
    held = [row for row in rows if row.role == "control"]
    names = {row.name for row in contenders}
    others = [row for row in arms if row.name not in names]
    off = [replace(row, verdict=Verdict.OFF_TARGET) for row in others if row.accuracy]
    left_out = [*sorted(off, key=_descending), *(row for row in others if not row.accuracy)]
    if not contenders:
        return (*left_out, *held)
    lead, *rest = contenders
    best_of = sum(row.same_as is None for row in contenders)
    bench = _Bench(lead=lead, samples=samples, best_of=best_of)
    found = [
        replace(row, verdict=_verdict(row, lead, margin))
        for row in bench.tested(rest, among_themselves=True)
    ]
    fair = [row for row in held if row.on_target is not False]
    # A control that has an arm's trials takes that arm's test: one pair of samples, one p-value.
    tested = {row.name: row for row in bench.tested(fair, among_themselves=False, known=found)}
    lead = replace(lead, leads=True, verdict=_verdict_of_lead({row.verdict for row in found}))
    return (lead, *found, *left_out, *(tested.get(row.name, row) for row in held))


def contending(arms: Sequence[Row]) -> list[Row]:
    """Return the arms that can be ranked, by descending mean; equal means keep their order."""
    fit = (row for row in arms if row.accuracy is not None and row.on_target is not False)
    return sorted(fit, key=_descending)


def _with_spreads(rows: Sequence[Row], samples: Mapping[str, Sample]) -> list[Row]:
    """Fit the model to the rows, each set of trials counted once."""
    first: dict[frozenset[str], Row] = {}
    for row in rows:
        if samples[row.name].uids:
            first.setdefault(samples[row.name].uids, row)
    found = moderated([list(row.by_seed.values()) for row in first.values()])
    spreads = dict(zip(first, found, strict=True))
    return [
        replace(row, spread=spreads.get(uids), same_as=_other(first.get(uids), row))
        for row in rows
        for uids in [samples[row.name].uids]
    ]


def _other(first: Row | None, row: Row) -> str | None:
    return None if first is None or first.name == row.name else first.name


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bench:
    """What rows are held against."""

    lead: Row
    samples: Mapping[str, Sample]
    best_of: int

    def tested(
        self, rows: Sequence[Row], *, among_themselves: bool, known: Sequence[Row] = ()
    ) -> list[Row]:
        """Test rows against the leader; one that has its trials by another name needs no test."""
        made = {
            row.name: test
            for row in rows
            if row.same_as is None and (test := self._test(row)) is not None
        }
        p = corrected(made, best_of=self.best_of, among_themselves=among_themselves)
        count = self.best_of + (0 if among_themselves else len(made))
        found = {row.name: row for row in known}
        for row in rows:
            test, corrected_p = made.get(row.name), p.get(row.name)
            reach = self._reach(row, count) if test is not None else None
            if alike := found.get(row.same_as or ""):
                test, corrected_p, reach = alike.test, alike.p, alike.reach
            found[row.name] = replace(row, test=test, p=corrected_p, reach=reach)
        return [found[row.name] for row in rows]

    def _test(self, row: Row) -> Difference | None:
        if self.lead.spread is None or row.spread is None:
            return None
        return difference_of(self.lead.spread, row.spread, self._images(row))

    def _reach(self, row: Row, rows: int) -> Reach | None:
        if self.lead.spread is None or row.spread is None:
            return None
        return reach_of(self.lead.spread, row.spread, self._images(row), rows)

    def _images(self, row: Row) -> float | None:
        return _images(self.samples, self.lead.name, row.name)


def _images(samples: Mapping[str, Sample], first: str, second: str) -> float | None:
    """Return the variance by the sampling of images; None where the answers were not kept."""
    ours, theirs = (samples[name].answers for name in (first, second))
    if ours is None or theirs is None or ours.shape[1] != theirs.shape[1]:
        return None
    return images_variance(ours, theirs)


def _verdict_of_lead(others: set[Verdict]) -> Verdict:
    """The highest mean is the best only when that is sure of every other row."""
    if not others:
        return Verdict.ONLY
    order = (Verdict.UNDECIDED, Verdict.UNTESTED, Verdict.TIE)
    return next((v for v in order if v in others), Verdict.BEST)


def _verdict(row: Row, lead: Row, margin: float) -> Verdict:
    if row.same_as == lead.name:
        return Verdict.SAME
    if row.p is None or row.test is None:
        return Verdict.UNTESTED
    if row.p < SIGNIFICANCE:
        return Verdict.WORSE
    return Verdict.TIE if is_tie(row.test, margin) else Verdict.UNDECIDED


def _descending(row: Row) -> float:
    return -row.accuracy.mean if row.accuracy else math.inf


def held_within(
    point: CostPoint, rows: Sequence[Row], samples: Mapping[str, Sample]
) -> tuple[Row, ...]:
    """Hold every row against the dense control, where an accuracy drop is the target.

    The network was chosen by its validation accuracy; whether it keeps within the drop is looked
    at here, on the test split, with the sampling error of its images. The cheapest arm is first.

    Args:
        point: What may be lost.
        rows: Arms and controls.
        samples: What each row rests on, by its name.
    """
    spreads = moderated([list(row.by_seed.values()) for row in rows])
    known = [replace(row, spread=spread) for row, spread in zip(rows, spreads, strict=True)]
    dense = next((row for row in known if row.name == DENSE), None)
    held = [_held(point, row, dense, samples) for row in known]
    arms = sorted((row for row in held if row.role == "arm"), key=_cheapest_first)
    return (*arms, *(row for row in held if row.role == "control"))


def _held(point: CostPoint, row: Row, dense: Row | None, samples: Mapping[str, Sample]) -> Row:
    if row.accuracy is None or dense is None or dense.accuracy is None or row is dense:
        return row
    lost = dense.accuracy.mean - row.accuracy.mean
    half = None
    if row.spread is not None and dense.spread is not None:
        test = difference_of(dense.spread, row.spread, _images(samples, DENSE, row.name))
        half = (test.high - test.low) / 2
    found = Within(
        allowed=point.drop or 0.0,
        axis=str(point.axis),
        reduction=_gone(row, point.axis),
        drop=lost,
        half=half,
    )
    return replace(row, within=found, verdict=found.verdict if row.role == "arm" else row.verdict)


def _gone(row: Row, axis: str | None) -> float:
    if row.cost is None:
        return 0.0
    return row.cost.params_reduction if axis == "params" else row.cost.macs_reduction


def _cheapest_first(row: Row) -> tuple[bool, float]:
    return (row.within is None, -(row.within.reduction if row.within else 0.0))
