"""Which trials are not worth their remaining epochs, decided on the reports of each epoch.

Sources:
    ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020,
        arXiv:1810.05934, algorithm 2.
    Median rule: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017,
        section 3.2.1.

Optuna's pruners are not used: they read a study with its storage, where reports would have to be
written a second time, and refuse two objectives. A rule here sees one number per epoch.

Departure from ASHA's paper: there a trial waits at a rung until it is promoted, and may go on much
later. Here it must go on or stop at once, as with Optuna's and Ray Tune's ASHA, so the first few at
a rung go on if they are the best so far.
"""

import math
import statistics
from abc import ABC, abstractmethod
from bisect import insort
from typing import Literal

RuleName = Literal["asha", "median"]


class StoppingRule(ABC):
    """Decides for the trials of one arm at one target; a higher value is better.

    The same reports in the same order give the same decisions, so a rule is rebuilt by replaying
    them. A value that is not finite counts as worse than any that is.

    Args:
        epochs: Length of a trial. Reports of the last epoch decide nothing.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._curves: dict[int, dict[int, float]] = {}  # value by epoch, of each trial
        self._stopped: set[int] = set()

    def report(self, trial: int, epoch: int, value: float) -> bool:
        """Take in what a trial reached, and say whether it is to stop.

        An epoch that is reported again, by a further attempt at the trial, counts once. A trial
        that was to stop is told so again, and what it still reports counts for nothing.

        Args:
            trial: Any number that tells the trials apart.
            epoch: Epochs of its budget it has used, from 1; selection and recovery alike.
            value: Validation accuracy, say.
        """
        curve = self._curves.setdefault(trial, {})
        if not 1 <= epoch < self._epochs:
            return False
        if trial not in self._stopped and epoch not in curve:
            curve[epoch] = value if math.isfinite(value) else -math.inf
            if self._is_hopeless(trial, epoch):
                self._stopped.add(trial)
        return trial in self._stopped

    def ended(self, trial: int) -> None:  # noqa: B027
        """Take in that a trial ran to its end; one that failed or was stopped did not."""

    @abstractmethod
    def _is_hopeless(self, trial: int, epoch: int) -> bool:
        """Say whether to stop a trial, by its curve up to a new report."""


class Asha(StoppingRule):
    """Successive halving without waiting: at each rung the best go on, of those seen there so far.

    Rungs are at ``min_epochs * reduction_factor ** k`` epochs. Of ``n`` trials at a rung the best
    ``max(1, n // reduction_factor)`` go on, and what equals the last of these. A trial stands at a
    rung with its first report from there on, and at the higher one if it passes two at once.
    """

    def __init__(self, epochs: int, min_epochs: int, reduction_factor: int) -> None:
        super().__init__(epochs)
        self._factor = reduction_factor
        self._rungs: dict[int, list[float]] = {}  # values seen at each, rising
        rung = min_epochs
        while rung < epochs:
            self._rungs[rung] = []
            rung *= reduction_factor
        self._reached: dict[int, int] = {}  # the highest rung of each trial

    def _is_hopeless(self, trial: int, epoch: int) -> bool:
        rung = max((rung for rung in self._rungs if rung <= epoch), default=0)
        if rung <= self._reached.get(trial, 0):
            return False
        self._reached[trial] = rung
        value, seen = self._curves[trial][epoch], self._rungs[rung]
        insort(seen, value)
        return value < seen[-max(1, len(seen) // self._factor)]


class MedianStop(StoppingRule):
    """Stops a trial whose best so far is below the median of what completed ones averaged by then.

    Each completed trial counts with the mean of its reports up to the same epoch.
    """

    def __init__(self, epochs: int, min_epochs: int, min_trials: int) -> None:
        super().__init__(epochs)
        self._min_epochs, self._min_trials = min_epochs, min_trials
        self._completed: set[int] = set()
        #: Of completed trials, by epoch, rising.
        self._averages: dict[int, list[float]] = {epoch: [] for epoch in range(1, epochs)}

    def ended(self, trial: int) -> None:
        """Let a completed trial's curve count from now on, unless it was to stop."""
        if trial in self._completed | self._stopped:
            return
        self._completed.add(trial)
        curve, reached = self._curves.get(trial, {}), []
        for epoch, averages in self._averages.items():
            reached += [curve[epoch]] if epoch in curve else []
            if reached:
                insort(averages, statistics.fmean(reached))

    def _is_hopeless(self, trial: int, epoch: int) -> bool:
        averages = self._averages[epoch]
        if epoch < self._min_epochs or len(averages) < self._min_trials:
            return False
        best = max(value for step, value in self._curves[trial].items() if step <= epoch)
        return best < statistics.median(averages)


def create_rule(
    name: RuleName, epochs: int, *, min_epochs: int, reduction_factor: int, min_trials: int
) -> StoppingRule:
    """Return a new rule for the trials of one arm at one target.

    Args:
        name: What decides.
        epochs: Length of a trial.
        min_epochs: No trial is stopped before; ASHA's first rung.
        reduction_factor: ASHA lets one in so many go on.
        min_trials: Trials to complete before the median counts.
    """
    match name:
        case "asha":
            return Asha(epochs, min_epochs, reduction_factor)
        case "median":
            return MedianStop(epochs, min_epochs, min_trials)
