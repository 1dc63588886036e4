"""What others wrote reaches a terminal as text: names, logs, and causes of failed trials."""

from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from orchestrator.plain_console import PlainConsole
from tests.orchestrator.command_line import TINY, call
from tracking.ledger.ledger import Ledger
from tracking.places import Place, Role

EVIL = "lost\x1b[2J\x1b]0;title\x07\u202egpj"


def test_controls_in_texts_and_cells_are_shown() -> None:
    written = StringIO()
    console = PlainConsole(file=written, width=120)
    table = Table("head")
    table.add_row(Text(EVIL))
    for renderable in (Text(EVIL), EVIL, table):
        console.print(renderable, markup=False)
    text = written.getvalue()
    assert text.count(r"\x1b[2J") == 3
    assert text.count(r"\u202e") == 2  # a cell is as wide as the text was, and is cut
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_colours_of_our_own_and_lines_stay() -> None:
    written = StringIO()
    console = PlainConsole(file=written, width=80, force_terminal=True, color_system="standard")
    console.print(Text("one\ntwo", style="red"))
    assert "\x1b[31mone\x1b[0m\n" in written.getvalue()


@pytest.mark.parametrize("verb", ["status", "show", "logs"])
def test_the_cause_of_a_failed_trial_sends_nothing(tmp_path: Path, verb: str) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.create_sweep("mine", TINY, "hash")
        writer = ledger.take_over("mine", "test")
        place = Place(Role.CONTROL, arm="l1", target="macs-50%", index=1)
        trial = writer.want(place, "uid", {"seed": 0})[1].id
        writer.fail(trial, writer.start(trial, "node", 1), EVIL, f"Traceback\n{EVIL}")
    trials = [str(trial)] if verb in {"show", "logs"} else []
    result = call(verb, "mine", *trials, "--store", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    assert r"\x1b[2J" in result.output
