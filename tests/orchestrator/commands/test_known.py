"""What a dry run finds that other sweeps have run already."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.commands.known import known_elsewhere
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.sweeps import Bench, specification, surveyed
from tracking.comparison.runs import Run
from tracking.places import Role
from tracking.records import TrialRecord, TrialState


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.ledger.close()


def completed(bench: Bench) -> dict[str, TrialRecord]:
    return {t.uid: t for t in bench.trials() if t.state is TrialState.COMPLETED}


def known(spec: SweepSpec, bench: Bench) -> dict[tuple[str, ...], int]:
    """Count what ``spec`` would find in the ledger if it began anew, by role, arm and target."""
    found = known_elsewhere(spec, surveyed(), [], completed(bench), ())
    return {(str(c.role), c.arm, c.target): n for c, n in found.items()}


def test_a_sweep_of_the_same_content_has_all_but_what_was_timed(bench: Bench) -> None:
    spec = specification()
    bench.drive(spec)
    wanted = [cell for cell in trial_matrix(spec).cells if cell.role is not Role.LATENCY]
    assert known(spec, bench) == {(str(c.role), c.arm, c.target): c.trials for c in wanted}


def test_what_follows_from_results_that_are_lacking_is_not_counted(bench: Bench) -> None:
    bench.drive(specification())
    found = known(specification(seeds=[1, 7]), bench)
    assert found["search", "l1", "macs-50%"] == 3
    assert found["confirm", "l1", "macs-50%"] == 1
    assert found["control", "dense", ""] == 1
    assert ("control", "scratch", "macs-50%") not in found


@pytest.mark.parametrize("changes", [{"recipe": {"epochs": 3}}, {"baseline": {"epochs": 4}}])
def test_other_content_is_not_known(bench: Bench, changes: dict[str, Any]) -> None:
    bench.drive(specification())
    found = known(specification(**changes), bench)
    assert found.keys() <= {("baseline", "", "")}
    assert bool(found) == ("recipe" in changes)


def test_a_ledger_of_the_sweep_alone_has_nothing_to_add(bench: Bench) -> None:
    bench.drive(specification())
    sweep = bench.ledger.sweep("sweep").id
    trials = {trial.id: trial for trial in bench.trials()}
    runs = [Run(entry=e, trial=trials[e.trial_id]) for e in bench.ledger.entries(sweep)]
    assert not known_elsewhere(specification(), surveyed(), runs, completed(bench), ())
