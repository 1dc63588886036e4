"""Settings of an arm that its search chooses beside the ratios, or instead of them."""

import math
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import methods
from methods import removed_count
from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.errors import SpecError
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.knobs import MIDDLE, Choices, Range
from orchestrator.specification.loading import parse_spec
from tests.checkout import ROOT
from tests.orchestrator.agenda.test_agenda import Play, of_role
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import DEVICE, specification, surveyed
from tracking.comparison.missing import missing_from

NUMBERS = st.floats(0.0, 1.0)
ARM: dict[str, Any] = {
    "method": "functionality",
    "settings": {
        "kappa": {"low": 0.1, "high": 0.5},
        "am_steps": {"low": 10, "high": 100, "log": True},
        "contribution": {"choices": ["l1", "grad"]},
    },
    "schedule": {"name": "iterative", "rounds": {"low": 1, "high": 4}},
}


class TestRange:
    @given(NUMBERS)
    def test_its_values_lie_inside(self, number: float) -> None:
        assert 0.3 <= Range(low=0.3, high=0.7).value(number, whole=False) <= 0.7
        assert 1e-5 <= Range(low=1e-5, high=1e-3, log=True).value(number, whole=False) <= 1e-3

    def test_its_ends_and_middle_are_reached(self) -> None:
        log = Range(low=1e-6, high=1e-2, log=True)
        found = [log.value(number, whole=False) for number in (0.0, 0.5, 1.0)]
        assert found == pytest.approx([1e-6, 1e-4, 1e-2])

    def test_whole_numbers_are_equally_likely_ends_included(self) -> None:
        knob = Range(low=1, high=4)
        found = [knob.value((i + 0.5) / 400, whole=True) for i in range(400)]
        assert [found.count(value) for value in (1, 2, 3, 4)] == [100] * 4
        assert all(type(value) is int for value in found)

    @given(st.integers(1, 40))
    def test_a_whole_number_stands_for_itself(self, value: int) -> None:
        for knob in (Range(low=1, high=40), Range(low=1, high=40, log=True)):
            assert knob.value(knob.number(value), whole=True) == value

    def test_a_default_outside_starts_in_the_middle(self) -> None:
        assert Range(low=1, high=4).number(9) == MIDDLE


class TestChoices:
    @given(NUMBERS)
    def test_a_choice_stands_for_itself(self, number: float) -> None:
        knob = Choices(choices=("a", "b", None, 3))
        chosen = knob.value(number, whole=False)
        assert knob.value(knob.number(chosen), whole=False) == chosen

    def test_they_share_the_line_evenly(self) -> None:
        knob = Choices(choices=("a", "b"))
        assert [knob.value(n, whole=False) for n in (0.0, 0.49, 0.5, 1.0)] == ["a", "a", "b", "b"]


class TestArm:
    def test_numbers_become_settings_of_the_right_kind(self) -> None:
        arm = ArmSettings.model_validate(ARM)
        chosen = arm.chosen(dict.fromkeys(arm.knobs, 1.0))
        assert chosen.settings == {
            "kappa": 0.5,
            "am_steps": 100,
            "contribution": "grad",
        }
        assert chosen.schedule == {"name": "iterative", "rounds": 4}
        assert chosen.knobs == {}

    def test_an_arm_without_any_stays_as_it_is(self) -> None:
        arm = ArmSettings(method="l1")
        assert arm.chosen({"conv1": 0.3}) is arm


