"""Accuracy drops: which costs are searched, what is the answer, and what waits for it."""

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.agenda.queue import Wanted
from orchestrator.errors import SpecError
from orchestrator.specification.loading import parse_spec
from tests.orchestrator.agenda.test_agenda import Play, fails, of_role
from tests.orchestrator.sweeps import BASE, specification
from tracking.places import DENSE, Role, searched_label, tried_at

SEARCH = {"trials": 4, "window": 2, "proxy": True, "finalists": 2, "costs": 4}


def play(verdict: Any, arms: list[Any] | None = None, **changes: Any) -> Play:
    targets = {"accuracy_drop": 1}
    fields = {"arms": arms or ["l1"], "targets": targets, "search": SEARCH, **changes}
    return Play.of(specification(**fields), verdict)


def within_until(most: float) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    """Give every network that loses more than ``most`` of its MACs two points less."""

    def verdict(wanted: Any, result: dict[str, Any]) -> dict[str, Any]:
        if "val_accuracy" not in result or wanted.place.arm == DENSE:
            return {**result, "val_accuracy": 90.0} if "val_accuracy" in result else result
        share = result["macs_reduction"]
        return {**result, "val_accuracy": 88.0 if share > most else 89.5}

    return verdict


def goes(wanted: Wanted) -> float:
    """Return the share of the cost that a trial is to lose."""
    assert wanted.trial.target is not None
    return wanted.trial.target.reduction


def tried(given: list[Wanted]) -> list[float]:
    """Return the costs searched, in order."""
    found = dict.fromkeys(goes(w) for w in of_role(given, Role.SEARCH))
    return list(found)


@pytest.mark.parametrize("most", [0.2, 0.5, 0.7])
def test_costs_close_in_on_the_cheapest_network_within(most: float) -> None:
    game = play(within_until(most))
    given = game.through()
    costs = tried(given)
    assert len(costs) == 4
    cheapest = max(cost for cost in costs if cost <= most)
    confirmed = of_role(given, Role.CONFIRM)
    assert {goes(w) for w in confirmed} == {cheapest}
    assert {w.place.target for w in confirmed} == {"drop-1"}
    assert most - cheapest <= costs[0] / 2**3 + 1e-3  # what four halvings leave


def test_a_cost_is_judged_by_networks_that_were_trained() -> None:
    def misleading(wanted: Any, result: dict[str, Any]) -> dict[str, Any]:
        if wanted.trial.kind == "proxy":
            return {**result, "val_accuracy": 10.0}
        return within_until(0.6)(wanted, result)

    given = play(misleading).through()
    assert {w.trial.kind for w in of_role(given, Role.FINALIST)} == {"prune"}
    assert goes(of_role(given, Role.CONFIRM)[0]) > 0.3


def test_nothing_within_is_no_answer() -> None:
    game = play(within_until(0.0))
    given = game.through()
    assert len(tried(given)) == 4
    assert not of_role(given, Role.CONFIRM)
    assert not of_role(given, Role.LATENCY)
    assert {w.place.arm for w in of_role(given, Role.CONTROL)} == {DENSE}


def test_the_cheapest_arm_is_what_controls_are_held_against() -> None:
    def l2_is_cheaper(wanted: Any, result: dict[str, Any]) -> dict[str, Any]:
        most = 0.7 if wanted.place.arm == "l2" else 0.3
        return within_until(most)(wanted, result)

    given = play(l2_is_cheaper, ["l1", "l2"]).through()
    at = {w.place.arm: goes(w) for w in of_role(given, Role.CONFIRM)}
    assert at["l2"] > at["l1"]
    controls = {w.place.arm: w for w in of_role(given, Role.CONTROL)}
    assert set(controls) == {DENSE, "random", "uniform_l1", "scratch:l2"}
    assert goes(controls["random"]) == at["l2"]


def test_methods_that_allocate_are_trained_once_at_each_cost() -> None:
    arm = {"method": "l1", "allocation": "method", "name": "allocated"}
    given = play(within_until(0.9), [arm], search={"trials": 1, "costs": 3}).through()
    trained = of_role(given, Role.FINALIST)
    assert [w.trial.seed for w in trained] == [0, 0, 0]
    assert not any(w.trial.reads_test for w in trained)
    assert all(w.trial.reads_test for w in of_role(given, Role.CONFIRM))


def test_without_a_dense_control_that_came_back_nothing_is_decided() -> None:
    given = play(fails(lambda place: place.arm == DENSE)).through()
    assert not of_role(given, Role.CONFIRM)
    assert len(tried(given)) <= 1


@pytest.mark.parametrize("order", range(3))
def test_any_order_of_results_ends_alike(order: int) -> None:
    runs = [play(within_until(0.45), ["l1", "l2"]).through(seed) for seed in (order, 11)]
    uids = [{(str(w.place), w.trial.uid) for w in given} for given in runs]
    assert uids[0] == uids[1]


def test_drops_that_try_the_same_cost_share_its_trials() -> None:
    both = {"accuracy_drop": [1, 3]}
    given = play(within_until(0.45), targets=both).through()
    first: dict[str, list[str]] = {"drop-1": [], "drop-3": []}
    for wanted in of_role(given, Role.SEARCH):
        first[searched_label(wanted.place.target)].append(wanted.trial.uid)
    assert set(first["drop-1"][:4]) == set(first["drop-3"][:4])


def test_a_cost_on_the_way_is_named_by_what_goes() -> None:
    assert tried_at("drop-0.5", 0.412) == "drop-0.5@41.2%"
    assert searched_label("drop-0.5@41.2%") == "drop-0.5"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"targets": {"accuracy_drop": [1, 1.0]}}, "names the same drop twice"),
        ({"targets": {"accuracy_drop": -1}}, "must be at least 0"),
        ({"targets": {"macs_reduction": 0.5, "cost": "params"}}, "none is named"),
        ({"targets": {"accuracy_drop": 1, "cost": "latency"}}, "write macs or params. For a time"),
        (
            {"targets": {"accuracy_drop": 1}, "controls": {"dense": False}},
            "leave controls.dense on",
        ),
    ],
)
def test_mistakes_are_refused_at_the_door(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        parse_spec({**BASE, **changes})


def test_sweeps_without_a_drop_are_stored_as_before() -> None:
    stored = specification().model_dump(mode="json")
    assert set(stored["targets"]) == {"macs_reduction", "params_reduction"}
    assert "costs" not in stored["search"]
