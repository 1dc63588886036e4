"""Ending search trials early: which of those that run are not worth their remaining epochs.

One rule per arm and target, so that nothing is compared across targets. Only the trials of searches
are stopped: re-runs and controls are what the comparison rests on.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.specification.spec import SweepSpec
from search_spaces import StoppingRule, create_rule
from tracking.ledger.ledger import Ledger
from tracking.places import Place
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
        places: dict[int, list[Place]] = {}
        for entry in ledger.entries(sweep_id):
            places.setdefault(entry.trial_id, []).append(entry.place)
        rules = {trial_id: self._rule_of(wanted) for trial_id, wanted in places.items()}
        past: list[tuple[datetime, int, MetricPoint | None]] = [
            (point.at, attempt.trial_id, point)
            for attempt in ledger.attempts(sweep_id)
            if rules.get(attempt.trial_id) is not None
            for point in ledger.metrics(attempt.trial_id, attempt.n)
            if point.key == JUDGED_BY
        ]
        past += [
            (trial.ended_at, trial.id, None)
            for trial in ledger.trials(sweep_id, TrialState.COMPLETED)
            if trial.ended_at is not None
        ]
        for _, trial_id, point in sorted(past, key=lambda event: event[:2]):
            rule = rules.get(trial_id)  # none also where the trial is not wanted any more
            if rule is not None and point is None:
                rule.ended(trial_id)
            elif rule is not None and point is not None:
                rule.report(trial_id, point.step, point.value)

    def reported(
        self, trial_id: int, places: Sequence[Place], step: int, values: Mapping[str, float]
    ) -> str | None:
        """Take in a report; return why the trial is to end, None: it goes on."""
        rule, value = self._rule_of(places), values.get(JUDGED_BY)
        if rule is None or value is None or not rule.report(trial_id, step, value):
            return None
        return f"{self._how.rule}: not promising at {JUDGED_BY} {value:.2f} after epoch {step}"

    def completed(self, trial_id: int, places: Sequence[Place]) -> None:
        """Take in that a trial ran to its end."""
        rule = self._rule_of(places)
        if rule is not None:
            rule.ended(trial_id)

    def _rule_of(self, places: Sequence[Place]) -> StoppingRule | None:
        """Return what judges a trial that is wanted at ``places``; None: it runs to its end."""
        if self._how.rule == "none" or not all(place.role.may_end_early for place in places):
            return None
        key = (places[0].arm, places[0].target)
        if key not in self._rules:
            self._rules[key] = create_rule(
                self._how.rule,
                self._epochs,
                min_epochs=self._how.min_epochs,
                reduction_factor=self._how.reduction_factor,
                min_trials=self._how.min_trials,
            )
        return self._rules[key]
