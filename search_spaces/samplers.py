"""Optuna's samplers, each made to depend on the study, the seed and the proposal's number alone."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from methods.errors import nearest
from search_spaces.errors import SearchSettingsError

Space = Mapping[str, BaseDistribution]

MIDDLE = 0.5
"""Numbers of proposal 0, unless told otherwise: where CMA-ES and GP start from too."""


def _qmc(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def _tpe(seed: int) -> BaseSampler:
    # Said explicitly: with two objectives Optuna's default is 9 times slower.
    return TPESampler(seed=seed, multivariate=True)


def _nsga2(seed: int) -> BaseSampler:
    # Optuna's population of 50 would spend the usual budget on the random start.
    return NSGAIISampler(seed=seed, population_size=20)


def _cmaes(seed: int) -> BaseSampler:
    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, warn_independent_sampling=False)


_SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed: RandomSampler(seed=seed),
    "nsga2": _nsga2,
    "cmaes": _cmaes,
    "qmc": _qmc,
    "gp": _gp,
}

SAMPLERS: tuple[str, ...] = tuple(_SAMPLERS)
"""Names of the samplers."""

BLIND = frozenset({"random", "qmc"})
"""Samplers whose proposals depend on no result."""


class SeededSampler(BaseSampler):
    """One of Optuna's samplers, for one proposal.

    A new one for each proposal leaves nothing behind in memory, so a rebuilt study continues as
    the first one would have. The dimensions are given, not read from the trials, which halves the
    cost of TPE. A start the sampler leaves open is random, from a stream of its own, all numbers at
    once: Optuna's way, one by one, takes longer than all else of a random proposal.

    Args:
        name: One of ``SAMPLERS``.
        seed: Seed of the search.
        number: Number of the proposal, from 0.
        space: Dimensions by name.
        first: Numbers of proposal 0 that are not the middle.
    """

    def __init__(
        self, name: str, seed: int, number: int, space: Space, first: Mapping[str, float]
    ) -> None:
        streams = np.random.SeedSequence((seed, number)).generate_state(2).tolist()
        # The points of one low-discrepancy sequence share its seed; their number is the index.
        own_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._inner = _SAMPLERS[name](own_seed if name == "qmc" else streams[0])
        self._random = np.random.default_rng(streams[1])
        self._space = dict(space)
        self._first = {**dict.fromkeys(space, MIDDLE), **first} if number == 0 else None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all dimensions, which every proposal has."""
        return dict(self._space)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the sampler's numbers, random ones if it has none; for proposal 0 given ones."""
        if self._first is not None:
            self._inner.sample_relative(study, trial, {})  # NSGA-II notes the generation
            return dict(self._first)
        chosen = self._inner.sample_relative(study, trial, search_space)
        if chosen:
            return chosen
        numbers = self._random.random(len(search_space)).tolist()
        return dict(zip(search_space, numbers, strict=True))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Pass on a dimension that ``sample_relative`` left open; none of the samplers does."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Pass on that a trial begins."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Pass on that a trial has ended."""
        self._inner.after_trial(study, trial, state, values)


def check_sampler(name: str, objectives: int) -> None:
    """Make sure a sampler can do what a search asks of it.

    Raises:
        SearchSettingsError: There is no sampler ``name``, or it cannot handle this many objectives.
    """
    if name not in _SAMPLERS:
        raise SearchSettingsError(f"sampler {name!r}", f"is unknown; {nearest(name, SAMPLERS)}")
    if name == "cmaes" and objectives > 1:
        raise SearchSettingsError(
            "sampler 'cmaes'", "takes one objective; for a front use 'tpe', 'nsga2' or 'gp'."
        )
