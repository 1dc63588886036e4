"""Names in narrow columns."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from tracking.report.grid import Folded
from tracking.report.wording import markdown_safe

NAME = "functionality_filters-iterative/cut"


def lines(text: str, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    return [line.plain for line in Folded(text).wrap(console, width, overflow="fold")]


def test_a_name_goes_on_after_a_separator() -> None:
    assert lines(NAME, 16) == ["functionality_", "filters-", "iterative/cut"]
    assert lines(NAME, 40) == [NAME]


def test_words_that_fit_are_kept_whole() -> None:
    assert lines("not told from geometric_median", 16) == ["not told from ", "geometric_median"]


@pytest.mark.parametrize("width", range(2, 40))
@pytest.mark.parametrize(
    "text", [NAME, "a b", "", "--- x/y\n_", "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 9]
)
def test_nothing_is_lost_and_nothing_is_too_long(text: str, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    found = Folded(text).wrap(console, width, overflow="fold")
    assert "".join("".join(line.plain for line in found).split()) == "".join(text.split())
    assert all(line.cell_len <= width for line in found)


def test_a_table_folds_its_cells_so() -> None:
    console = Console(file=io.StringIO(), width=30)
    table = Table(box=None)
    for column in ("arm", "target"):
        table.add_column(column, overflow="fold")
    table.add_row(Folded(NAME), Folded("macs-50%"))
    console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    assert "functionality_" in written.getvalue()
    assert "filters-iterative/" in written.getvalue()


def test_markdown_keeps_controls_of_a_terminal_visible() -> None:
    assert markdown_safe("l1\x1b[2J|\nx") == r"l1\\x1b[2J\| x"
