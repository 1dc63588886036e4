"""The door of a sweep: what would fail in every trial is refused before anything is spent."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from methods import Filters, PruningMethod, base, register
from orchestrator.agenda.survey import survey
from orchestrator.commands.doctor import Finding, examine
from orchestrator.errors import SpecError
from orchestrator.sweep import Sweep
from tests.orchestrator.sweeps import specification

HERE = "tests.orchestrator.agenda.test_survey"


class Small(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU()
        )
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body(images).mean((2, 3)))
        return logits


class GivesAMapping(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.inner = Small(num_classes, in_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inner(images)}


class GivesTwoWhileItTrains(GivesAMapping):
    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.inner(images)
        return (logits, logits) if self.training else logits  # type: ignore[return-value]


class FailsWhileItTrains(GivesAMapping):
    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        if self.training:
            raise KeyError("phase")
        logits: Tensor = self.inner(images)
        return logits


class NeverLearns(GivesAMapping):
    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            logits: Tensor = self.inner(images)
        return logits


class FourLogits(Small):
    def __init__(self, in_channels: int) -> None:
        super().__init__(4, in_channels)


class RejectsOneFilter(Small):
    """Its code, not its shape, minds how narrow a layer gets."""

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(images)
        if found.shape[1] < 2:
            raise RuntimeError("at least two channels")
        logits: Tensor = self.fc(found.mean((2, 3)))
        return logits


@dataclass(frozen=True, kw_only=True)
class Raises(PruningMethod):
    name: ClassVar[str] = "raises"

    def score(self, filters: Filters) -> Tensor:
        raise ZeroDivisionError("no filters today")


@dataclass(frozen=True, kw_only=True)
class ScoresTheWholeLayer(PruningMethod):
    name: ClassVar[str] = "scores_the_whole_layer"

    def score(self, filters: Filters) -> Tensor:
        return filters.weight.abs().sum().reshape(1)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("GivesAMapping", "model: .*GivesAMapping returns a dict of logits, and a sweep needs"),
        ("GivesTwoWhileItTrains", "model: .*returns a tuple of 2 while it trains.*aux_logits"),
        ("FailsWhileItTrains", r"fails while it trains .*KeyError: 'phase' \(test_survey.py:\d+\)"),
        ("NeverLearns", "model: NeverLearns cannot be trained|no weight that the loss depends on"),
        ("FourLogits", r"returns shape \(2, 4\) for 2 images, and with 10 classes .* num_classes"),
        ("RejectsOneFilter", r"layers: .*without 7 of its filters, fails .*at least two channels"),
    ],
)
def test_a_network_that_no_trial_could_train_is_refused(network: str, says: str) -> None:
    spec = specification(
        model=f"{HERE}:{network}", search={"trials": 3, "max_ratio": 0.99, "tolerance": 0.2}
    )
    with pytest.raises(SpecError, match=says):
        survey(spec)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("raises", r"arms\.1: .*ZeroDivisionError: no filters today \(test_survey.py:\d+\)"),
        ("scores_the_whole_layer", r"arms\.1: .*must give 64 finite scores for 'conv2'"),
    ],
)
def test_a_method_from_outside_is_tried_once(
    method: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_TABLE", {name: base._entry(name) for name in ["l1", "random"]})
    register()(Raises)
    register()(ScoresTheWholeLayer)
    with pytest.raises(SpecError, match=says):
        survey(specification(arms=["l1", method]))


def test_what_a_door_tries_leaves_no_trace_in_what_is_drawn() -> None:
    survey(specification())
    first = torch.rand(1)
    survey(specification())
    assert torch.equal(torch.rand(1), first)


def test_doctor_goes_on_after_a_link_that_raises_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> str:
        raise KeyError("a mistake of somebody's")

    monkeypatch.setattr("orchestrator.commands.doctor._survey", lambda *_: broken(None))
    monkeypatch.setattr("orchestrator.commands.doctor._ledger", broken)
    told: list[Finding] = []
    found = examine(Sweep(specification()), told.append, debug=True)
    assert [finding.name for finding in found] == [
        "data, network, checkpoint",
        "ledger",
        "artifacts",
        "MLflow",
    ]
    assert [finding.ok for finding in found] == [False, False, True, True]
    assert 'KeyError: "a mistake of somebody\'s" (test_survey.py:' in found[1].detail
    assert "Traceback" in capsys.readouterr().err
