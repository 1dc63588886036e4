"""Ending search trials early: which of those that run are not worth their remaining epochs.

One rule per arm and target, so that nothing is compared across targets. Only the trials of searches
are stopped: re-runs and controls are what the comparison rests on.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.agenda import Place, place_of
from orchestrator.spec import SweepSpec
from search_spaces import StoppingRule, create_rule
from tracking.ledger import Ledger
from tracking.records import MetricPoint, TrialState

JUDGED_BY = "val_accuracy"


class Stopper:
    """Watches the reports of a sweep's searches.

    Args:
        spec: The sweep.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._how, self._epochs = spec.search.stopping, spec.recipe.epochs
        self._rules: dict[tuple[str, str], StoppingRule] = {}

    def restore(self, ledger: Ledger, sweep_id: int) -> None:
        """Take in, in the order it came, what earlier drivers were told."""
        if self._how.rule == "none":
            return
        searched = [e for e in ledger.entries(sweep_id) if e.role == "search"]
        places = {entry.trial_id: place_of(entry) for entry in searched}
        past: list[tuple[datetime, int, MetricPoint | None]] = [
            (point.at, attempt.trial_id, point)
            for attempt in ledger.attempts(sweep_id)
            if attempt.trial_id in places
            for point in ledger.metrics(attempt.trial_id, attempt.n)
            if point.key == JUDGED_BY
        ]
        past += [
            (trial.ended_at, trial.id, None)
            for trial in ledger.trials(sweep_id, TrialState.COMPLETED)
            if trial.id in places and trial.ended_at is not None
        ]
        for _, trial_id, point in sorted(past, key=lambda event: event[:2]):
            rule = self._rule_of(places[trial_id])
            if point is None:
                rule.ended(trial_id)
            else:
                rule.report(trial_id, point.step, point.value)

    def reported(
        self, trial_id: int, places: Sequence[Place], step: int, values: Mapping[str, float]
    ) -> str | None:
        """Take in a report; return why the trial is to end, None: it goes on."""
        if self._how.rule == "none" or any(place.role != "search" for place in places):
            return None
        value = values.get(JUDGED_BY)
        if value is None or not self._rule_of(places[0]).report(trial_id, step, value):
            return None
        return f"{self._how.rule}: not promising at {JUDGED_BY} {value:.2f} after epoch {step}"

    def completed(self, trial_id: int, places: Sequence[Place]) -> None:
        """Take in that a trial ran to its end."""
        if self._how.rule != "none" and places[0].role == "search":
            self._rule_of(places[0]).ended(trial_id)

    def _rule_of(self, place: Place) -> StoppingRule:
        key = (place.arm, place.target)
        if key not in self._rules:
            self._rules[key] = create_rule(
                self._how.rule,
                self._epochs,
                min_epochs=self._how.min_epochs,
                reduction_factor=self._how.reduction_factor,
                min_trials=self._how.min_trials,
            )
        return self._rules[key]
