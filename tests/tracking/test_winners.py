from datetime import UTC, datetime
from typing import Any

import pytest

from tracking.places import Place, Role
from tracking.records import TrialRecord, TrialState
from tracking.winners import best, best_arm, best_trial, front

RESULTS = {
    0: (0.90, 100.0),
    1: (0.80, 50.0),
    2: (0.80, 60.0),  # as accurate as 1, costs more
    3: (0.70, 50.0),  # costs as much as 1, less accurate
    4: (0.60, 10.0),
    5: (0.80, 50.0),  # equal to 1
}


def trial(number: int, accuracy: float | None) -> TrialRecord:
    state = TrialState.FAILED if accuracy is None else TrialState.COMPLETED
    other: dict[str, Any] = dict.fromkeys(
        ("error", "cause", "reused_from", "started_at", "ended_at"), None
    )
    return TrialRecord(
        id=number, sweep_id=1, uid=f"uid-{number}", spec={}, state=state, attempt=1, losses=0,
        result=None if accuracy is None else {"val_accuracy": accuracy},
        created_at=datetime.now(UTC), rev=1, published_rev=0, **other,
    )  # fmt: skip


def test_the_best_is_the_most_accurate_and_of_equals_the_first() -> None:
    assert best({4: 0.9, 2: 0.9, 3: 0.8}) == 2


@pytest.mark.parametrize(("with_equals", "numbers"), [(False, [4, 1, 0]), (True, [4, 1, 5, 0])])
def test_the_front_leaves_out_what_is_beaten(with_equals: bool, numbers: list[int]) -> None:
    assert front(RESULTS, lambda n: RESULTS[n], with_equals=with_equals) == numbers


def test_the_front_of_nothing_is_empty() -> None:
    assert front([], lambda _: (0.0, 0.0)) == []


def test_the_highest_mean_wins_and_of_equal_arms_the_first() -> None:
    assert best_arm({"a": [80.0, 90.0], "b": [85.0], "c": []}) == "a"
    assert best_arm({"a": [80.0], "b": [85.0]}) == "b"
    assert best_arm({"a": []}) is None


class TestBestTrial:
    def test_re_runs_decide_as_soon_as_one_has_come_back(self) -> None:
        searched = (Place(Role.SEARCH, "l1", "macs-50%", 0), trial(1, 99.0))
        first = (Place(Role.CONFIRM, "l1", "macs-50%", 1), trial(2, 90.0))
        second = (Place(Role.CONFIRM, "l1", "macs-50%", 2), trial(3, 90.0))
        assert best_trial([searched]) == searched
        assert best_trial([searched, second, first]) == first

    def test_what_failed_or_is_not_finite_or_was_timed_is_never_the_best(self) -> None:
        failed = (Place(Role.CONFIRM, "l1", "macs-50%", 1), trial(1, None))
        nan = (Place(Role.CONFIRM, "l1", "macs-50%", 2), trial(2, float("nan")))
        timed = (Place(Role.LATENCY, "l1", "macs-50%", 0), trial(3, 95.0))
        searched = (Place(Role.SEARCH, "l1", "macs-50%", 0), trial(4, 50.0))
        assert best_trial([failed, nan, timed]) is None
        assert best_trial([failed, nan, timed, searched]) == searched
