"""Which numbers of a search set its best proposals apart."""

import numpy as np
import pytest

from search_spaces.importance import importance_of


def drawn(proposals: int) -> dict[str, list[float]]:
    draw = np.random.default_rng(3)
    return {name: draw.random(proposals).tolist() for name in ("first", "second", "third")}


@pytest.mark.parametrize("proposals", [20, 100])
def test_what_the_value_depends_on_is_what_matters(proposals: int) -> None:
    numbers = drawn(proposals)
    values = [90.0 - 10.0 * abs(number - 0.3) for number in numbers["second"]]
    found = importance_of(numbers, values)
    assert list(found) == ["first", "second", "third"]
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["second"] > 2 * max(found["first"], found["third"])


def test_a_number_that_never_varies_does_not_matter() -> None:
    numbers = {**drawn(30), "fixed": [0.5] * 30}
    assert importance_of(numbers, numbers["first"])["fixed"] == 0.0


def test_nothing_is_said_where_nothing_can_be() -> None:
    assert importance_of(drawn(30), [50.0] * 30) == {}
    assert importance_of({"fixed": [0.5] * 30}, drawn(30)["first"]) == {}
