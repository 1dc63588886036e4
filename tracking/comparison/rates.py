"""The learning rate a sweep picked for all its trials, as the records tell of it."""

from collections.abc import Sequence

from tracking.comparison.comparison import RateChoice
from tracking.comparison.runs import Run
from tracking.places import Role


def rate_choice(runs: Sequence[Run]) -> RateChoice | None:
    """Say which rates were tried, how they did, which one was taken and what that cost."""
    tried = [run for run in runs if run.place.role is Role.TUNE]
    if not tried:
        return None
    after = {
        float(run.trial.spec["recipe"]["learning_rate"])
        for run in runs
        if run.place.role.is_reported and run.trial.spec.get("kind") in {"prune", "dense"}
    }
    return RateChoice(
        arm=tried[0].place.arm,
        target=tried[0].place.target,
        tried=tuple((_rate(run), run.accuracy) for run in tried),
        chosen=after.pop() if len(after) == 1 else None,
        seconds=sum(run.seconds for run in {run.trial.id: run for run in tried}.values()),
    )


def _rate(run: Run) -> float:
    return float(run.trial.spec["recipe"]["learning_rate"])
