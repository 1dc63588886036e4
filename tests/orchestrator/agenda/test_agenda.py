import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from torch import Tensor

from methods import PruningPlan
from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.queue import Wanted
from orchestrator.agenda.survey import Survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.specification.spec import SweepSpec
from search_spaces.samplers import BLIND
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import DEVICE, OFF, specification, surveyed
from tracking.places import Place, Role
from tracking.records import TrialState

AT_HALF = "macs-50%"
Verdict = Callable[[Wanted, dict[str, Any]], dict[str, Any] | None]


def silent(_step: int, _values: dict[str, float]) -> None:
    """Report to nobody."""


def as_simulated(_wanted: Wanted, result: dict[str, Any]) -> dict[str, Any] | None:
    return result


@dataclass
class Play:
    """Takes an agenda's trials to their ends by hand, or all of them in an order drawn by seed.

    The verdict may change a simulated result, or make it None: the trial failed.
    """

    agenda: Agenda
    verdict: Verdict = as_simulated
    given: list[Wanted] = field(default_factory=list)
    out: list[Wanted] = field(default_factory=list)
    done: list[Place] = field(default_factory=list)

    @classmethod
    def of(
        cls, spec: SweepSpec, verdict: Verdict = as_simulated, on: Survey | None = None
    ) -> "Play":
        agenda = Agenda(spec, on or surveyed(), DEVICE)
        agenda.begin([], [])
        return cls(agenda, verdict)

    def take(self, limit: int = 100) -> list[Wanted]:
        found = self.agenda.next(limit)
        self.given += found
        self.out += found
        return found

    def end(self, wanted: Wanted) -> None:
        result = self.verdict(wanted, simulate(wanted.trial, silent))
        state = TrialState.FAILED if result is None else TrialState.COMPLETED
        self.out.remove(wanted)
        self.done.append(wanted.place)
        self.agenda.ended(wanted.place, wanted.trial.uid, state, result)

    def baseline(self) -> None:
        """Get the one trial that everything waits for behind."""
        self.end(self.take()[0])

    def through(self, seed: int = 0) -> list[Wanted]:
        """Play to the end and return all that was wanted, in order."""
        draw = random.Random(seed)
        for _ in count():
            self.take(draw.randint(1, 4))
            if not self.out:
                break
            self.end(draw.choice(self.out))
        assert self.agenda.is_over
        return self.given

    def places(self, role: str) -> list[Place]:
        return [wanted.place for wanted in self.given if wanted.place.role == role]


def of_role(found: list[Wanted], role: str) -> list[Wanted]:
    return [wanted for wanted in found if wanted.place.role == role]


def fails(when: Callable[[Place], bool]) -> Verdict:
    return lambda wanted, result: None if when(wanted.place) else result


class TestTestSplit:
    def test_search_trials_do_not_read_it_and_all_else_that_trains_does(self) -> None:
        by_proxy = specification(search={"trials": 3, "proxy": True})
        given = Play.of(specification()).through() + Play.of(by_proxy).through()
        for wanted in given:
            chooses = wanted.place.role in {Role.SEARCH, Role.FINALIST}
            assert wanted.trial.reads_test == (not chooses), wanted.place
        assert {w.place.role for w in given} == {*Role} - {Role.PREDICTOR, Role.TUNE}


