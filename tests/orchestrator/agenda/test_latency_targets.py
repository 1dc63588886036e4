"""Latency targets: a model is measured first, proposals meet it, and winners are timed as asked."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import orchestrator.agenda.latency_targets
from methods.structure.latency_predictor import HeldOut, LatencyPredictor, PredictorReport
from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.latency_targets import LatencyCosts
from orchestrator.agenda.queue import Wanted
from orchestrator.errors import SpecError
from orchestrator.specification.loading import parse_spec
from tests.orchestrator.agenda.test_agenda import Play, fails, of_role
from tests.orchestrator.agenda.test_trial_matrix import Failing, ended, left, stops_of
from tests.orchestrator.sweeps import BASE, DEVICE, Bench, specification, surveyed
from tracking.places import Place, Role

SEARCH = {"trials": 4, "window": 2, "proxy": True, "finalists": 2, "tolerance": 0.02}
LATENCY = {"runtime": "compile", "batch": 8, "threads": 2, "samples": 40}


@cache
def model() -> LatencyPredictor:
    """Return a model whose latency falls to an eighth as all widths fall to a tenth."""
    cost = surveyed().filters.layout.cost
    layer = nn.Linear(len(cost.groups), 1).double()
    with torch.no_grad():
        layer.weight.fill_(math.log(8.0) / 2 / len(cost.groups))
        layer.bias.zero_()
    judged = HeldOut(samples=1, r2=1.0, spearman=1.0, error=0.0)
    return LatencyPredictor(
        key={"device": "made up"},
        groups=cost.groups,
        widths=cost.widths,
        network=nn.Sequential(layer).requires_grad_(False),
        scale=(0.0, 1.0),
        report=PredictorReport(
            samples=40,
            correlated=judged,
            independent=judged,
            full_width_error=0.0,
            uniform=(),
            drift=0.0,
            fit_seconds=0.0,
        ),
    )


def play(verdict: Any = None, share: float = 0.3, **changes: Any) -> Play:
    targets = {"latency_reduction": share, "latency": LATENCY}
    spec = specification(**{"arms": ["l1"], "targets": targets, "search": SEARCH, **changes})
    agenda = Agenda(spec, surveyed(), DEVICE, lambda _: model())
    agenda.begin([], [])
    return Play(agenda, verdict) if verdict else Play(agenda)


def predicted(wanted: Wanted) -> float:
    """Return the share of the latency that the model takes a trial's ratios to save."""
    found = model()
    widths = surveyed().filters.layout.widths
    kept = [round(widths[g] * (1.0 - wanted.trial.ratios[g])) for g in found.groups]
    return 1.0 - float(found.latency_ms(torch.tensor(kept, dtype=torch.float64))) / found.dense_ms


def test_the_model_is_measured_alone_and_before_anything_is_proposed() -> None:
    game = play()
    given = game.through()
    first = [w.place for w in given[:2]]
    assert Place(Role.PREDICTOR) in first
    (measured,) = of_role(given, Role.PREDICTOR)
    assert measured.is_exclusive
    assert measured.trial.method_settings == {
        "samples": 40,
        "batch_size": 8,
        "runtime": "compile",
        "threads": 2,
    }


def test_every_network_meets_the_latency_by_the_model() -> None:
    given = play().through()
    for role in (Role.SEARCH, Role.FINALIST, Role.CONFIRM):
        for wanted in of_role(given, role):
            assert predicted(wanted) == pytest.approx(0.3, abs=0.02)
            assert wanted.trial.target is None  # the ratios say it all
    for wanted in of_role(given, Role.CONTROL):
        if wanted.place.arm in {"random", "uniform_l1"}:
            assert predicted(wanted) == pytest.approx(0.3, abs=0.02)


def test_winners_are_timed_as_the_target_says() -> None:
    given = play().through()
    (timed,) = of_role(given, Role.LATENCY)
    assert timed.trial.method_settings["runtime"] == "compile"
    assert timed.trial.predictor is not None
    assert timed.is_exclusive


def test_without_a_model_nothing_is_proposed() -> None:
    game = play(fails(lambda place: place == Place(Role.PREDICTOR)))
    given = game.through()
    assert {w.place.role for w in given} <= {Role.BASELINE, Role.PREDICTOR}
    assert game.agenda.problem is not None
    assert "latency model" in game.agenda.problem


def test_a_latency_that_the_limits_cannot_come_to_is_told() -> None:
    game = play(share=0.97)
    game.through()
    assert game.agenda.problem is not None
    assert "97" in game.agenda.problem


def test_what_is_left_at_any_stop_is_what_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        orchestrator.agenda.latency_targets, "reader", lambda _: lambda _content: model()
    )
    targets = {"latency_reduction": [0.2, 0.4], "macs_reduction": 0.5}
    spec = specification(arms=["l1"], targets=targets, search=SEARCH)
    bench = Bench(tmp_path)
    stops = stops_of(bench, spec, surveyed(), Failing(), 4)
    whole = ended(bench)
    for before, still in stops:
        assert len(whole - before) == sum(state.left for state in still.values())
    assert not left(bench, spec)


def test_costs_are_those_of_the_model() -> None:
    costs = LatencyCosts(model())
    dense = np.array(model().widths, dtype=np.int64)
    assert costs.cost("latency", dense) == pytest.approx(costs.dense("latency"))
    assert costs.cost("latency", dense // 2) < costs.dense("latency")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"targets": {"macs_reduction": 0.5, "latency": {"batch": 8}}}, "leave latency out"),
        (
            {
                "targets": {"latency_reduction": 0.3},
                "arms": [{"method": "l1", "allocation": "method"}],
            },
            "chooses its own ratios",
        ),
        ({"targets": {"latency_reduction": 0.3, "latency": {"runtime": "tvm"}}}, "runtime"),
    ],
)
def test_mistakes_are_refused_at_the_door(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        parse_spec({**BASE, **changes})
