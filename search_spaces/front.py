"""Which results win: the best of one objective, the front of two."""

from collections.abc import Iterable, Sequence

from search_spaces.errors import NoResultsError


def best(results: Iterable[tuple[int, float]]) -> int:
    """Return the number of the highest accuracy, the lowest number where several share it.

    Args:
        results: Number and accuracy of each completed trial.

    Raises:
        NoResultsError: ``results`` is empty.
    """
    ranked = sorted(results, key=lambda result: (-result[1], result[0]))
    if not ranked:
        raise NoResultsError
    return ranked[0][0]


def front(results: Iterable[tuple[int, Sequence[float]]]) -> list[int]:
    """Return the numbers no other result beats, cheapest first.

    A result is beaten when another is at least as accurate and at most as costly, and better in
    one of the two. Of equal results the lowest number is returned.

    Args:
        results: Number and (accuracy, cost) of each completed trial.
    """
    ranked = sorted((cost, -accuracy, number) for number, (accuracy, cost) in results)
    chosen: list[int] = []
    best_accuracy = float("-inf")
    for _, minus_accuracy, number in ranked:
        if -minus_accuracy > best_accuracy:
            best_accuracy = -minus_accuracy
            chosen.append(number)
    return chosen