class TestPhases:
    def test_the_baseline_comes_first_and_alone(self) -> None:
        play = Play.of(specification())
        (first,) = play.take()
        assert (first.place, first.trial.kind) == (Place(Role.BASELINE, "", "", 0), "baseline")
        assert play.take() == []
        assert not play.agenda.is_over

    def test_all_else_starts_from_the_weights_the_baseline_ended_with(self) -> None:
        play = Play.of(specification())
        (first,) = play.take()
        weights = simulate(first.trial, silent)["weights"]
        play.end(first)
        found = play.take()
        assert {wanted.place.role for wanted in found} == {"search", "control"}
        assert {wanted.trial.weights for wanted in found} == {weights}

    def test_given_weights_are_measured_beside_the_search(self) -> None:
        weights: Mapping[str, Tensor] = {}
        given = replace(surveyed(), weights=weights)
        found = Play.of(specification(), on=given).take()
        assert {wanted.place.role for wanted in found} == {"baseline", "search", "control"}
        (baseline,) = of_role(found, "baseline")
        assert baseline.trial.recipe.epochs == 0
        assert {wanted.trial.weights for wanted in found} == {given.weights_hash}

    @pytest.mark.parametrize("seed", range(5))
    def test_each_phase_waits_for_the_one_it_needs(self, seed: int) -> None:
        play, draw = Play.of(specification()), random.Random(seed)
        while True:
            before = set(play.done)
            for wanted in play.take(draw.randint(1, 4)):
                assert self.needs(play, wanted.place) <= before, wanted.place
                assert wanted.place.role != "latency" or play.out == [wanted]
            if not play.out:
                break
            play.end(draw.choice(play.out))
        assert len(play.places("latency")) == 2

    @staticmethod
    def needs(play: Play, place: Place) -> set[Place]:
        arms = ("l1", "geometric_median")
        studies = {arm: {Place(Role.SEARCH, arm, AT_HALF, n) for n in range(3)} for arm in arms}
        confirmed = {Place(Role.CONFIRM, arm, AT_HALF, seed) for arm in arms for seed in (1, 2)}
        if place.role == "confirm":
            return studies[place.arm]
        if place.role == "latency" or place.arm.startswith("scratch"):
            return confirmed
        return set() if place.role == "baseline" else {Place(Role.BASELINE, "", "", 0)}

    def test_a_latency_is_wanted_when_everything_else_has_ended(self) -> None:
        play = Play.of(specification())
        given = [wanted.place.role for wanted in play.through()]
        assert given[-2:] == ["latency", "latency"]
        assert [wanted.is_exclusive for wanted in play.given[-3:]] == [False, True, True]

    def test_the_winning_shape_is_trained_from_scratch_for_as_long_as_its_rival(self) -> None:
        play = Play.of(specification())
        scratch = [w for w in play.through() if w.place.arm.startswith("scratch:")]
        assert [w.place.index for w in scratch] == [1, 2]
        assert {w.trial.recipe.epochs for w in scratch} == {2 + 3}
        assert {w.trial.weights for w in scratch} == {None}


class TestCounts:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"targets": {"macs_reduction": [0.3, 0.6], "params_reduction": [0.5]}},
            {"search": {"trials": 1}},
            {"controls": OFF},
            {"seeds": [1, 2, 3, 4]},
            {"arms": ["l1"], "controls": {**OFF, "scratch": True}},
        ],
    )
    def test_the_agenda_wants_what_the_matrix_says(self, changes: dict[str, Any]) -> None:
        spec = specification(**changes)
        wanted = Counter[str](w.place.role for w in Play.of(spec).through())
        expected = Counter[str]()
        for line in trial_matrix(spec).cells:
            expected[line.role] += line.trials
        assert wanted == expected

    def test_a_front_stays_within_the_matrix(self) -> None:
        spec = specification(targets=None, search={"trials": 6})
        wanted = Counter[str](w.place.role for w in Play.of(spec).through())
        bound = Counter[str]()
        for line in trial_matrix(spec).cells:
            bound[line.role] += line.trials
        assert all(wanted[role] <= bound[role] for role in bound)
        assert wanted["search"] == 12
        assert wanted["confirm"] == 2 * wanted["latency"] > 0

    @pytest.mark.parametrize("seed", range(6))
    def test_no_place_is_wanted_twice(self, seed: int) -> None:
        spec = specification(targets=None, search={"trials": 6, "window": 3})
        places = Counter(wanted.place for wanted in Play.of(spec).through(seed))
        assert set(places.values()) == {1}


