"""Searches without a target: which proposals no other proposal of the arm dominates."""

from collections.abc import Sequence
from dataclasses import replace

from tracking.comparison.comparison import Front, FrontPoint
from tracking.comparison.runs import Run, summary_of, usable
from tracking.comparison.searches import search_cost
from tracking.places import FRONT, Role, front_number, front_point, is_front
from tracking.results import finite, given
from tracking.winners import front


def flattened(runs: Sequence[Run]) -> list[Run]:
    """Bring the runs of a sweep without targets into one table, a row per point.

    The re-runs of proposal 3 of ``l1`` become ``l1 #3``, the random control at half the MACs
    ``random macs-50%``; names of arms have no blanks, so `arm_of` finds the arm again.
    """
    flat = []
    for run in runs:
        place, number = run.place, front_number(run.place.target)
        name = place.arm
        if number is not None:
            name = f"{place.arm} #{number}"
        elif place.role is Role.CONTROL and place.target:
            name = f"{place.arm} {place.target}"
        flat_place = replace(place, arm=name, target=FRONT if place.target else "")
        flat.append(replace(run, entry=replace(run.entry, place=flat_place)))
    return flat


def arm_of(name: str) -> str:
    """Return the arm or control a row belongs to."""
    return name.partition(" ")[0]


def fronts_of(runs: Sequence[Run]) -> tuple[Front, ...]:
    """Return one front per arm that searched without a target, by the arm's name."""
    here = [run for run in runs if is_front(run.place.target)]
    arms = sorted({run.place.arm for run in here if run.place.role is Role.SEARCH})
    return tuple(_front(arm, [run for run in here if run.place.arm == arm]) for arm in arms)


def _front(arm: str, runs: Sequence[Run]) -> Front:
    search = [run for run in runs if run.place.role is Role.SEARCH]
    confirm = usable(run for run in runs if run.place.role is Role.CONFIRM)
    points = [
        FrontPoint(
            index=run.place.index,
            macs=int(given(run.result.macs)),
            macs_reduction=given(run.result.reduction("macs")),
            params_reduction=given(run.result.reduction("params")),
            val_accuracy=_accuracy(run),
            accuracy=summary_of(
                [again for again in confirm if again.place.target == front_point(run.place.index)],
                lambda result: result.test_accuracy,
                lambda result: result.test_images,
            ),
        )
        for run in undominated(search)
    ]
    return Front(arm=arm, points=tuple(points), search=search_cost(search))


def undominated(search: Sequence[Run]) -> list[Run]:
    """Keep the runs no other beats in accuracy and MACs; by descending MACs, one per MACs."""
    back = [run for run in usable(search) if finite(run.result.macs) is not None]
    return front(back, lambda run: (_accuracy(run), given(run.result.macs)))[::-1]


def _accuracy(run: Run) -> float:
    return float(given(run.result.val_accuracy))
