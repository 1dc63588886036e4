"""How much of what a sweep asks for other sweeps of its ledger have run already."""

from collections import Counter
from collections.abc import Iterable, Mapping

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.survey import Survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.specification.spec import SweepSpec
from tracking.comparison.runs import Run
from tracking.matrix import Cell
from tracking.records import TrialRecord, TrialState

AT_ONCE = 64  #: Trials asked of the agenda at a time.
_NO_DEVICE = ""  #: Times are of one machine, and which it will be is not known yet.


def known_elsewhere(
    spec: SweepSpec,
    surveyed: Survey,
    runs: Iterable[Run],
    done: Mapping[str, TrialRecord],
    cancelled: Iterable[str],
) -> Counter[Cell]:
    """Count the trials that are wanted next and have their result, by cell of the matrix.

    What they bring back leads to more, as when the sweep runs: proposals depend on results and on
    nothing else. Latencies are not counted, nor anything where targets are latencies.

    Args:
        spec: What is asked for.
        surveyed: What it stands on.
        runs: What the ledger has of the sweep itself.
        done: Completed trials of any sweep, by uid.
        cancelled: Arms and controls of which nothing more is run.
    """
    found: Counter[Cell] = Counter()
    runs = list(runs)
    if spec.latency_targets or not done.keys() - {run.trial.uid for run in runs}:
        return found
    agenda, matrix = Agenda(spec, surveyed, _NO_DEVICE), trial_matrix(spec)
    agenda.begin([run.entry for run in runs], [run.trial for run in runs], cancelled=cancelled)
    while wanted := agenda.next(AT_ONCE):
        for item in wanted:
            trial, cell = done.get(item.trial.uid), matrix.cell_of(item.place)
            if trial is not None and cell is not None:
                found[cell] += 1
                agenda.ended(item.place, trial.uid, TrialState.COMPLETED, trial.result)
    return found
