"""The rows of one table, each from the runs of one arm or control."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tracking.comparison.comparison import Dense, Row, Verdict
from tracking.comparison.fronts import arm_of
from tracking.comparison.ranking import ranked, tested
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
from tracking.places import CONTROLS, DENSE, Role, kind_of_control, scratched_arm
from tracking.records import TrialState
from tracking.results import finite, given


def rows_of(
    point: CostPoint, arms: Sequence[str], runs: Sequence[Run], dense: Dense | None
) -> tuple[Row, ...]:
    """Return the rows of one table: arms by descending accuracy, then controls, tested and judged.

    Args:
        point: The cost that the rows have in common.
        arms: Names that get a row even without a run.
        runs: Of this table.
        dense: The baseline the runs started from.
    """
    return _Table(arms=arms, runs=runs, point=point, dense=dense).rows()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """Everything one table is made from."""

    arms: Sequence[str]  #: Names that get a row even without a run.
    runs: Sequence[Run]
    point: CostPoint
    dense: Dense | None

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
        return (*ranked(arms), *tested(controls, arms))

    def _of(self, role: Role, name: str) -> list[Run]:
        return [run for run in self.runs if (run.place.role, run.place.arm) == (role, name)]

    def _row(self, name: str, role: Literal["arm", "control"]) -> Row:
        """Fill a row with what needs no other row but the dense control."""
        arm = arm_of(name)
        runs = self._of(Role.CONFIRM if role == "arm" else Role.CONTROL, name)
        predictors = self._of(Role.PREDICTOR, arm) if role == "arm" else []
        broken = [run for run in predictors if run.trial.state is TrialState.FAILED]
        good = usable(runs)
        accuracy = summary_of(good, lambda result: result.test_accuracy)
        tuned = summary_of(
            usable(self._of(Role.CONTROL, DENSE)), lambda result: result.test_accuracy
        )
        searched = self._of(Role.SEARCH, scratched_arm(arm) or arm)
        finalists = self._of(Role.FINALIST, scratched_arm(arm) or arm)
        search = search_cost([*searched, *finalists]) if searched else None
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
            test=None,
            p=None,
            cost=cost_of(good),
            on_target=self._on_target(good),
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

    def _on_target(self, runs: Sequence[Run]) -> bool | None:
        """Whether every run met the target; None for runs that have none, as the dense control."""
        if self.point.axis is None or self.point.reduction is None:
            return None
        found = [run.result.reduction(self.point.axis) for run in runs if run.place.target]
        distances = [abs(share - self.point.reduction) for share in found if share is not None]
        return max(distances) <= self.point.tolerance + 1e-9 if distances else None


def _control_order(name: str) -> tuple[int, str]:
    kind = kind_of_control(arm_of(name))
    return (CONTROLS.index(kind) if kind in CONTROLS else len(CONTROLS), name)
