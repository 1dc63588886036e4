"""Which arms of a sweep train against a latency predictor, and what has become of theirs."""

from collections.abc import Iterable

import methods
from methods.structure.latency_predictor import PredictorSettings
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.knobs import extremes


def predictor_settings(arm: ArmSettings) -> PredictorSettings | None:
    """Return how the predictor of an arm is made; None: its method needs none, however searched."""
    for settings in extremes(arm.settings):
        how = methods.create(arm.method, settings).predictor
        if how is not None:
            return how
    return None


class Predictors:
    """The latency predictors of a sweep, by arm."""

    def __init__(self, arms: Iterable[ArmSettings]) -> None:
        settings = {arm.name: predictor_settings(arm) for arm in arms}
        #: How each is made, for the arms that need one.
        self.wanted = {arm: how for arm, how in settings.items() if how is not None}
        self._found: dict[str, str | None] = {}

    def came(self, arm: str, content: str | None) -> None:
        """Note the predictor of an arm by its content hash; None: it could not be made."""
        self._found[arm] = content

    def of(self, arm: str) -> str | None:
        """Return the content hash of an arm's predictor; None while, or where, there is none."""
        return self._found.get(arm)

    def is_awaited(self, arm: str) -> bool:
        """Say whether the arm's trials have to wait."""
        return arm in self.wanted and arm not in self._found

    def is_missed(self, arm: str) -> bool:
        """Say whether the arm has nothing to train against, so that none of its trials can run."""
        return arm in self._found and self._found[arm] is None
