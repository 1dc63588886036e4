"""Whether the searches of a sweep give all its workers something to do."""

from math import ceil

from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.specification.spec import SweepSpec
from search_spaces.samplers import BLIND
from tracking.places import Role

#: Proposals under way per worker that keep workers busy where trials differ in length: a search
#: waits for its oldest trial. Measured for a log-normal length with sigma 0.5.
AHEAD = 3


def say_if_idle(spec: SweepSpec) -> str | None:
    """Return what to tell a person whose workers are sure to idle while ratios are searched."""
    searches, window = trial_matrix(spec).of(Role.SEARCH), spec.search.window
    workers, under_way = spec.resources.workers, window * len(searches)
    if (
        spec.search.sampler in BLIND
        or not searches
        or under_way >= workers
        or window >= spec.search.trials
    ):
        return None
    enough = min(spec.search.trials, ceil(AHEAD * workers / len(searches)))
    return (
        f"Of {workers} workers at most {under_way} have a trial while ratios are searched: "
        f"{len(searches)} searches (arms x targets), each with search.window = {window} proposals "
        f"under way. A new sweep with search.window: {enough} keeps them busy, with proposals that "
        "know less; a window cannot change once a sweep has begun."
    )
