"""A network that cannot be grouped within limits is refused with what to do."""

import pytest

from methods import LayerPolicy, LayoutError, find_layout
from methods.structure.limits import GIBIBYTES, SECONDS, GroupingLimitError
from methods.testing import INPUT_SHAPE
from methods.testing.example_networks import plain


@pytest.mark.parametrize(
    ("variable", "limit", "what"),
    [(SECONDS, "1e-9", "more than 1e-09 s"), (GIBIBYTES, "1e-12", "more than 1e-12 GiB")],
)
def test_grouping_ends_at_its_limits(
    variable: str, limit: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.structure.limits._LOOK_EVERY_S", 0.0)
    readings = iter(range(10**6))
    monkeypatch.setattr("methods.structure.limits._resident", lambda: next(readings))
    monkeypatch.setenv(variable, limit)
    with pytest.raises(GroupingLimitError) as caught:
        find_layout(plain(), INPUT_SHAPE, LayerPolicy())
    assert what in str(caught.value)
    for way_out in ("layers.protect", "data.image_size", variable):
        assert way_out in str(caught.value)


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_no_number_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECONDS, text)
    with pytest.raises(LayoutError, match=f"{SECONDS} is '{text}'"):
        find_layout(plain(), INPUT_SHAPE, LayerPolicy())
