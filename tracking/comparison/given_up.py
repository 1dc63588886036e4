"""Arms that are not worth going on with, and arms of which nothing came: all of them failed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tracking.comparison.runs import Run
from tracking.places import Place
from tracking.records import EntryRecord, TrialRecord, TrialState


class Breaker:
    """Gives an arm up once its first trials have all failed of the same cause.

    One that came to any other end shows that the arm can work, and is never given up after that.

    Args:
        limit: How many must fail before it is given up; 0: never.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failed: defaultdict[str, dict[str, str]] = defaultdict(dict)  # causes by arm and uid
        self._works: set[str] = set()
        self.given_up: dict[str, str] = {}  #: Arms that were, with the cause.

    def replay(self, past: Iterable[tuple[EntryRecord, TrialRecord]]) -> None:
        """Take in all that the ledger holds, in the order in which trials ended."""
        ended = [(t.ended_at, t.id, e, t) for e, t in past if t.ended_at is not None]
        for *_, entry, trial in sorted(ended, key=lambda item: item[:2]):
            self.ended(entry.place, trial.uid, trial.state, trial.cause)

    def ended(self, place: Place, uid: str, state: TrialState, cause: str | None) -> bool:
        """Take in how a trial ended; return whether that gives its arm up.

        Args:
            place: Where it was wanted; only searches and re-runs speak of an arm.
            uid: The trial's; what is told twice counts once.
            state: Final; being cancelled says nothing of an arm.
            cause: Of a failure: its kind, a colon, and what varies.
        """
        arm = place.arm
        silent = not place.role.speaks_of_arm or state is TrialState.CANCELLED
        if silent or arm in self.given_up or arm in self._works:
            return False
        if state is not TrialState.FAILED:
            self._works.add(arm)
            return False
        failed = self._failed[arm]
        failed[uid] = _kind(cause)
        if not 0 < self._limit <= len(failed) or len(set(failed.values())) > 1:
            return False
        self.given_up[arm] = cause or ""
        return True


def _kind(cause: str | None) -> str:
    """Return what failures of one kind have in common: a loss has its own, all else the error's."""
    kind, _, rest = (cause or "").partition(":")
    return f"{kind}:{rest}" if kind == "lost" else kind


def failed_arms(runs: Iterable[Run]) -> dict[str, str]:
    """Return arms and controls all of whose trials failed, with the cause most of them share.

    Of an arm that came as far as its fresh-seed runs, those decide: a search that went well leaves
    nothing to compare where its winner cannot be run again.
    """
    by_arm: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.place.role.stands_for_arm:
            by_arm[run.place.arm].append(run)
    return {arm: cause for arm, mine in sorted(by_arm.items()) if (cause := _shared_cause(mine))}


def _shared_cause(runs: Sequence[Run]) -> str | None:
    """Return why all failed; None: not all did, or some have not ended."""
    deciding = [run for run in runs if run.place.role.is_reported] or runs
    states = {run.trial.state for run in deciding} - {TrialState.CANCELLED}
    if states != {TrialState.FAILED}:
        return None
    causes = Counter(run.trial.cause for run in deciding if run.trial.cause)
    return causes.most_common(1)[0][0] if causes else "no cause is known"


def told_failed(failed: Mapping[str, str]) -> str:
    """Say it in one sentence for each cause."""
    by_cause: dict[str, list[str]] = {}
    for arm, cause in failed.items():
        by_cause.setdefault(cause, []).append(arm)
    return " ".join(
        f"Every trial of {', '.join(sorted(arms))} failed: {cause.rstrip('.')}."
        for cause, arms in by_cause.items()
    )
