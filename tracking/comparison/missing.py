"""What a sweep asks for and does not have yet: its trial matrix less what the ledger holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Final

from tracking.cancellations import Cancellations
from tracking.comparison.fronts import undominated
from tracking.comparison.given_up import Breaker
from tracking.comparison.runs import Run
from tracking.matrix import Cell, Matrix, matrix_of, spread
from tracking.places import DENSE, FRONT, Place, Role, front_point, is_drop, scratch_control
from tracking.records import TrialState
from tracking.results import given
from tracking.winners import best_arm, is_within

NOTHING: Final = Cancellations()

#: The order they are told in.
_TOLD: Final = (
    Role.BASELINE,
    Role.TUNE,
    Role.CONTROL,
    Role.PREDICTOR,
    Role.SEARCH,
    Role.FINALIST,
    Role.CONFIRM,
    None,  # controls that train the winning shape from scratch
    Role.LATENCY,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StillToCome:
    """A cell of the matrix that is not complete."""

    cell: Cell
    begun: int  #: Places that are in the ledger.
    done: int  #: Those whose trials have ended, whatever became of them.
    wanted: int  #: In all, as far as is known by now; more is never wanted.

    @property
    def left(self) -> int:
        """Trials that have not ended."""
        return self.wanted - self.done

    def __str__(self) -> str:
        what = self.cell.role.phrase.format(arm=self.cell.arm or "targets")
        if self.cell.is_scratch:
            what = "winning shape from scratch"
        what += f" at {self.cell.target}" if self.cell.target else ""
        if self.cell.role is Role.BASELINE:
            return f"{what}: not evaluated yet"
        if not self.begun:
            return f"{what}: not begun"
        return f"{what}: {self.done} of {self.wanted} in" if self.wanted > 1 else f"{what}: waiting"


def missing_from(
    spec: Mapping[str, Any], runs: Sequence[Run], cancelled: Cancellations = NOTHING
) -> tuple[str, ...]:
    """List what is still to come, and the arms that are not gone on with, in words."""
    predicted = {run.place.arm for run in runs if run.place.role is Role.PREDICTOR}
    untrained = {run.place.arm for run in runs if run.is_proxy}
    ledger = _Ledger(spec, matrix_of(spec, predicted, untrained), runs, cancelled)
    given_up = [
        f"arm {arm}: given up, as its first trials all failed of {cause}"
        for arm, cause in ledger.given_up.items()
    ]
    dropped = ["all of the sweep: cancelled"] if cancelled.whole else []
    dropped += [f"arm {arm}: cancelled" for arm in sorted(cancelled.arms)]
    found = sorted(ledger.still_to_come(), key=lambda open_: _order(open_.cell))
    before = [str(open_) for open_ in found if _order(open_.cell) < _TOLD.index(Role.SEARCH)]
    after = [str(open_) for open_ in found if _order(open_.cell) >= _TOLD.index(Role.SEARCH)]
    return (*before, *given_up, *dropped, *after)


def still_to_come(
    spec: Mapping[str, Any],
    matrix: Matrix,
    runs: Sequence[Run],
    cancelled: Cancellations = NOTHING,
) -> tuple[StillToCome, ...]:
    """Return the cells that are not complete, in the order of the matrix.

    Failed trials are not to come; nor is what was cancelled, or what an arm that was given up, or a
    search that found nothing, leaves without a trial to run.
    """
    return _Ledger(spec, matrix, runs, cancelled).still_to_come()


def _order(cell: Cell) -> int:
    return _TOLD.index(None if cell.is_scratch else cell.role)


class _Ledger:
    """What has become of the cells of one sweep's matrix."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        matrix: Matrix,
        runs: Sequence[Run],
        cancelled: Cancellations,
    ) -> None:
        self._matrix, self._cancelled = matrix, cancelled
        self._runs: dict[Cell, list[Run]] = {cell: [] for cell in matrix.cells}
        for run in runs:
            cell = matrix.cell_of(run.place)
            if cell is not None:
                self._runs[cell].append(run)
        breaker = Breaker(int((spec.get("recovery") or {}).get("failures_per_arm", 0)))
        breaker.replay((run.entry, run.trial) for run in runs)
        self.given_up: Mapping[str, str] = breaker.given_up
        self._states: dict[Cell, StillToCome] = {}  # a cell is asked after by all that wait for it

    def still_to_come(self) -> tuple[StillToCome, ...]:
        """Hold every cell against what is wanted of it."""
        states = [self._state(cell) for cell in self._matrix.cells]
        return tuple(state for state in states if state.left > 0)

    def _state(self, cell: Cell) -> StillToCome:
        if cell not in self._states:
            self._states[cell] = self._found(cell)
        return self._states[cell]

    def _found(self, cell: Cell) -> StillToCome:
        runs = self._counted(cell)
        done = sum(self._has_ended(run) for run in runs)
        wanted = len(runs) if self._is_stuck(cell) else max(self._wanted(cell), len(runs))
        return StillToCome(cell=cell, begun=len(runs), done=done, wanted=wanted)

    def _is_over(self, cell: Cell) -> bool:
        return self._state(cell).left <= 0

    def _is_stuck(self, cell: Cell) -> bool:
        """Say whether nothing is begun any more, though what runs may end."""
        if cell.role.speaks_of_arm and cell.arm in self._out:
            return True
        if self._cancelled.covers_place(Place(cell.role, cell.arm, cell.target)):
            return True
        if cell.role is Role.BASELINE:
            return False
        if is_drop(cell.target) and self._is_without_dense:
            return True
        before = [] if self._matrix.is_given else self._matrix.of(Role.BASELINE)
        before = [*before, *(c for c in self._matrix.of(Role.PREDICTOR) if not c.arm)]
        return any(self._has_failed(need) for need in before if need is not cell)

    @property
    def _is_without_dense(self) -> bool:
        """Say whether an accuracy drop has no dense control left to be held against."""
        dense = self._matrix.cell(Role.CONTROL, DENSE)
        return (
            dense is not None and self._has_failed(dense) and len(self._runs[dense]) == dense.trials
        )

    def _has_failed(self, cell: Cell) -> bool:
        runs = self._runs[cell]
        return bool(runs) and all(self._has_ended(run) and not run.is_completed for run in runs)

    @cached_property
    def _out(self) -> frozenset[str]:
        """Arms that have nothing to train against, or were given up: none of their trials run."""
        predictors = self._matrix.of(Role.PREDICTOR)
        failed = {cell.arm for cell in predictors if self._has_failed(cell)}
        return frozenset(failed | self.given_up.keys() | self._cancelled.arms)

    def _wanted(self, cell: Cell) -> int:
        """Return how many trials there will be, at most, as far as their needs have ended."""
        if cell.role is Role.LATENCY:
            return self._shapes(cell) * len(cell.indices)
        if not (cell.role in {Role.FINALIST, Role.CONFIRM} or cell.follows_winner):
            return cell.trials
        before = [
            need
            for need in self._matrix.needs(cell)
            if need.role.speaks_of_arm or need.role is Role.CONTROL
        ]
        if not all(self._is_over(need) for need in before):
            return cell.trials
        if cell.role is Role.FINALIST:
            return min(cell.trials, self._proposals(cell))
        if cell.role is Role.CONFIRM:
            return len(self._winners(cell)) * len(cell.indices)
        return cell.trials if self._winner(cell) else 0

    def _shapes(self, cell: Cell) -> int:
        """Count the winners of an arm whose latency is measured: those with a re-run to show."""
        reruns = self._matrix.cell(Role.CONFIRM, cell.arm, cell.target)
        if reruns is None:
            return 0
        state = self._state(reruns)
        if state.left > 0:
            return min(cell.points, -(-state.wanted // len(reruns.indices)))
        return len({run.place.target for run in self._of(reruns) if run.is_completed})

    def _counted(self, cell: Cell) -> list[Run]:
        """Return the runs of a cell, less those of winners that have been succeeded by others."""
        runs = self._of(cell)
        if cell.is_scratch and (winner := self._scratched(cell)) is not None:
            return [run for run in runs if run.place.arm == winner or not self._has_ended(run)]
        return runs

    def _winners(self, cell: Cell) -> list[str]:
        """Return the labels that a search's winners are re-run at."""
        search = self._matrix.cell(Role.SEARCH, cell.arm, cell.target)
        finalists = self._matrix.cell(Role.FINALIST, cell.arm, cell.target)
        if search is None and finalists is None:
            return [cell.target]  # uniform ratios, or the method's own
        done = [run for run in self._of(finalists or search) if run.is_completed]
        if is_drop(cell.target):
            return [cell.target] if self._is_any_within(cell, done) else []
        if cell.target != FRONT:
            return [cell.target] if done else []
        return [front_point(number) for number in spread(_cheapest_first(done))]

    def _proposals(self, cell: Cell) -> int:
        """Count the proposals to train: different ones that came back, at each cost searched."""
        search = self._matrix.cell(Role.SEARCH, cell.arm, cell.target)
        if search is None:
            return cell.trials
        back: dict[str, set[int]] = {}
        for run in self._of(search):
            if run.is_completed:
                back.setdefault(run.place.target, set()).add(run.trial.id)
        return sum(min(len(cell.indices), len(each)) for each in back.values())

    def _is_any_within(self, cell: Cell, done: Sequence[Run]) -> bool:
        """Say whether one of the networks trained is within a drop of the dense control."""
        points = next(p.drop for p in self._matrix.points if p.label == cell.target)
        control = self._of(self._matrix.cell(Role.CONTROL, DENSE))
        dense = [given(run.result.val_accuracy) for run in control if run.is_completed]
        return bool(dense) and any(
            is_within(given(run.result.val_accuracy), fmean(dense), points or 0.0) for run in done
        )

    def _scratched(self, cell: Cell) -> str | None:
        """Name the control of the arm that won at a target; None: no arm has a result there."""
        winner = self._winner(cell)
        return winner and scratch_control(winner)

    def _winner(self, cell: Cell) -> str | None:
        """Name the arm that won at a target: the most accurate, or the cheapest within a drop."""
        back = {
            arm: runs
            for arm in self._matrix.arms
            if arm not in self._cancelled.arms
            for of_arm in [self._of(self._matrix.cell(Role.CONFIRM, arm, cell.target))]
            if (runs := [run for run in of_arm if run.is_completed])
        }
        if is_drop(cell.target):
            gone = {arm: runs[0].trial.spec["target"]["reduction"] for arm, runs in back.items()}
            return max(gone, key=lambda arm: gone[arm]) if gone else None
        return best_arm({a: [given(run.result.val_accuracy) for run in back[a]] for a in back})

    def _has_ended(self, run: Run) -> bool:
        """Say whether nothing more becomes of a run: it has ended, or will not be begun."""
        is_dropped = self._cancelled.covers(run.trial.uid, [run.place])
        return run.trial.state.is_final or (run.trial.state is TrialState.PENDING and is_dropped)

    def _of(self, cell: Cell | None) -> list[Run]:
        return [] if cell is None else self._runs[cell]


def _cheapest_first(runs: Iterable[Run]) -> list[int]:
    return [run.place.index for run in reversed(undominated(list(runs)))]
