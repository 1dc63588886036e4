"""Searches without a target: which proposals no other proposal of the arm dominates."""

from collections.abc import Sequence

from tracking.comparison import Front, FrontPoint
from tracking.runs import Run, search_cost, summary_of, usable

FRONT = "front"  #: Target label of a search for accuracy and cost at once.


def fronts_of(runs: Sequence[Run]) -> tuple[Front, ...]:
    """Return one front per arm that searched without a target, by the arm's name."""
    here = [run for run in runs if run.entry.target == FRONT]
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
                [again for again in confirm if _ratios(again) == _ratios(run)], "test_accuracy"
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


def _ratios(run: Run) -> dict[str, float]:
    ratios: dict[str, float] = run.trial.spec.get("ratios", {})
    return ratios
