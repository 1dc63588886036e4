import pytest

from orchestrator.agenda.sizing import say_if_idle
from tests.orchestrator.sweeps import specification


def said(workers: int, trials: int = 100, window: int = 4) -> str | None:
    """Return what is said of two arms at one target."""
    search = {"trials": trials, "window": window}
    return say_if_idle(specification(search=search, resources={"workers": workers}))


def test_workers_beyond_all_windows_are_named_with_the_window_that_helps() -> None:
    text = said(workers=64)
    assert text is not None
    assert "Of 64 workers at most 8 have a trial" in text
    assert "search.window: 96" in text  # 3 x 64 workers / 2 searches


@pytest.mark.parametrize("workers", [1, 8])
def test_nothing_is_said_where_every_worker_can_have_a_trial(workers: int) -> None:
    assert said(workers) is None


def test_nothing_is_said_where_a_wider_window_would_not_help() -> None:
    assert said(workers=64, trials=4) is None
    assert said(workers=64, trials=1) is None


def test_the_window_named_is_no_wider_than_the_search_is_long() -> None:
    text = said(workers=64, trials=50)
    assert text is not None
    assert "search.window: 50" in text
