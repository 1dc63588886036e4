"""The cheapest network within an accuracy drop: a real sweep on the digits."""

from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pytest
import torch

from orchestrator.agenda.survey import survey
from orchestrator.loop.backend import InlineBackend
from tests.orchestrator.sweeps import Bench, specification
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Table, Within
from tracking.places import Role, searched_label
from tracking.report.report import to_text
from workers.node.node import Node
from workers.trial import run_trial

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("drops")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    node = Node(
        device=torch.device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
        is_shared=False,
    )
    spec = specification(
        arms=["l1"],
        targets={"accuracy_drop": 2},
        search={"trials": 4, "proxy": True, "finalists": 2, "costs": 3},
        recipe={"epochs": 3, "batch_size": 32, "learning_rate": 0.02},
        baseline={"epochs": 10, "learning_rate": 0.1},
        data={"name": "digits"},
        controls={"scratch": False},
    )
    made = Bench(folder)
    backend = InlineBackend(lambda trial, report: run_trial(trial, node, report))
    assert made.drive(spec, backend, on=survey(spec)).over
    yield made
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def table(bench: Bench) -> Table:
    (found,) = compare(bench.ledger, bench.ledger.sweep(bench.name)).tables
    return found


def test_the_answer_is_one_line_with_its_uncertainty(bench: Bench) -> None:
    comparison = compare(bench.ledger, bench.ledger.sweep(bench.name))
    row = table(bench).arms[0]
    assert isinstance(row.within, Within)
    assert row.within.half is not None
    assert row.cost is not None
    assert row.within.reduction == pytest.approx(row.cost.macs_reduction)
    assert row.verdict is row.within.verdict
    lost = f"{row.within.drop:.2f}".replace("-", "\N{MINUS SIGN}")
    line = (
        f"Within 2 points of the dense network: l1 loses {100 * row.within.reduction:.1f} % of "
        f"the MACs at {lost} ± {row.within.half:.2f} points: "
    )
    assert line in " ".join(to_text(comparison).split())


def test_costs_are_halved_and_the_cheapest_within_is_re_run(bench: Bench) -> None:
    dense = fmean(found["val_accuracy"] for found in results(bench, arm="dense"))
    trained: dict[str, list[dict[str, Any]]] = {}
    for entry in bench.entries(role=Role.FINALIST, arm="l1"):
        assert searched_label(entry.place.target) == "drop-2"
        result = bench.trial(entry).result
        assert result is not None
        trained.setdefault(entry.place.target, []).append(result)
    assert len(trained) == 3
    within = [
        best["macs_reduction"]
        for tried in trained.values()
        if (best := max(tried, key=lambda found: found["val_accuracy"]))["val_accuracy"]
        >= dense - 2
    ]
    (confirmed,) = {found["macs_reduction"] for found in results(bench, role=Role.CONFIRM)}
    assert confirmed == max(within)


def test_controls_with_ratios_sit_at_the_cost_of_the_answer(bench: Bench) -> None:
    answer = results(bench, role=Role.CONFIRM)[0]["macs_reduction"]
    for arm in ("random", "uniform_l1"):
        for found in results(bench, role=Role.CONTROL, arm=arm):
            assert found["macs_reduction"] == pytest.approx(answer, abs=0.02)


def results(bench: Bench, **where: Any) -> list[dict[str, Any]]:
    return [trial.result for trial in bench.trials_of(**where) if trial.result is not None]
