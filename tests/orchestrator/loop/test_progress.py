"""What a person reads while a sweep runs, and when it is over."""

from io import StringIO

from rich.console import Console

from orchestrator.loop.progress import Progress
from tracking.places import Place, Role


def test_a_sweep_that_is_over_does_not_say_that_some_of_it_is_not_done() -> None:
    done = [Place(Role.SEARCH, "l1", "front", number) for number in range(24)]
    progress = Progress(Console(file=StringIO()), 33, "sweep", done)
    assert progress.summary().startswith("sweep: 24 of 33 done")
    assert progress.summary(is_over=True).startswith("sweep: 24 of 24 done")
