"""Matrix less ledger is what is missing and what the agenda still wants, wherever a sweep stops."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.survey import Survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import DEVICE, OFF, Bench, Log, specification, surveyed
from tracking.comparison.missing import StillToCome, missing_from, still_to_come
from tracking.comparison.runs import Run
from tracking.matrix import Cell, matrix_of
from tracking.places import Place, Role
from workers.results import Report
from workers.settings import TrialSpec

GATES = {
    "method": "weight_gates",
    "settings": {"cost": "latency", "samples": 50},
    "allocation": "method",
    "name": "gates",
}
FRONT: dict[str, Any] = {"targets": None, "search": {"trials": 8, "window": 3}}
BY_PROXY = {"trials": 7, "window": 3, "proxy": True, "finalists": 3}
GRADUAL = {"method": "l1", "schedule": {"name": "iterative", "rounds": 2}}
DROP: dict[str, Any] = {"targets": {"accuracy_drop": 6}}
ALLOCATED = {"method": "l1", "allocation": "method", "name": "allocated"}
SWEEPS: dict[str, dict[str, Any]] = {
    "one target": {},
    "two axes": {"targets": {"macs_reduction": [0.3], "params_reduction": [0.5]}, "seeds": [3, 5]},
    "a front": FRONT,
    "uniform ratios": {"search": {"trials": 1}},
    "no controls": {"controls": OFF},
    "scratch alone": {"controls": {**OFF, "scratch": True}},
    "a front without controls": {**FRONT, "controls": OFF},
    "a predictor": {"arms": ["l1", GATES]},
    "judged without training": {"search": BY_PROXY, "arms": ["l1", GRADUAL]},
    "a front judged without training": {**FRONT, "search": {**FRONT["search"], "proxy": True}},
    "a learning rate": {
        "recipe": {"epochs": 2, "learning_rate": "auto"},
        "baseline": {"learning_rate": 0.1},
    },
    "a drop": {**DROP, "search": {"trials": 3, "window": 2, "costs": 3}},
    "a drop by proxy": {**DROP, "search": {**BY_PROXY, "costs": 4}, "arms": ["l1", GRADUAL]},
    "a drop of uniform ratios": {**DROP, "search": {"trials": 1}, "arms": ["l1", ALLOCATED]},
    "two drops and a cost": {
        "targets": {"macs_reduction": 0.4, "accuracy_drop": [4, 8], "cost": "params"},
        "search": {"trials": 1, "costs": 3},
    },
    "a checkpoint": {"checkpoint": True},
    "a checkpoint and a front": {"checkpoint": True, **FRONT},
}


def sweep(changes: dict[str, Any]) -> tuple[SweepSpec, Survey]:
    changes = dict(changes)
    is_given = changes.pop("checkpoint", False)
    spec, on = specification(**changes), surveyed()
    if is_given:
        spec = spec.model_copy(update={"checkpoint": "resnet.pt"})
        on = replace(on, weights={"conv.weight": torch.zeros(2)})
    return spec, on


class Failing:
    """A runner in which each trial fails with a chance that its content draws.

    Args:
        share: Of all trials that fail.
        kinds: Kinds of which every one does; a method counts as a kind.
    """

    def __init__(self, share: float = 0.0, *kinds: str) -> None:
        self.share, self.kinds = share, kinds

    def __call__(self, spec: TrialSpec, report: Report) -> dict[str, Any]:
        drawn = int(spec.uid[:6], 16) / 16**6
        if spec.kind in self.kinds or spec.method in self.kinds:
            raise RuntimeError("always")
        if drawn < self.share and spec.kind != "baseline":
            raise RuntimeError("by chance")
        return simulate(spec, report)


def runs_of(bench: Bench) -> list[Run]:
    trials = {trial.id: trial for trial in bench.trials()}
    return [Run(entry=entry, trial=trials[entry.trial_id]) for entry in bench.entries()]


def left(bench: Bench, spec: SweepSpec) -> dict[Cell, StillToCome]:
    found = still_to_come(spec.model_dump(mode="json"), trial_matrix(spec), runs_of(bench))
    return {state.cell: state for state in found}


def ended(bench: Bench) -> set[Place]:
    return {run.place for run in runs_of(bench) if run.trial.state.is_final}


def agenda_is_over(bench: Bench, spec: SweepSpec, on: Survey) -> bool:
    agenda = Agenda(spec, on, DEVICE)
    agenda.begin(bench.entries(), bench.trials())
    agenda.next(0)
    return agenda.is_over


def stop_after(ends: int) -> Any:
    return lambda log: len(log.trials) >= ends


def stops_of(
    bench: Bench, spec: SweepSpec, on: Survey, runner: Failing, seed: int
) -> list[tuple[set[Place], dict[Cell, StillToCome]]]:
    """Drive to random stops and on to the end; return what had ended, and was left, at each."""
    draw, found, over = random.Random(seed), [], False
    while not over:
        found.append((ended(bench), left(bench, spec)) if bench_has_begun(bench) else (set(), {}))
        backend = SeededBackend(slots=draw.randint(1, 4), seed=seed, runner=runner)
        ends = draw.randint(1, 16)
        over = bench.drive(spec, backend, stop_when=stop_after(ends), on=on).over
        state = left(bench, spec)
        assert (not state) == agenda_is_over(bench, spec, on), list(map(str, state.values()))
    return found[1:]


def bench_has_begun(bench: Bench) -> bool:
    return bool(bench.ledger.sweeps())


@pytest.mark.parametrize(("seed", "name"), [*enumerate(SWEEPS)])
def test_what_is_left_at_any_stop_is_what_comes_after_it(
    seed: int, name: str, tmp_path: Path
) -> None:
    spec, on = sweep(SWEEPS[name])
    bench, matrix = Bench(tmp_path), trial_matrix(spec)
    stops = stops_of(bench, spec, on, Failing(), seed)
    whole, searches = ended(bench), matrix.of(Role.SEARCH)
    assert all(matrix.cell_of(place) is not None for place in whole)
    for before, still in stops:
        after = Counter(matrix.cell_of(place) for place in whole - before)
        is_open = spec.targets is None or spec.targets.accuracy_drop
        is_settled = not is_open or not any(cell in still for cell in searches)
        for cell in matrix.cells:
            found = still[cell].left if cell in still else 0
            if is_settled or not (cell.points > 1):
                assert after[cell] == found, cell
            else:  # how many points a front has is known once it is searched
                assert after[cell] <= found, cell


@pytest.mark.parametrize(
    ("name", "runner"),
    [
        ("one target", Failing(0.5)),
        ("two axes", Failing(0.4)),
        ("a front", Failing(0.4)),
        ("one target", Failing(0.0, "l1")),  # an arm that is given up
        ("one target", Failing(0.0, "prune")),  # nothing works
        ("a front", Failing(0.0, "filter_norm")),
        ("a predictor", Failing(0.2, "predictor")),
        ("one target", Failing(0.0, "baseline")),
        ("a checkpoint", Failing(0.3, "baseline")),
        ("judged without training", Failing(0.4)),
        ("a drop", Failing(0.4)),
        ("a drop", Failing(0.0, "dense")),
        ("a drop by proxy", Failing(0.3)),
        ("a drop by proxy", Failing(0.0, "filter_norm")),
        ("two drops and a cost", Failing(0.5)),
        ("judged without training", Failing(0.0, "proxy")),
    ],
)
def test_failures_leave_less_and_nothing_is_missed_once_the_agenda_is_over(
    name: str, runner: Failing, tmp_path: Path
) -> None:
    spec, on = sweep({**SWEEPS[name], "recovery": {"failures_per_arm": 2}})
    bench, matrix = Bench(tmp_path), trial_matrix(spec)
    stops = stops_of(bench, spec, on, runner, 1)
    whole = ended(bench)
    assert left(bench, spec) == {}
    for before, still in stops:
        after = Counter(matrix.cell_of(place) for place in whole - before)
        assert all(after[cell] <= (still[cell].left if cell in still else 0) for cell in after)


def test_what_is_said_to_be_missing_is_what_is_left(tmp_path: Path) -> None:
    spec, _ = sweep(SWEEPS["a predictor"])
    bench = Bench(tmp_path)
    bench.drive(spec, SeededBackend(), stop_when=stop_after(3))
    said = missing_from(spec.model_dump(mode="json"), runs_of(bench))
    assert sorted(said) == sorted(map(str, left(bench, spec).values()))


def test_the_agenda_hands_nothing_out_before_what_it_needs_has_ended(tmp_path: Path) -> None:
    spec, on = sweep(SWEEPS["a predictor"])
    matrix, log = trial_matrix(spec), Log()
    bench = Bench(tmp_path)
    log = bench.drive(spec, SeededBackend(slots=3, seed=1), on=on).log
    order = [matrix.cell_of(place) for trial in log.trials for place in trial.places]
    for number, cell in enumerate(order):
        assert cell is not None
        assert not {need for need in matrix.needs(cell) if need in order[number + 1 :]}


def test_a_specification_of_an_older_version_is_read_without_what_it_did_not_know() -> None:
    spec = {"arms": [{"name": "l1"}], "targets": {"macs_reduction": [0.5]}, "seeds": [1, 2]}
    cells = [(cell.role, cell.arm, cell.target, cell.trials) for cell in matrix_of(spec).cells]
    assert cells == [
        ("baseline", "", "", 1),
        ("confirm", "l1", "macs-50%", 2),
        ("latency", "l1", "macs-50%", 1),
    ]
