import json
import random
import re
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pytest

from search_spaces import (
    SAMPLERS,
    PastProposal,
    Proposal,
    ProposalOutcome,
    Search,
    SearchOrderError,
    SearchSettingsError,
)
from search_spaces.samplers import BLIND

DIMENSIONS = [f"layer{i}.conv1" for i in range(6)]


def accuracy(params: Mapping[str, float]) -> float:
    return 1.0 - sum((value - 0.2 - 0.1 * i) ** 2 for i, value in enumerate(params.values()))


def result(proposal: Proposal, objectives: int) -> tuple[list[float] | None, ProposalOutcome]:
    """Return values and outcome that depend on the proposal alone; some fail, some are stopped."""
    if proposal.number % 11 == 7:
        return None, "failed"
    if proposal.number % 7 == 5:
        return None, "stopped"
    values = [accuracy(proposal.params), 10.0 - sum(proposal.params.values())]
    return values[:objectives], "completed"


class Run:
    """A sweep around one search, with a ledger that survives kills.

    Results come in a shuffled order, as from workers of different speed.
    """

    def __init__(self, order: int, **settings: Any) -> None:
        self.settings = settings
        self.objectives = settings.get("objectives", 1)
        self.random = random.Random(order)
        self.ledger: list[str] = []  # proposals as JSON
        self.results: dict[int, tuple[list[float] | None, ProposalOutcome]] = {}
        self.search = Search(DIMENSIONS, **settings)

    def kill_and_restore(self) -> None:
        self.search = Search(DIMENSIONS, **self.settings)
        past = []
        for text in self.ledger:
            proposal = Proposal(**json.loads(text))
            values, outcome = self.results.get(proposal.number, (None, None))
            past.append(PastProposal(proposal=proposal, outcome=outcome, values=values))
        self.search.restore(past)

    def until(self, asked: int) -> None:
        while self.search.asked < asked:
            number = self.search.asked
            while self.search.can_ask(number) and self.random.random() < 0.8:
                proposal = self.search.ask(number)
                self.ledger.append(
                    json.dumps(
                        {
                            "number": proposal.number,
                            "params": proposal.params,
                            "state": proposal.state,
                        },
                        allow_nan=False,
                        sort_keys=True,  # as a database may give it back
                    )
                )
                number = self.search.asked
                if number == asked:
                    return
            running = [n for n in range(len(self.ledger)) if n not in self.results]
            if running:
                done = self.random.choice(running)
                proposal = Proposal(**json.loads(self.ledger[done]))
                self.results[done] = result(proposal, self.objectives)
                self.search.tell(done, *self.results[done])


LENGTHS = {"tpe": 40, "random": 20, "nsga2": 80, "cmaes": 60, "qmc": 20, "gp": 17}
SLOW_GP = pytest.param("gp", marks=pytest.mark.slow)
CASES = [
    pytest.param(name, objectives, marks=[pytest.mark.slow] if name == "gp" else [])
    for name in SAMPLERS
    for objectives in (1, 2)
    if (name, objectives) != ("cmaes", 2)
]


