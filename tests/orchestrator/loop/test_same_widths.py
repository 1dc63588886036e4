"""Proposals that come to the same widths: judged once, and answered from the ledger after that."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from orchestrator.agenda.survey import survey
from orchestrator.loop.backend import InlineBackend
from tests.orchestrator.sweeps import OFF, Bench, Driven, specification
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.places import Role
from workers.node.node import Node
from workers.trial import run_trial

PROPOSALS = 16
#: Widths in steps of half a layer, so that different numbers often come to the same.
SEARCH = {"trials": PROPOSALS, "proxy": True, "finalists": 2, "round_to": 32, "tolerance": 0.15}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def driven(bench: Bench, tmp_path: Path) -> Iterator[Driven]:
    """A real sweep of one arm."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    artifacts = ArtifactStore(tmp_path / "artifacts")
    node = Node(device=torch.device("cpu"), cache_dir=tmp_path / "cache", artifacts=artifacts)
    spec = specification(
        arms=["l1"],
        search=SEARCH,
        recipe={"epochs": 1, "batch_size": 64},
        baseline={"epochs": 2, "allow_chance": True},
        seeds=[1, 2],
        controls=OFF,
    )
    backend = InlineBackend(lambda trial, report: run_trial(trial, node, report))
    done = bench.drive(spec, backend, on=survey(spec))
    assert done.over
    yield done
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.integration
def test_the_same_widths_are_judged_once_and_every_proposal_has_the_answer(
    bench: Bench, driven: Driven
) -> None:
    entries = bench.entries(role=Role.SEARCH)
    assert len(entries) == PROPOSALS
    numbers = {str(entry.proposal["params"]) for entry in entries if entry.proposal}
    assert len(numbers) == PROPOSALS  # no two proposals are the same
    answered = {entry.place.index: bench.trial(entry) for entry in entries}
    by_ratios: dict[str, set[int]] = {}
    for trial in answered.values():
        by_ratios.setdefault(str(trial.spec["ratios"]), set()).add(trial.id)
    assert len(by_ratios) < PROPOSALS
    assert all(len(ids) == 1 for ids in by_ratios.values())  # the ledger says whose answer it is
    judged = {trial.id for trial in answered.values()}
    attempts = Counter(attempt.trial_id for attempt in bench.attempts())
    assert {attempts[trial] for trial in judged} == {1}
    again = [ended for ended in driven.log.trials if ended.reused and ended.trial_id in judged]
    assert len(again) + sum(
        len(ended.places) - 1
        for ended in driven.log.trials
        if ended.trial_id in judged and not ended.reused
    ) == PROPOSALS - len(judged)
    (table,) = compare(bench.ledger, bench.ledger.sweep(bench.name)).tables
    search = table.arms[0].search
    assert search is not None
    finalists = len(bench.entries(role=Role.FINALIST))
    assert (search.proposals, search.trials) == (PROPOSALS, len(judged) + finalists)
