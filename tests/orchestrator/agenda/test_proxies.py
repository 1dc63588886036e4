"""Searches that judge proposals without training: who is trained, and who wins."""

from typing import Any

import pytest

from search_spaces import SAMPLERS
from tests.orchestrator.agenda.test_agenda import AT_HALF, Play, Verdict, fails, of_role
from tests.orchestrator.sweeps import OFF, specification
from tracking.places import Role

SEARCH = {"trials": 8, "window": 3, "proxy": True, "finalists": 3}


def play(arms: list[Any], verdict: Verdict | None = None, **changes: Any) -> Play:
    spec = specification(**{"arms": arms, "search": SEARCH, "controls": OFF, **changes})
    return Play.of(spec, verdict) if verdict else Play.of(spec)


def test_proposals_are_judged_without_training_and_no_epoch_is_spent() -> None:
    given = of_role(play(["l1"]).through(), Role.SEARCH)
    assert len(given) == 8
    assert {w.trial.kind for w in given} == {"proxy"}
    assert {w.trial.recipe.epochs for w in given} == {0}
    assert {w.trial.recipe.recalibration_images for w in given} == {1000}
    assert {w.trial.judge_images for w in given} == {1000}


@pytest.mark.parametrize(
    "arm",
    [
        {"method": "l1", "schedule": "sfp"},
        {"method": "l1", "schedule": {"name": "iterative", "rounds": 2}},
        "scop",
        "weight_gates",
        "network_slimming",
    ],
)
def test_a_method_or_schedule_that_trains_to_choose_has_whole_trials(arm: Any) -> None:
    given = of_role(play([arm]).through(), Role.SEARCH)
    assert {w.trial.kind for w in given} == {"prune"}
    assert play([arm]).places(Role.FINALIST) == []


def test_uniform_ratios_and_the_best_proposals_are_trained() -> None:
    game = play(["l1"])
    given = game.through()
    proposals = {w.place.index: w.trial for w in of_role(given, Role.SEARCH)}
    trained = {w.place.index: w.trial for w in of_role(given, Role.FINALIST)}
    assert sorted(trained) == [0, 1, 2]
    assert trained[0].ratios == proposals[0].ratios
    assert {t.kind for t in trained.values()} == {"prune"}
    assert {(t.seed, t.recipe.epochs) for t in trained.values()} == {(0, 2)}
    assert [w.place.role for w in given].index(Role.FINALIST) > max(
        i for i, w in enumerate(given) if w.place.role is Role.SEARCH
    )


def test_the_winner_is_the_finalist_that_does_best_when_trained() -> None:
    def second_best_wins(wanted: Any, result: dict[str, Any]) -> dict[str, Any]:
        if wanted.place.role is Role.FINALIST:
            return {**result, "val_accuracy": 99.0 if wanted.place.index == 2 else 50.0}
        return result

    given = play(["l1"], second_best_wins).through()
    (chosen,) = [w.trial for w in of_role(given, Role.FINALIST) if w.place.index == 2]
    confirmed = of_role(given, Role.CONFIRM)
    assert {w.place.target for w in confirmed} == {AT_HALF}
    assert all(w.trial.ratios == chosen.ratios for w in confirmed)


def test_finalists_that_fail_are_not_chosen() -> None:
    given = play(["l1"], fails(lambda p: p.role is Role.FINALIST and p.index != 0)).through()
    (uniform,) = [w.trial for w in of_role(given, Role.FINALIST) if w.place.index == 0]
    assert all(w.trial.ratios == uniform.ratios for w in of_role(given, Role.CONFIRM))


def test_when_all_finalists_fail_nothing_is_re_run() -> None:
    given = play(["l1", "l2"], fails(lambda p: (p.role, p.arm) == (Role.FINALIST, "l1"))).through()
    assert {w.place.arm for w in of_role(given, Role.CONFIRM)} == {"l2"}


def test_points_of_a_front_are_re_run_without_finalists() -> None:
    game = play(["l1"], targets=None)
    given = game.through()
    assert {w.trial.kind for w in of_role(given, Role.SEARCH)} == {"proxy"}
    assert game.places(Role.FINALIST) == []
    assert of_role(given, Role.CONFIRM)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("order", range(2))
def test_any_order_of_results_ends_alike(sampler: str, order: int) -> None:
    runs = [play(["l1"], search={**SEARCH, "sampler": sampler}).through(s) for s in (order, 7)]
    uids = [{(str(w.place), w.trial.uid) for w in given} for given in runs]
    assert uids[0] == uids[1]


def test_other_epochs_find_the_same_proposals() -> None:
    few, many = (play(["l1"], recipe={"epochs": epochs}).through() for epochs in (2, 5))
    recipes = [w.trial.recipe for given in (few, many) for w in of_role(given, Role.SEARCH)]
    assert all(recipe == recipes[0] for recipe in recipes)
