"""What a method measures of the dense network, counted over the trials of a real sweep."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from orchestrator.agenda.survey import survey
from orchestrator.loop.backend import InlineBackend
from tests.orchestrator.sweeps import OFF, Bench, specification
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.records import TrialRecord, TrialState
from tracking.report.grids import all_grids
from workers.node.node import Node
from workers.trial import run_trial

TRIALS, SEEDS = 20, (1, 2)
#: Arms, and how many tables each measures: functionality's are signatures and contributions.
TABLES = {"scop": 1, "provable": 1, "functionality": 2}
ARMS = [
    {"method": "scop", "settings": {"steps": 3}},
    {"method": "provable", "settings": {"images": 20}},
    {"method": "functionality", "settings": {"am_steps": 2, "images": 20}},
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A sweep of 20 ratios an arm."""
    folder, threads = tmp_path_factory.mktemp("sweep"), torch.get_num_threads()
    torch.set_num_threads(1)
    node = Node(
        device=torch.device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
    )
    spec = specification(
        arms=ARMS,
        controls=OFF,
        search={"trials": TRIALS, "window": 2},
        recipe={"epochs": 1, "batch_size": 64},
        baseline={"epochs": 3, "allow_chance": True},
        seeds=list(SEEDS),
    )
    bench = Bench(folder)
    backend = InlineBackend(lambda trial, report: run_trial(trial, node, report))
    assert bench.drive(spec, backend, on=survey(spec)).over
    yield bench
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def results(trials: list[TrialRecord]) -> list[dict[str, Any]]:
    """Return the results of different trials, in the order they were wanted."""
    found = {trial.id: trial for trial in trials}.values()
    assert all(trial.state is TrialState.COMPLETED for trial in found)
    return [trial.result for trial in found if trial.result is not None]


def compared(bench: Bench) -> Comparison:
    return compare(bench.ledger, bench.ledger.sweep(bench.name))


@pytest.mark.slow
@pytest.mark.parametrize("arm", TABLES)
class TestPaidOnce:
    def test_a_search_measures_once_and_reuses_it_at_every_other_ratio(
        self, bench: Bench, arm: str
    ) -> None:
        found = results(bench.trials_of(role="search", arm=arm))
        assert len(found) == len({str(one["kept"]) for one in found}) == TRIALS
        computed = [one["statistics_computed"] for one in found]
        reused = [one["statistics_reused"] for one in found]
        assert computed == [TABLES[arm]] + [0] * (TRIALS - 1)
        assert reused == [0] + [TABLES[arm]] * (TRIALS - 1)

    def test_every_trial_is_charged_the_same_for_it(self, bench: Bench, arm: str) -> None:
        found = results(bench.trials_of(role="search", arm=arm))
        for charged in ("seconds_statistics", "epochs_select", "samples_seen"):
            assert len({one[charged] for one in found}) == 1, charged
        assert found[0]["seconds_statistics"] > 0.0

    def test_each_fresh_seed_measures_for_itself(self, bench: Bench, arm: str) -> None:
        found = results(bench.trials_of(role="confirm", arm=arm))
        assert [one["statistics_computed"] for one in found] == [TABLES[arm]] * len(SEEDS)

    def test_the_comparison_shows_what_it_cost(self, bench: Bench, arm: str) -> None:
        (table,) = compared(bench).tables
        row = next(row for row in table.rows if row.name == arm)
        confirmed = results(bench.trials_of(role="confirm", arm=arm))
        searched = results(bench.trials_of(role="search", arm=arm))
        measuring = [one["seconds_statistics"] for one in confirmed]
        assert row.statistics_seconds == pytest.approx(sum(measuring) / len(measuring))
        assert row.search is not None
        assert row.search.seconds == pytest.approx(sum(one["seconds_total"] for one in searched))
        effort = next(grid for grid in all_grids(compared(bench)) if grid.title == "Effort")
        shown = dict(zip(effort.columns, line_of(effort.lines, arm), strict=True))
        assert shown["Statistics"].endswith("s")
        assert shown["Search trials"] == str(TRIALS)


def line_of(lines: Any, arm: str) -> tuple[str, ...]:
    """Return the cells of an arm's line."""
    cells: tuple[str, ...] = next(line.cells for line in lines if line.cells[0] == arm)
    return cells
