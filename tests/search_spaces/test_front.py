import pytest

from search_spaces import NoResultsError
from search_spaces.front import best, front


def test_the_best_is_the_most_accurate_and_of_equals_the_first() -> None:
    assert best([(4, 0.9), (2, 0.9), (3, 0.8)]) == 2


def test_the_best_of_nothing_is_an_error() -> None:
    with pytest.raises(NoResultsError, match="no completed trial"):
        best([])


def test_the_front_leaves_out_what_is_beaten() -> None:
    results = [
        (0, (0.90, 100.0)),
        (1, (0.80, 50.0)),
        (2, (0.80, 60.0)),  # as accurate as 1, costs more
        (3, (0.70, 50.0)),  # costs as much as 1, less accurate
        (4, (0.60, 10.0)),
        (5, (0.80, 50.0)),  # equal to 1
    ]
    assert front(results) == [4, 1, 0]


def test_the_front_of_nothing_is_empty() -> None:
    assert front([]) == []