class TestSearch:
    def test_uniform_ratios_are_tried_first(self) -> None:
        play = Play.of(specification())
        play.baseline()
        firsts = [w for w in play.take() if w.place.role == "search" and w.place.index == 0]
        uniform = surveyed().filters.uniform(specification().cost_targets[0], 0.01)
        assert [w.trial.ratios for w in firsts] == [uniform, uniform]

    def test_one_trial_is_no_search_but_uniform_ratios_re_run(self) -> None:
        play = Play.of(specification(search={"trials": 1}))
        play.through()
        assert play.places("search") == []
        uniform = surveyed().filters.uniform(specification().cost_targets[0], 0.01)
        confirmed = of_role(play.given, "confirm")
        assert len(confirmed) == 4
        assert all(wanted.trial.ratios == uniform for wanted in confirmed)

    def test_proposals_run_ahead_of_results_by_the_window_at_most(self) -> None:
        spec = specification(arms=["l1"], search={"trials": 9, "window": 3}, controls=OFF)
        play = Play.of(spec)
        play.baseline()
        assert [w.place.index for w in play.take()] == [0, 1, 2]
        later, first = play.out[2], play.out[0]
        play.end(later)
        assert play.take() == []  # the result of number 0 is what number 3 must know
        play.end(first)
        assert [w.place.index for w in play.take()] == [3]

    @pytest.mark.parametrize("sampler", sorted(BLIND))
    def test_proposals_that_look_at_no_result_wait_for_none(self, sampler: str) -> None:
        search = {"trials": 9, "window": 1, "sampler": sampler}
        play = Play.of(specification(arms=["l1"], search=search, controls=OFF))
        play.baseline()
        assert [w.place.index for w in play.take()] == list(range(9))

    def test_between_two_proposals_the_sweep_is_not_over(self) -> None:
        spec = specification(arms=["l1"], search={"trials": 3, "window": 1}, controls=OFF)
        play = Play.of(spec)
        play.baseline()
        for number in range(3):
            assert not play.agenda.is_over
            (wanted,) = play.take()
            assert wanted.place == Place(Role.SEARCH, "l1", AT_HALF, number)
            play.end(wanted)

    def test_what_is_proposed_does_not_depend_on_the_order_of_results(self) -> None:
        spec = specification(search={"trials": 8, "window": 3})
        seen = [
            {w.place: w.trial.uid for w in Play.of(spec).through(seed) if w.place.role == "search"}
            for seed in range(4)
        ]
        assert all(other == seen[0] for other in seen[1:])

    def test_the_search_that_is_behind_is_asked_first(self) -> None:
        play = Play.of(specification(search={"trials": 6, "window": 6}, controls=OFF))
        play.baseline()
        arms = [play.take(1)[0].place.arm for _ in range(6)]
        assert arms == ["l1", "geometric_median"] * 3

    def test_the_best_by_validation_accuracy_is_re_run(self) -> None:
        def third(wanted: Wanted, result: dict[str, Any]) -> dict[str, Any]:
            is_third = wanted.place.role == "search" and wanted.place.index == 2
            return {**result, "val_accuracy": 99.0 if is_third else 50.0, "test_accuracy": 1.0}

        play = Play.of(specification(), third)
        best = {
            w.place.arm: w.trial.ratios
            for w in play.through()
            if w.place.role == "search" and w.place.index == 2
        }
        for wanted in of_role(play.given, "confirm"):
            assert wanted.trial.ratios == best[wanted.place.arm]
            assert wanted.trial.seed == wanted.place.index


