"""What a person reads while a sweep runs, and when it is over."""

from io import StringIO

import pytest
from rich.console import Console

from orchestrator.loop.live_view import RunningTrial, Standings, view
from orchestrator.loop.phases import Phases
from orchestrator.loop.progress import Progress
from tracking.places import Place, Role


def test_a_sweep_that_is_over_does_not_say_that_some_of_it_is_not_done() -> None:
    done = [Place(Role.SEARCH, "l1", "front", number) for number in range(24)]
    progress = Progress(Console(file=StringIO()), 33, "sweep", done)
    assert progress.summary().startswith("sweep: 24 of 33 done")
    assert progress.summary(is_over=True).startswith("sweep: 24 of 24 done")


ARMS = [f"functionality-with-settings-{letter}" for letter in "abcdefghijklmnopqrstuvwxyzABC"]


def shown(width: int, height: int = 40, arms: int = 29) -> str:
    """Return the live view of a sweep of many arms, as a terminal of this size has it."""
    console = Console(file=StringIO(), width=width, height=height)
    standings = Standings()
    for number, arm in enumerate(ARMS[:arms]):
        standings.came(Place(Role.SEARCH, arm, "macs-50%", 0), 80.0 + number / 10)
    for seed, accuracy in ((1, 91.0), (2, 92.0)):
        standings.came(Place(Role.CONFIRM, ARMS[0], "macs-50%", seed), accuracy)
    place = Place(Role.CONFIRM, ARMS[3], "macs-50%", 1)
    running = [RunningTrial(place=place, worker=f"node:{n}", epochs=20, step=n) for n in range(9)]
    summary = "sweep: 40 of 99 done, about 3 min left"
    console.print(view(console, summary, 0.4, running, standings, "search l1 #3: it diverged"))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


class TestLiveView:
    @pytest.mark.parametrize("width", [80, 200])
    def test_it_says_what_matters_within_the_terminal(self, width: int) -> None:
        text = shown(width)
        lines = text.splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= 40
        assert "re-running winners with fresh seeds" in map(str.strip, lines)
        assert "7/20" not in text  # of nine that run, six are shown
        assert "5/20" in text
        assert "and 3 more" in text
        assert "last failure search l1 #3: it diverged" in text

    def test_who_was_re_run_leads_with_a_deviation_and_the_rest_are_counted(self) -> None:
        text = shown(200)
        leads = [line for line in text.splitlines() if "macs-50%" in line and "±" in line]
        assert ARMS[0] in leads[0]
        assert "91.50 ± 0.71 % (2 re-runs)" in leads[0]
        assert ARMS[28] in text  # the best of a search comes next
        assert ARMS[10] not in text
        assert "26 arms behind these" in text

    def test_no_name_is_cut(self) -> None:
        assert "…" not in shown(80)

    def test_a_low_terminal_shows_the_head_and_the_first(self) -> None:
        assert len(shown(200, height=16).splitlines()) <= 16


def test_phases_are_said_on_a_terminal_only() -> None:
    plain, terminal = StringIO(), StringIO()
    for file, is_terminal in ((plain, False), (terminal, True)):
        with Phases(Console(file=file, force_terminal=is_terminal)) as phases:
            phases("Loading torch and Ray")
            phases("Looking at data and network")
    assert plain.getvalue() == ""
    assert "Looking at data and network" in terminal.getvalue()
