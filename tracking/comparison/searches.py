"""What a search cost, what it found and what mattered, and whether its guide was a good one."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from tracking.comparison.comparison import ProxyCheck, SearchCost, SearchedRatios, UniformCheck
from tracking.comparison.runs import Run, count
from tracking.places import Role
from tracking.results import finite

UNIFORM = 0  #: Index of uniform ratios, among proposals and among finalists.
FEWEST = 3  #: Finalists below which a rank correlation says nothing.
FEWEST_PROPOSALS: Final = 20  #: Below which nothing is said of which ratios mattered.

#: From numbers by dimension, one a proposal, and what each proposal is worth: shares by dimension.
Importance: TypeAlias = Callable[
    [Mapping[str, Sequence[float]], Sequence[float]], Mapping[str, float]
]


def search_cost(runs: Sequence[Run]) -> SearchCost:
    """Add up a search, whatever became of its trials; what served twice is paid once.

    Args:
        runs: Its proposals, and those of them that were trained afterwards.
    """
    trials = {run.trial.id: run for run in runs}
    own = math.fsum(run.own_seconds for run in trials.values())
    computed = any(run.result.statistics_computed for run in runs)
    borrowed = max((run.borrowed_seconds for run in runs), default=0.0)
    return SearchCost(
        proposals=sum(not run.place.role.is_ranked for run in runs),
        trials=len(trials),
        seconds=own if computed else own + borrowed,
        runs=count(runs),
    )


def uniform_check(search: Sequence[Run], finalists: Sequence[Run] = ()) -> UniformCheck | None:
    """Hold the best proposal against uniform ratios, trained alike; None unless both came back.

    Args:
        search: The proposals.
        finalists: Those that were trained, where proposals were judged without.
    """
    judged = finalists or search
    scores = {
        run.place.index: score
        for run in sorted(judged, key=lambda run: run.place.index)
        if not run.is_proxy and (score := finite(run.result.val_accuracy)) is not None
    }
    if UNIFORM not in scores or len(scores) < 2:
        return None
    best = max(scores, key=lambda index: scores[index])  # the earliest of equals
    return UniformCheck(
        uniform=scores[UNIFORM],
        best=scores[best],
        gain=scores[best] - scores[UNIFORM],
        best_index=best,
        beaten=scores[best] > scores[UNIFORM],
    )


def proxy_check(search: Sequence[Run], finalists: Sequence[Run]) -> ProxyCheck | None:
    """Hold what finalists were worth untrained against what they are worth trained.

    Returns:
        None where proposals were trained anyway, or before a finalist came back.
    """
    untrained = {
        _choice(run): score
        for run in search
        if run.is_proxy and (score := finite(run.result.val_accuracy)) is not None
    }
    pairs = [
        (untrained[_choice(run)], score)
        for run in sorted(finalists, key=lambda run: run.place.index)
        if _choice(run) in untrained and (score := finite(run.result.val_accuracy)) is not None
    ]
    if not pairs:
        return None
    before, after = zip(*pairs, strict=True)
    varies = len(set(before)) > 1 and len(set(after)) > 1
    correlation = None
    if varies and len(pairs) >= FEWEST:
        from scipy.stats import spearmanr  # takes most of a second to import

        correlation = float(spearmanr(before, after).statistic)
    return ProxyCheck(
        finalists=len(pairs),
        untrained=tuple(before),
        trained=tuple(after),
        rank_correlation=correlation,
    )


def _choice(run: Run) -> tuple[object, ...]:
    """Return what tells one proposal of a search from another."""
    spec = run.trial.spec
    ratios = spec.get("ratios") or {}
    settings = spec.get("method_settings") or {}
    return (*sorted(ratios.items()), *sorted((k, str(v)) for k, v in settings.items()))


def searched_ratios(runs: Sequence[Run], importance: Importance) -> tuple[SearchedRatios, ...]:
    """Return every search of ratios with enough proposals that came back, in order."""
    searches: dict[tuple[str, str], list[tuple[Mapping[str, float], float]]] = {}
    for run in runs:
        value, ratios = finite(run.result.val_accuracy), run.trial.spec.get("ratios")
        if run.place.role is Role.SEARCH and ratios and value is not None:
            searches.setdefault((run.place.arm, run.place.target), []).append((ratios, value))
    return tuple(
        found
        for (arm, target), judged in searches.items()
        if len(judged) >= FEWEST_PROPOSALS and (found := _searched(arm, target, judged, importance))
    )


def _searched(
    arm: str,
    target: str,
    judged: Sequence[tuple[Mapping[str, float], float]],
    importance: Importance,
) -> SearchedRatios | None:
    """Return what one search says; None where no ratio varies or all are worth the same."""
    values = tuple(value for _, value in judged)
    ratios = {group: tuple(each[group] for each, _ in judged) for group in judged[0][0]}
    shares = importance(ratios, values)
    if not shares:
        return None
    return SearchedRatios(
        arm=arm, target=target, accuracies=values, ratios=ratios, importance=shares
    )
