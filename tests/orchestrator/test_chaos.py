"""A sweep of real trials on a cluster, while everything it runs on is killed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch

from benchmarks.chaos.__main__ import MIX
from benchmarks.chaos.checks import (
    Records,
    artifacts_whole,
    effort,
    exactly_once,
    mirror_equals_ledger,
    tables_equal,
)
from benchmarks.chaos.experiment import FIELDS, NAME, SweepRun, fields_for, run_sweep, verdicts
from benchmarks.chaos.saboteur import Sabotage
from benchmarks.chaos.world import World, running_world
from orchestrator.agenda.survey import survey
from orchestrator.loop.backend import InlineBackend
from orchestrator.specification.loading import parse_spec
from tests.orchestrator.sweeps import Bench
from tracking.artifacts import ArtifactStore
from tracking.ledger.tables import trials
from workers.node.node import Node
from workers.trial import run_trial

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(900),
    # MLflow's own habits, and Ray's
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KINDS = ("worker", "machine", "driver", "mlflow", "postgres")
SMALL: Mapping[str, Any] = {
    **FIELDS,
    "arms": ["l1", {"name": "sfp", "method": "l2", "schedule": "sfp"}],
    "targets": {"macs_reduction": 0.5},
    "search": {"trials": 3, "window": 2},
    "seeds": [1, 2],
    "controls": {"scratch": False, "dense": False, "uniform_l1": False},
    "resources": {"workers": 2, "device": "cpu"},
}
LARGE: Mapping[str, Any] = {**fields_for(120), "resources": {"workers": 3, "device": "cpu"}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sweep under sabotage, and the same one left alone."""

    world: World
    outcome: SweepRun
    quiet: Records


def left_alone(folder: Path, fields: Mapping[str, Any]) -> Records:
    """Run the sweep in this process, with one thread as workers have it."""
    spec, threads = parse_spec(fields), torch.get_num_threads()
    node = Node(
        device=torch.device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
    )
    bench = Bench(folder, NAME)
    torch.set_num_threads(1)
    try:
        backend = InlineBackend(lambda trial, report: run_trial(trial, node, report))
        assert bench.drive(spec, backend, on=survey(spec)).over
    finally:
        torch.set_num_threads(threads)
    return Records(ledger=bench.ledger, name=NAME)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("chaos")
    quiet = left_alone(folder / "quiet", SMALL)
    sabotage = Sabotage(mix=KINDS, kills=len(KINDS), every_s=0.3, seed=1)
    with running_world(folder, machines=2) as world:
        outcome = run_sweep(world, folder / "sabotaged", SMALL, sabotage)
        yield Case(world=world, outcome=outcome, quiet=quiet)
        outcome.records.ledger.close()
    quiet.ledger.close()


def test_a_sweep_survives_a_kill_of_each_kind(case: Case) -> None:
    outcome = case.outcome
    assert Counter(strike.kind for strike in outcome.strikes) == Counter(KINDS)
    assert outcome.exits[-1].status == 0
    problems = verdicts(outcome, case.quiet, case.world.mlflow.url)
    assert {claim: found for claim, found in problems.items() if found} == {}
    print(effort(outcome.records), [ended.status for ended in outcome.exits])


def test_each_check_notices_what_it_is_there_for(case: Case) -> None:
    from mlflow import MlflowClient

    records, store, url = case.outcome.records, case.outcome.store, case.world.mlflow.url
    first, second, third = records.trials()[:3]
    assert first.result
    assert second.result
    assert store.folder is not None

    weights = store.folder / first.result["artifacts"]["weights"]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (store.folder / second.result["artifacts"]["weights"]).unlink()
    assert [line.split()[0] for line in artifacts_whole(records, store)] == [
        first.result["artifacts"]["weights"],
        "Artifact",
    ]

    attempt = next(a for a in records.ledger.attempts(records.sweep_id) if a.trial_id == first.id)
    assert attempt.run_id is not None
    MlflowClient(tracking_uri=url).delete_run(attempt.run_id)
    assert mirror_equals_ledger(records, url) == [f"attempt 1 at trial {first.id} is not shown"]

    assert third.result
    other = {**third.result, "val_accuracy": 0.0}
    with records.ledger.database.write() as connection:
        connection.execute(sa.update(trials).where(trials.c.id == third.id).values(result=other))
    places = [e for e in records.ledger.entries(records.sweep_id) if e.trial_id == third.id]
    assert len(tables_equal(records, case.quiet)) >= len(places)
    assert any("other val_accuracy" in line for line in mirror_equals_ledger(records, url))

    records.ledger.take_over(NAME, "nobody", by_force=True)
    assert [line.split(":")[0] for line in exactly_once(records)] == [
        "the sweep is running",
        "the sweep is held",
    ]


@pytest.mark.slow
def test_a_larger_sweep_survives_what_comes_at_random(tmp_path: Path) -> None:
    quiet = left_alone(tmp_path / "quiet", LARGE)
    sabotage = Sabotage(mix=MIX, kills=2 * len(MIX), every_s=1.0, seed=2)
    with running_world(tmp_path, machines=3) as world:
        outcome = run_sweep(world, tmp_path / "sabotaged", LARGE, sabotage)
        problems = verdicts(outcome, quiet, world.mlflow.url)
        outcome.records.ledger.close()
    quiet.ledger.close()
    assert {claim: found for claim, found in problems.items() if found} == {}
    assert {strike.kind for strike in outcome.strikes} == set(KINDS)
