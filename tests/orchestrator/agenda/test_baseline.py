"""The dense network everything starts from: trained, given, or given and adapted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.agenda.agenda import Agenda, Wanted
from orchestrator.agenda.survey import Ground
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import DEVICE, ground, specification
from tracking.places import Place, Role
from tracking.records import TrialState

BASELINE = Place(Role.BASELINE)


def given(**baseline: Any) -> tuple[SweepSpec, Ground]:
    spec = specification(baseline=baseline).model_copy(update={"checkpoint": "resnet.pt"})
    return spec, replace(ground(), weights={"conv.weight": torch.zeros(2)})


def begun(spec: SweepSpec, on: Ground) -> Agenda:
    agenda = Agenda(spec, on, DEVICE)
    agenda.begin([], [])
    return agenda


def end(agenda: Agenda, wanted: Wanted, **changes: Any) -> Mapping[str, Any]:
    result = {**simulate(wanted.trial, lambda *_: None), **changes}
    agenda.ended(wanted.place, wanted.trial.uid, TrialState.COMPLETED, result)
    return result


class TestAdapting:
    def test_the_checkpoint_is_trained_first_and_all_starts_from_what_comes_of_it(self) -> None:
        spec, on = given(epochs=5)
        agenda = begun(spec, on)
        (first,) = agenda.next(10)
        assert (first.place, first.trial.weights) == (BASELINE, on.weights_hash)
        assert first.trial.recipe.epochs == 5
        adapted = end(agenda, first)["weights"]
        assert adapted != on.weights_hash
        others = agenda.next(100)
        assert {wanted.trial.weights for wanted in others} == {adapted}

    def test_without_baseline_epochs_it_is_measured_as_it_is(self) -> None:
        spec, on = given()
        trials = {wanted.place: wanted.trial for wanted in begun(spec, on).next(100)}
        assert trials[BASELINE].recipe.epochs == 0
        assert len(trials) > 1
        assert {trial.weights for trial in trials.values()} == {on.weights_hash}


class TestChance:
    @pytest.mark.parametrize("spec_of", [specification, lambda: given(epochs=5)[0]])
    def test_a_baseline_at_chance_ends_the_sweep_before_any_other_trial(self, spec_of: Any) -> None:
        agenda = begun(spec_of(), ground())
        (first,) = agenda.next(10)
        end(agenda, first, test_accuracy=10.2)
        assert agenda.is_over
        assert agenda.problem is not None
        assert "10.2 % of 10,000 test images right" in agenda.problem
        assert agenda.next(10) == []

    def test_it_goes_on_where_that_is_allowed(self) -> None:
        spec = specification(baseline={"epochs": 3, "allow_chance": True})
        agenda = begun(spec, ground())
        (first,) = agenda.next(10)
        end(agenda, first, test_accuracy=10.2)
        assert agenda.problem is None
        assert agenda.next(10)
