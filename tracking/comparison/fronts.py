"""Searches without a target: which proposals no other proposal of the arm dominates."""

from collections.abc import Sequence
from dataclasses import replace

from tracking.comparison.comparison import FRONT, Front, FrontPoint
from tracking.comparison.runs import Run, search_cost, summary_of, usable

POINT = f"{FRONT}-"  #: Followed by the number of the proposal that is re-run.


def is_front(run: Run) -> bool:
    """Whether the run belongs to a search without a target."""
    return run.entry.target == FRONT or run.entry.target.startswith(POINT)


def flattened(runs: Sequence[Run]) -> list[Run]:
    """Bring the runs of a sweep without targets into one table, a row per point.

    The re-runs of proposal 3 of ``l1`` become ``l1 #3``, the random control at half the MACs
    ``random macs-50%``; names of arms have no blanks, so `arm_of` finds the arm again.
    """
    flat = []
    for run in runs:
        role, arm, target = run.entry.role, run.entry.arm, run.entry.target
        name = arm
        if role in {"confirm", "latency"} and target.startswith(POINT):
            name = f"{arm} #{target.removeprefix(POINT)}"
        elif role == "control" and target:
            name = f"{arm} {target}"
        label = FRONT if target else target
        flat.append(replace(run, entry=replace(run.entry, arm=name, target=label)))
    return flat


def arm_of(name: str) -> str:
    """Return the arm or control a row belongs to."""
    return name.partition(" ")[0]


def fronts_of(runs: Sequence[Run]) -> tuple[Front, ...]:
    """Return one front per arm that searched without a target, by the arm's name."""
    here = [run for run in runs if is_front(run)]
    arms = sorted({run.entry.arm for run in here if run.entry.role == "search"})
    return tuple(_front(arm, [run for run in here if run.entry.arm == arm]) for arm in arms)


def _front(arm: str, runs: Sequence[Run]) -> Front:
    search = [run for run in runs if run.entry.role == "search"]
    confirm = usable(run for run in runs if run.entry.role == "confirm")
    points = [
        FrontPoint(
            index=run.entry.index,
            macs=int(run.result["macs"]),
            macs_reduction=1 - run.result["macs"] / run.result["base_macs"],
            params_reduction=1 - run.result["params"] / run.result["base_params"],
            val_accuracy=float(run.result["val_accuracy"]),
            accuracy=summary_of(
                [again for again in confirm if again.entry.target == f"{POINT}{run.entry.index}"],
                "test_accuracy",
            ),
        )
        for run in undominated(search)
    ]
    return Front(arm=arm, points=tuple(points), search=search_cost(search))


def undominated(search: Sequence[Run]) -> list[Run]:
    """Keep the runs no other beats in accuracy and MACs; by descending MACs, one per MACs."""
    best: list[Run] = []
    back = [run for run in usable(search) if run.number("macs") is not None]
    for run in sorted(back, key=lambda run: (run.number("macs"), -_accuracy(run))):
        if not best or _accuracy(run) > _accuracy(best[-1]):
            best.append(run)
    return best[::-1]


def _accuracy(run: Run) -> float:
    return float(run.result["val_accuracy"])