class TestFailures:
    def test_without_a_baseline_the_sweep_cannot_go_on(self) -> None:
        play = Play.of(specification(), fails(lambda place: place.role == "baseline"))
        play.baseline()
        assert play.agenda.is_over
        assert "baseline" in (play.agenda.problem or "")

    def test_failed_proposals_leave_the_winner_to_the_others(self) -> None:
        play = Play.of(
            specification(), fails(lambda place: (place.index, place.role) == (0, "search"))
        )
        play.through()
        uniform = surveyed().filters.uniform(specification().cost_targets[0], 0.01)
        confirmed = of_role(play.given, "confirm")
        assert len(confirmed) == 4
        assert all(wanted.trial.ratios != uniform for wanted in confirmed)

    def test_an_arm_whose_proposals_all_fail_drops_out(self) -> None:
        play = Play.of(specification(), fails(lambda p: (p.role, p.arm) == ("search", "l1")))
        play.through()
        assert {place.arm for place in play.places("confirm")} == {"geometric_median"}
        assert [place.arm for place in play.places("latency")] == ["geometric_median"]
        assert Place(Role.CONTROL, "scratch:geometric_median", AT_HALF, 1) in play.places("control")

    def test_when_every_search_fails_the_controls_remain(self) -> None:
        play = Play.of(specification(), fails(lambda place: place.role == "search"))
        play.through()
        assert Counter(w.place.role for w in play.given) == {
            "baseline": 1,
            "search": 6,
            "control": 6,
        }

    def test_an_arm_is_judged_by_the_re_runs_that_came_back(self) -> None:
        def verdict(wanted: Wanted, result: dict[str, Any]) -> dict[str, Any] | None:
            place = wanted.place
            if place.role != "confirm":
                return result
            if (place.arm, place.index) == ("l1", 1):
                return None
            return {**result, "val_accuracy": 90.0 if place.arm == "l1" else 80.0}

        play = Play.of(specification(), verdict)
        play.through()
        assert Place(Role.CONTROL, "scratch:l1", AT_HALF, 2) in play.places("control")
        assert {place.arm for place in play.places("latency")} == {"l1", "geometric_median"}

    def test_an_arm_none_of_whose_re_runs_came_back_wins_nothing(self) -> None:
        play = Play.of(specification(), fails(lambda p: (p.role, p.arm) == ("confirm", "l1")))
        play.through()
        assert [place.arm for place in play.places("latency")] == ["geometric_median"]


class TestWinners:
    @pytest.mark.parametrize("seed", range(6))
    def test_of_equal_arms_the_first_wins_whichever_came_in_first(self, seed: int) -> None:
        def equal(_wanted: Wanted, result: dict[str, Any]) -> dict[str, Any]:
            return {**result, "val_accuracy": 90.0}

        play = Play.of(specification(), equal)
        scratch = {w.place.arm for w in play.through(seed) if w.trial.kind == "scratch"}
        assert scratch == {"scratch:l1"}

    @pytest.mark.parametrize("seed", range(6))
    def test_a_shape_that_differs_by_seed_is_that_of_the_first_seed(self, seed: int) -> None:
        def by_seed(wanted: Wanted, result: dict[str, Any]) -> dict[str, Any]:
            if wanted.place.role != "confirm":
                return result
            return {**result, "kept": dict.fromkeys(result["kept"], 10 + wanted.place.index)}

        given = Play.of(specification(), by_seed).through(seed)
        for wanted in given:
            if wanted.trial.kind in {"scratch", "latency"}:
                plan = PruningPlan.from_json(wanted.trial.plan or {})
                assert {len(kept) for kept in plan.kept.values()} == {11}

    @pytest.mark.parametrize("seed", range(6))
    def test_a_front_is_measured_once_both_arms_have_their_points(self, seed: int) -> None:
        spec = specification(targets=None, search={"trials": 6, "window": 3}, controls=OFF)
        play = Play.of(spec)
        given = play.through(seed)
        points = {(place.arm, place.target) for place in play.places("confirm")}
        assert {(place.arm, place.target) for place in play.places("latency")} == points
        first = next(i for i, w in enumerate(given) if w.place.role == "latency")
        assert all(wanted.place.role == "latency" for wanted in given[first:])


class TestStaleTrials:
    def test_the_end_of_another_trial_does_not_stand_for_the_one_wanted_now(self) -> None:
        play = Play.of(specification())
        (first,) = play.take()
        result = simulate(first.trial, silent)
        play.agenda.ended(first.place, "another", TrialState.COMPLETED, result)
        assert play.take() == []
        play.end(first)
        assert play.take() != []

    def test_an_end_told_twice_counts_once(self) -> None:
        play = Play.of(specification())
        play.baseline()
        wanted = next(w for w in play.take() if w.place.role == "search")
        play.end(wanted)
        play.agenda.ended(wanted.place, wanted.trial.uid, TrialState.FAILED, None)
        play.through()
        assert play.agenda.is_over
