"""Which results win: the best by validation accuracy, and the front of accuracy and cost.

One rule for everyone who asks: searches choose what is re-run, the re-runs decide between arms, and
what is called the best of an arm is the same trial wherever it is named.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from tracking.places import Place, Role
from tracking.records import TrialRecord, TrialState
from tracking.results import Result, finite

T = TypeVar("T")


def front(
    results: Iterable[T], point: Callable[[T], tuple[float, float]], *, with_equals: bool = False
) -> list[T]:
    """Return the results no other one beats, cheapest first.

    A result is beaten when another is at least as accurate and at most as costly, and better in
    one of the two.

    Args:
        results: Candidates, in the order that decides between equal ones.
        point: Accuracy and cost of one.
        with_equals: Keep all of several equal results; otherwise the first.
    """
    chosen: list[T] = []
    for result in sorted(results, key=lambda one: (point(one)[1], -point(one)[0])):
        last = point(chosen[-1]) if chosen else None
        if last is None or point(result)[0] > last[0] or (with_equals and point(result) == last):
            chosen.append(result)
    return chosen


def best(results: Mapping[int, float]) -> int:
    """Return the number of the highest accuracy, the lowest number where several share it."""
    return min(results, key=lambda number: (-results[number], number))


def is_within(accuracy: float, dense: float, points: float) -> bool:
    """Say whether an accuracy is at most so many points below the dense network's."""
    return accuracy >= dense - points - 1e-9


def best_arm(accuracies: Mapping[str, Sequence[float]]) -> str | None:
    """Return the arm whose re-runs have the highest mean; of equal ones the first; None: none."""
    means = {arm: sum(found) / len(found) for arm, found in accuracies.items() if found}
    return max(means, key=lambda arm: means[arm]) if means else None


def best_trial(
    candidates: Iterable[tuple[Place, TrialRecord]],
) -> tuple[Place, TrialRecord] | None:
    """Return the best trial of one arm or control at one target, by validation accuracy.

    Re-runs with fresh seeds decide as soon as one has completed; before, the best of the finalists
    that were trained, then the search's best, which its place tells. Of equal trials the earliest
    is returned; None: none has completed.
    """
    done = [(place, trial) for place, trial in candidates if _accuracy(trial) is not None]
    fresh = [one for one in done if one[0].role.is_reported]
    finalists = [one for one in done if one[0].role is Role.FINALIST]
    searched = [one for one in done if one[0].role is Role.SEARCH]
    asked = fresh or finalists or searched
    return max(asked, key=lambda one: (_accuracy(one[1]), -one[1].id), default=None)


def _accuracy(trial: TrialRecord) -> float | None:
    is_completed = trial.state is TrialState.COMPLETED
    return finite(Result.read(trial.result).val_accuracy) if is_completed else None
