"""The dense network everything starts from: trained, given, or given and adapted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.queue import Wanted
from orchestrator.agenda.survey import Survey
from orchestrator.errors import SpecError
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import DEVICE, specification, surveyed
from tracking.places import Place, Role
from tracking.records import TrialState

BASELINE = Place(Role.BASELINE)


def given(**baseline: Any) -> tuple[SweepSpec, Survey]:
    spec = specification(baseline=baseline).model_copy(update={"checkpoint": "resnet.pt"})
    return spec, replace(surveyed(), weights={"conv.weight": torch.zeros(2)})


def begun(spec: SweepSpec, on: Survey) -> Agenda:
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
        agenda = begun(spec_of(), surveyed())
        (first,) = agenda.next(10)
        end(agenda, first, test_accuracy=10.2)
        assert agenda.is_over
        assert agenda.problem is not None
        assert "10.2 % of 10,000 test images right" in agenda.problem
        assert agenda.next(10) == []

    def test_it_goes_on_where_that_is_allowed(self) -> None:
        spec = specification(baseline={"epochs": 3, "allow_chance": True})
        agenda = begun(spec, surveyed())
        (first,) = agenda.next(10)
        end(agenda, first, test_accuracy=10.2)
        assert agenda.problem is None
        assert agenda.next(10)


class TestLearningRate:
    AUTO: ClassVar[dict[str, Any]] = {
        "recipe": {"epochs": 2, "learning_rate": "auto"},
        "baseline": {"learning_rate": 0.1},
    }

    def tuned(self, best: int) -> tuple[list[Wanted], list[Wanted]]:
        """Return the trials that try rates, and what comes once number ``best`` was highest."""
        agenda = begun(specification(**self.AUTO), surveyed())
        (first,) = agenda.next(10)
        end(agenda, first)
        tried = agenda.next(100)
        for number, wanted in enumerate(tried):
            assert agenda.next(10) == []
            end(agenda, wanted, val_accuracy=90.0 if number == best else 50.0 + number)
        return tried, agenda.next(100)

    def test_each_rate_is_tried_on_uniform_l1_without_the_test_split(self) -> None:
        tried, _ = self.tuned(2)
        assert [w.trial.recipe.learning_rate for w in tried] == [0.1, 0.03, 0.01, 0.003, 0.001]
        for wanted in tried:
            assert wanted.place.role is Role.TUNE
            assert not wanted.trial.reads_test
            assert (wanted.trial.method, wanted.trial.seed) == ("filter_norm", 0)

    @pytest.mark.parametrize(("best", "rate"), [(0, 0.1), (3, 0.003)])
    def test_the_best_is_in_every_later_trial(self, best: int, rate: float) -> None:
        _, later = self.tuned(best)
        assert len(later) > 5
        trained = [w.trial.recipe for w in later if w.trial.kind != "proxy"]
        assert {recipe.learning_rate for recipe in trained} == {rate}
        assert all("learning_rates" not in w.trial.model_dump()["recipe"] for w in later)

    def test_no_rate_that_works_ends_the_sweep(self) -> None:
        agenda = begun(specification(**self.AUTO), surveyed())
        end(agenda, agenda.next(1)[0])
        for wanted in agenda.next(100):
            agenda.ended(wanted.place, wanted.trial.uid, TrialState.FAILED, None)
        assert agenda.problem == "No learning rate could be tried, and all else needs one."

    def test_the_baseline_names_its_own(self) -> None:
        with pytest.raises(SpecError, match=r"baseline\.learning_rate"):
            specification(recipe={"epochs": 2, "learning_rate": "auto"}, baseline={})
