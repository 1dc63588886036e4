"""The rows of one table, each from the runs of one arm or control."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from tracking.answers import Answers, unpack_answers
from tracking.comparison.comparison import Dense, Row, Verdict
from tracking.comparison.fronts import arm_of
from tracking.comparison.ranking import Sample, held_within, judged
from tracking.comparison.runs import (
    Run,
    average,
    cost_of,
    count,
    latencies_of,
    summary_of,
    usable,
    widths_of,
)
from tracking.comparison.searches import proxy_check, search_cost, uniform_check
from tracking.matrix import CostPoint
from tracking.places import CONTROLS, DENSE, LATENCY, Role, kind_of_control, scratched_arm, tried_at
from tracking.records import TrialState
from tracking.results import finite, given
from tracking.statistics.model import MARGIN, Difference, Spread, difference_of

_JUDGED: Final = {
    Verdict.BEST,
    Verdict.UNDECIDED,
    Verdict.TIE,
    Verdict.SAME,
    Verdict.WORSE,
    Verdict.UNTESTED,
    Verdict.ONLY,
    Verdict.WITHIN,
    Verdict.BEYOND,
}


def rows_of(
    point: CostPoint,
    arms: Sequence[str],
    runs: Sequence[Run],
    dense: Dense | None,
    margin: float = MARGIN,
) -> tuple[Row, ...]:
    """Return the rows of one table: arms by descending accuracy, then controls, tested and judged.

    Args:
        point: The cost that the rows have in common.
        arms: Names that get a row even without a run.
        runs: Of this table.
        dense: The baseline the runs started from.
        margin: Points that a tie is closer than.
    """
    by_name: dict[tuple[Role, str], list[Run]] = {}
    for run in runs:
        by_name.setdefault((run.place.role, run.place.arm), []).append(run)
    table = _Table(arms=arms, runs=runs, by_name=by_name, point=point, dense=dense, margin=margin)
    return table.rows()


def harm_of(runs: Sequence[Run], dense: Dense | None) -> Difference | None:
    """Return dense control minus dense baseline where its interval lies below zero, else None."""
    controls = [run for run in usable(runs) if run.place.role is Role.CONTROL]
    ends = [given(run.accuracy) for run in controls if run.place.arm == DENSE]
    if dense is None or len(ends) < 2:
        return None
    n = len(ends)
    mean, variance = math.fsum(ends) / n, float(np.var(ends, ddof=1))
    found = difference_of(
        Spread(n=n, mean=mean, variance=variance, df=n - 1.0),
        Spread(n=1, mean=dense.test_accuracy, variance=0.0, df=1.0),
    )
    return found if found.high < 0 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """Everything one table is made from."""

    arms: Sequence[str]  #: Names that get a row even without a run.
    runs: Sequence[Run]
    by_name: Mapping[tuple[Role, str], list[Run]]  #: The same, by role and arm.
    point: CostPoint
    dense: Dense | None
    margin: float

    def rows(self) -> tuple[Row, ...]:
        """Return the arms by descending accuracy, then the controls, each tested and judged."""
        roles = {Role.CONFIRM} if self.point.is_front else {Role.SEARCH, Role.CONFIRM}
        met = [run.place.arm for run in self.runs if run.place.role in roles]
        arms = [self._row(name, "arm") for name in dict.fromkeys([*self.arms, *met])]
        met = [run.place.arm for run in self.runs if run.place.role is Role.CONTROL]
        controls = [self._row(name, "control") for name in sorted(set(met), key=_control_order)]
        if self.point.is_front:
            arms.sort(key=lambda row: (row.arm, -(row.cost.macs if row.cost else 0)))
            free = [replace(row, verdict=Verdict.UNRANKED) if row.accuracy else row for row in arms]
            return (*free, *controls)
        samples = {
            row.name: _sample(
                self._of(Role.CONFIRM if row.role == "arm" else Role.CONTROL, row.name)
            )
            for row in (*arms, *controls)
        }
        if self.point.drop is not None:
            found = held_within(self.point, [*arms, *controls], samples)
        else:
            found = judged(arms, controls, samples, self.margin)
        if harm_of(self.runs, self.dense) is None:
            return found
        return tuple(
            replace(row, verdict=Verdict.NO_VERDICT) if row.verdict in _JUDGED else row
            for row in found
        )

    def _of(self, role: Role, name: str) -> list[Run]:
        return self.by_name.get((role, name), [])

    def _row(self, name: str, role: Literal["arm", "control"]) -> Row:
        """Fill a row with what needs no other row but the dense control."""
        arm = arm_of(name)
        runs = self._of(Role.CONFIRM if role == "arm" else Role.CONTROL, name)
        predictors = self._of(Role.PREDICTOR, arm) if role == "arm" else []
        broken = [run for run in predictors if run.trial.state is TrialState.FAILED]
        good = usable(runs)
        accuracy = summary_of(
            good, lambda result: result.test_accuracy, lambda result: result.test_images
        )
        tuned = summary_of(
            usable(self._of(Role.CONTROL, DENSE)), lambda result: result.test_accuracy
        )
        searched = self._of(Role.SEARCH, scratched_arm(arm) or arm)
        finalists = self._of(Role.FINALIST, scratched_arm(arm) or arm)
        search = search_cost([*searched, *finalists]) if searched or finalists else None
        if self.point.drop is not None:  # of the costs that were tried, the one it came to
            searched, finalists = (
                [run for run in tried if run.place.target == self._came_to(good)]
                for tried in (searched, finalists)
            )
        judges_search = role == "arm" and not self.point.is_front
        seconds = average(good, lambda run: run.seconds)
        predictor = average(usable(predictors), lambda run: run.seconds)
        return Row(
            name=name,
            arm=arm,
            role=role,
            verdict=Verdict.CONTROL if role == "control" else Verdict.MISSING,
            leads=False,
            accuracy=accuracy,
            by_seed={run.place.index: given(run.accuracy) for run in good},
            val_accuracy=summary_of(good, lambda result: result.val_accuracy),
            val_accuracy_before=summary_of(good, lambda result: result.val_accuracy_before),
            test_accuracy_drop=(
                self.dense.test_accuracy - accuracy.mean if self.dense and accuracy else None
            ),
            tuned_drop=tuned.mean - accuracy.mean if tuned and accuracy else None,
            spread=None,
            same_as=None,
            test=None,
            reach=None,
            p=None,
            cost=cost_of(good),
            within=None,
            on_target=self._on_target(good, usable(self._of(Role.LATENCY, name))),
            epochs=average(good, lambda run: run.epochs),
            seconds=seconds,
            statistics_seconds=average(good, lambda run: run.result.seconds_statistics),
            search=search,
            predictor_seconds=predictor,
            total_seconds=(
                None
                if seconds is None
                else seconds + (search.seconds if search else 0.0) + (predictor or 0.0)
            ),
            runs=count(runs or broken),
            masked_difference=max(
                (d for run in good if (d := finite(run.result.masked_difference)) is not None),
                default=None,
            ),
            latency=latencies_of(usable(self._of(Role.LATENCY, name))),
            widths=widths_of(good),
            uniform=uniform_check(searched, finalists) if judges_search else None,
            proxy=proxy_check(searched, finalists) if judges_search else None,
        )

    def _came_to(self, runs: Sequence[Run]) -> str | None:
        """Return the label of the cost whose network was re-run within a drop; None: none was."""
        costs = {float(at["reduction"]) for run in runs if (at := run.trial.spec.get("target"))}
        return tried_at(self.point.label, costs.pop()) if len(costs) == 1 else None

    def _on_target(self, runs: Sequence[Run], timed: Sequence[Run]) -> bool | None:
        """Whether every run met the target; None for runs that have none, as the dense control.

        A latency is met by the clock; None until it was measured, with nothing else beside.
        """
        if self.point.axis is None or self.point.reduction is None:
            return None
        if self.point.axis == LATENCY:
            alone = [run for run in timed if not run.result.shared_device]
            gone = [1.0 - 1.0 / latency.speed_up for latency in latencies_of(alone)]
            away = [abs(share - self.point.reduction) for share in gone]
            return max(away) <= self.point.tolerance + 1e-9 if away else None
        found = [run.result.reduction(self.point.axis) for run in runs if run.place.target]
        distances = [abs(share - self.point.reduction) for share in found if share is not None]
        return max(distances) <= self.point.tolerance + 1e-9 if distances else None


def _sample(runs: Sequence[Run]) -> Sample:
    """Gather what a row rests on."""
    uids = frozenset(run.trial.uid for run in usable(runs))
    return Sample(uids=uids, answers=answers_of(runs))


def answers_of(runs: Sequence[Run]) -> Answers | None:
    """Return which test images runs got right; None unless every run kept that, for the same ones.

    Returns:
        ``[runs, images]``, runs without an accuracy left out.
    """
    results = [run.result for run in usable(runs)]
    kept = [(r.test_correct, r.test_images) for r in results if r.test_correct and r.test_images]
    is_whole = len(kept) == len(results) and len({images for _, images in kept}) == 1
    return np.stack([unpack_answers(*each) for each in kept]) if is_whole else None


def _control_order(name: str) -> tuple[int, str]:
    kind = kind_of_control(arm_of(name))
    return (CONTROLS.index(kind) if kind in CONTROLS else len(CONTROLS), name)
