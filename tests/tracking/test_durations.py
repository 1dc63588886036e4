import pytest

from tracking.durations import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (9.94, "9.9 s"),
        (45.4, "45 s"),
        (99, "99 s"),
        (119, "2 min"),
        (600, "10 min"),
        (5999, "100 min"),
        (7200, "2.0 h"),
    ],
)
def test_a_duration_is_written_as_it_is_said(seconds: float, text: str) -> None:
    assert duration(seconds) == text
