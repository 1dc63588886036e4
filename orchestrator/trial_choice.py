"""Which trial is meant: by number, by uid, or as the best of an arm at a target."""

from orchestrator.errors import InputError
from tracking.ledger.ledger import Ledger
from tracking.records import SweepRecord, TrialRecord
from tracking.winners import best_trial


class TrialChoiceError(InputError, LookupError):
    """A trial was named in a way that does not lead to one."""

    def __init__(self, sweep: str, text: str, problem: str) -> None:
        super().__init__(sweep, text, problem)
        self.sweep, self.text, self.problem = sweep, text, problem

    def __str__(self) -> str:
        return (
            f"Trial {self.text!r} of sweep {self.sweep!r}: {self.problem} Give the trial's number, "
            "the first digits of its uid, or best:ARM:TARGET as in best:l1:macs-50%."
        )


def choose_trial(ledger: Ledger, sweep: SweepRecord, text: str) -> TrialRecord:
    """Return the trial that ``text`` stands for: a number, the start of a uid, best:ARM:TARGET.

    Raises:
        TrialChoiceError: None or several do.
    """
    name, trials = sweep.name, ledger.trials(sweep.id)
    if text.startswith("best:"):
        arm, _, target = text.removeprefix("best:").rpartition(":")
        by_id = {trial.id: trial for trial in trials}
        return _best(ledger, sweep, text, (arm, target), by_id)
    by_number = [trial for trial in trials if str(trial.id) == text]
    by_uid = [trial for trial in trials if text and trial.uid.startswith(text)]
    choice = by_number or by_uid
    if not choice:
        raise TrialChoiceError(name, text, "there is none.")
    if len(choice) > 1:
        uids = ", ".join(trial.uid[: len(text) + 4] for trial in choice[:4])
        raise TrialChoiceError(name, text, f"{len(choice)} uids begin so, among them {uids}.")
    return choice[0]


def _best(
    ledger: Ledger,
    sweep: SweepRecord,
    text: str,
    wanted: tuple[str, str],
    trials: dict[int, TrialRecord],
) -> TrialRecord:
    """Return the best by validation accuracy of the re-runs, or of the search before there are."""
    entries = ledger.entries(sweep.id)
    best = best_trial(
        (entry.place, trials[entry.trial_id])
        for entry in entries
        if (entry.place.arm, entry.place.target) == wanted
    )
    if best is not None:
        return best[1]
    there = {
        f"{e.place.arm}:{e.place.target}"
        for e in entries
        if best_trial([(e.place, trials[e.trial_id])]) is not None
    }
    known = ", ".join(sorted(there)) or "none yet"
    raise TrialChoiceError(sweep.name, text, f"no trial has completed; there are: {known}.")