@pytest.mark.parametrize(("sampler", "objectives"), CASES)
def test_a_search_killed_and_restored_proposes_what_the_undisturbed_one_does(
    sampler: str, objectives: int
) -> None:
    length = LENGTHS[sampler]
    settings = {"sampler": sampler, "objectives": objectives, "seed": 3, "window": 4}
    undisturbed = Run(order=0, **settings)
    undisturbed.until(length)
    disturbed = Run(order=1, **settings)
    for point in (0, 1, 3, length // 3, length // 2, length - 2):
        disturbed.until(point)
        disturbed.kill_and_restore()
    disturbed.until(length)
    assert disturbed.ledger == undisturbed.ledger


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_spread_and_lie_in_the_space(sampler: str) -> None:
    run = Run(order=0, sampler=sampler, seed=1, window=2)
    run.until(10)
    proposals = [json.loads(text)["params"] for text in run.ledger]
    assert all(sorted(p) == DIMENSIONS for p in proposals)
    assert all(0.0 <= value <= 1.0 for p in proposals for value in p.values())
    assert len({tuple(p.values()) for p in proposals}) == len(proposals)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2", SLOW_GP])
def test_late_proposals_are_better_than_chance(sampler: str) -> None:
    def late_mean(name: str) -> float:
        search = Search(DIMENSIONS, sampler=name, seed=5, window=1)
        length = 20 if sampler == "gp" else 100
        found = []
        for number in range(length):
            proposal = search.ask(number)
            found.append(accuracy(proposal.params))
            search.tell(number, [found[-1]], "completed")
        return fmean(found[-length // 4 :])

    assert late_mean(sampler) > late_mean("random") + 0.1


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_proposal_is_uniform(objectives: int, seed: int) -> None:
    search = Search(DIMENSIONS, seed=seed, objectives=objectives)
    assert search.ask(0).params == dict.fromkeys(DIMENSIONS, 0.5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_give_different_searches(sampler: str) -> None:
    seconds = []
    for seed in (0, 1):
        search = Search(DIMENSIONS, sampler=sampler, seed=seed, window=2)
        search.ask(0)
        seconds.append(search.ask(1).params)
    assert seconds[0] != seconds[1]


@pytest.mark.parametrize("sampler", sorted(BLIND))
def test_a_sampler_that_looks_at_no_result_waits_for_none(sampler: str) -> None:
    ahead, behind = (Search(DIMENSIONS, sampler=sampler, window=1, seed=4) for _ in range(2))
    early = [ahead.ask(number).params for number in range(12)]
    late = []
    for number in range(12):
        late.append(behind.ask(number).params)
        behind.tell(number, [float(number)], "completed")
    assert early == late


def test_a_search_may_run_ahead_of_results_by_its_window() -> None:
    search = Search(DIMENSIONS, window=3)
    for number in range(3):
        assert search.can_ask(number)
        search.ask(number)
    assert not search.can_ask(3)
    search.tell(2, [0.5], "completed")
    assert not search.can_ask(3)
    search.tell(0, [0.5], "completed")
    assert search.can_ask(3)
    assert not search.can_ask(4)


def test_a_result_that_came_in_early_is_held_back() -> None:
    proposals = []
    for early in (False, True):
        search = Search(DIMENSIONS, sampler="tpe", window=12)
        for number in range(12):
            search.ask(number)
        for number in range(12 if early else 1):
            search.tell(number, [accuracy({"a": number / 12})], "completed")
        proposals.append(search.ask(12))
    assert proposals[0] == proposals[1]


def test_a_restored_search_may_have_a_narrower_window() -> None:
    wide = Search(DIMENSIONS, window=4)
    past = [PastProposal(proposal=wide.ask(number)) for number in range(4)]
    narrow = Search(DIMENSIONS, window=2)
    narrow.restore(past)
    for number in range(3):
        assert not narrow.can_ask(4)
        narrow.tell(number, [0.5], "completed")
    assert narrow.ask(4).number == 4


def test_values_that_are_not_finite_count_as_a_failure() -> None:
    searches = [Search(DIMENSIONS, sampler="tpe", window=1) for _ in range(2)]
    for number in range(12):
        for search in searches:
            search.ask(number)
        searches[0].tell(number, [float("nan")], "completed")
        searches[1].tell(number, None, "failed")
    assert searches[0].ask(12) == searches[1].ask(12)


def test_the_memory_of_cmaes_is_stored_without_a_pickle() -> None:
    run = Run(order=0, sampler="cmaes", seed=0, window=1)
    run.until(40)
    states = [json.loads(text)["state"] for text in run.ledger]
    assert any("cmaes" in state for state in states)
    assert not any("optimizer" in key for state in states for key in state["trial"])


def test_a_pickle_slipped_into_the_ledger_is_not_loaded() -> None:
    run = Run(order=0, sampler="cmaes", seed=0, window=1)
    run.until(20)
    proposal = Proposal(**json.loads(run.ledger[-1]))
    trial = {**proposal.state["trial"], "cma:optimizer:0": b"not a pickle of ours".hex()}
    poisoned = {**json.loads(run.ledger[-1]), "state": {**proposal.state, "trial": trial}}
    run.ledger[-1] = json.dumps(poisoned)
    run.kill_and_restore()
    run.until(30)
    assert len(run.ledger) == 30


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda s: s.ask(5), "Proposal 5 cannot be asked for; the next is 2."),
        (lambda s: s.ask(2), "before the result of proposal 0 is known"),
        (lambda s: s.tell(2, [0.5], "completed"), "Proposal 2 was never asked for"),
        (lambda s: s.tell(0, [0.5, 1.0], "completed"), "give 1 of them"),
        (lambda s: s.tell(0, None, "completed"), "give 1 of them"),
        (lambda s: s.restore([]), "only a new search can be restored"),
    ],
)
def test_what_would_change_the_proposals_is_refused(act: Any, problem: str) -> None:
    search = Search(DIMENSIONS, window=2)
    search.ask(0)
    search.ask(1)
    with pytest.raises(SearchOrderError, match=re.escape(problem)):
        act(search)


def test_a_result_is_final() -> None:
    search = Search(DIMENSIONS)
    search.ask(0)
    search.tell(0, [0.5], "completed")
    with pytest.raises(SearchOrderError, match="has a result already"):
        search.tell(0, [0.6], "completed")


def test_a_gap_in_the_history_is_refused() -> None:
    search = Search(DIMENSIONS)
    first, second = search.ask(0), search.ask(1)
    with pytest.raises(SearchOrderError, match="Proposal 0 is missing"):
        Search(DIMENSIONS).restore([PastProposal(proposal=second), PastProposal(proposal=first)])


def test_a_history_of_other_dimensions_is_refused() -> None:
    past = [PastProposal(proposal=Search(["a", "b"]).ask(0))]
    with pytest.raises(SearchSettingsError, match="differ from those of the stored proposal 0"):
        Search(DIMENSIONS).restore(past)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"sampler": "cmaes", "objectives": 2}, "for a front use"),
        ({"objectives": 3}, "objectives is 3"),
        ({"window": 0}, "window is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"dimensions": []}, "give distinct names"),
        ({"dimensions": ["a", "a"]}, "give distinct names"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(SearchSettingsError, match=re.escape(problem)):
        Search(**{"dimensions": DIMENSIONS} | settings)


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(SearchSettingsError, match="did you mean 'cmaes'"):
        Search(DIMENSIONS, sampler="cma-es")


@pytest.mark.parametrize("sampler", [name if name != "gp" else SLOW_GP for name in SAMPLERS])
def test_one_dimension_is_enough(sampler: str) -> None:
    search = Search(["all"], sampler=sampler, window=1)
    for number in range(12):
        proposal = search.ask(number)
        search.tell(number, [accuracy(proposal.params)], "completed")
    assert 0.0 <= search.ask(12).params["all"] <= 1.0