class TestSweep:
    def searched(self, **changes: Any) -> Play:
        return Play.of(specification(**{"arms": [ARM, "l1"], "search": {"trials": 6}, **changes}))

    def test_the_first_proposal_is_the_defaults_at_uniform_ratios(self) -> None:
        play = self.searched()
        play.baseline()
        first, plain = [w for w in of_role(play.take(), "search") if w.place.index == 0]
        assert first.trial.method_settings["am_steps"] == 60
        assert first.trial.method_settings["kappa"] == pytest.approx(0.25)
        assert first.trial.method_settings["contribution"] == "grad"
        assert first.trial.schedule["rounds"] == methods.Schedule.create("iterative").rounds
        layout = surveyed().filters.layout
        for group, width in layout.widths.items():
            counts = {removed_count(group, width, w.trial.ratios[group]) for w in (first, plain)}
            assert len(counts) == 1

    def test_proposals_differ_in_settings_and_the_winner_keeps_its_own(self) -> None:
        play = self.searched()
        given = play.through()
        searches = [w for w in of_role(given, "search") if w.place.arm != "l1"]
        kappas = {w.trial.method_settings["kappa"] for w in searches}
        assert len(searches) == len(kappas) == 6
        best = max(searches, key=lambda w: simulate(w.trial, lambda *_: None)["val_accuracy"])
        again = [w for w in of_role(given, "confirm") if w.place.arm == best.place.arm]
        assert len(again) == 2
        for wanted in again:
            assert wanted.trial.method_settings == best.trial.method_settings
            assert wanted.trial.schedule == best.trial.schedule
            assert wanted.trial.ratios == best.trial.ratios

    def test_a_method_that_allocates_is_searched_for_its_settings_alone(self) -> None:
        arm = {
            "method": "provable",
            "allocation": "method",
            "settings": {"images": {"low": 16, "high": 64}},
        }
        spec = specification(arms=[arm], search={"trials": 4})
        assert [(line.role, line.trials) for line in trial_matrix(spec).cells if line.arm][:1] == [
            ("search", 4)
        ]
        agenda = Agenda(spec, surveyed(), DEVICE)
        play = Play(agenda)
        agenda.begin([], [])
        play.baseline()
        found = of_role(play.take(), "search")
        assert {w.place.arm for w in found} == {"provable-allocated"}
        assert all(w.trial.ratios == {} and w.trial.target is not None for w in found)
        assert len({w.trial.method_settings["images"] for w in found}) == len(found) > 1
        assert any("search of provable" in line for line in missing_from(spec.model_dump(), []))

    @pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "cmaes", "qmc", "gp"])
    def test_every_sampler_searches_them(self, sampler: str) -> None:
        play = self.searched(search={"trials": 5, "sampler": sampler})
        searches = [w for w in of_role(play.through(), "search") if w.place.arm != "l1"]
        assert len({w.trial.method_settings["kappa"] for w in searches}) == 5


BAD = {
    "order": ({"kappa": {"low": 0.5, "high": 0.1}}, "settings.kappa: .*low is the smaller"),
    "log": ({"kappa": {"low": 0.0, "high": 0.1, "log": True}}, "kappa: .*it must be above 0"),
    "one end": ({"kappa": {"low": 0.1}}, "kappa: high: .*required"),
    "one choice": ({"grouping": {"choices": ["none"]}}, "grouping: choices: "),
    "odd key": ({"kappa": {"low": 0.1, "high": 0.2, "steps": 3}}, "kappa: steps: "),
    "impossible end": ({"kappa": {"low": 0.1, "high": 2.0}}, "settings.kappa: is 2.0"),
    "impossible choice": ({"grouping": {"choices": ["none", "colour"]}}, "grouping: is 'colour'"),
    "unknown": ({"kapa": {"low": 0.1, "high": 0.2}}, "settings.kapa: .*did you mean 'kappa'"),
}


@pytest.mark.parametrize(("settings", "says"), BAD.values(), ids=list(BAD))
def test_a_knob_that_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        specification(arms=[{"method": "functionality", "settings": settings}])


def test_a_knob_needs_a_search() -> None:
    with pytest.raises(SpecError, match=r"settings\.kappa, .* and search\.trials is 1"):
        specification(arms=[ARM], search={"trials": 1})


def test_the_documented_knobs_can_be_searched() -> None:
    page = ROOT / "docs" / "knobs.md"
    (text,) = re.findall(r"```yaml\n(arms:.*?)```", page.read_text(), re.DOTALL)
    arms = yaml.safe_load(text)["arms"]
    spec = parse_spec({**specification().model_dump(mode="json"), "arms": arms})
    assert sum(len(arm.knobs) for arm in spec.arms) >= 20
    for arm in spec.arms:
        for number in (0.0, MIDDLE, 1.0):
            chosen = arm.chosen(dict.fromkeys(arm.knobs, number))
            methods.create(chosen.method, chosen.settings)
            methods.Schedule.create(chosen.schedule)
    values = [v for arm in spec.arms for v in arm.knobs.values() if isinstance(v, Range)]
    assert all(math.isfinite(knob.low) for knob in values)
