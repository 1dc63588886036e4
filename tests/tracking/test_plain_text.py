import pytest

from tracking.plain_text import LONGEST_LINE, one_line, visible, visible_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ± text, naïve 漢字 🎉", "plain ± text, naïve 漢字 🎉"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\x9b31m", r"\x9b31m"),
        ("\udc80", r"\udc80"),
        ("\u2028", r"\u2028"),
    ],
)
def test_what_cannot_be_seen_is_written_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_of_a_long_line_both_ends_are_kept() -> None:
    line = one_line(f"begins {'and goes on ' * 10_000}ends")
    assert len(line) <= LONGEST_LINE
    assert line.startswith("begins and goes")
    assert line.endswith("goes on ends")


def test_a_long_word_is_somebodys_input_and_is_cut() -> None:
    line = one_line(f"The path {'/x' * 1000} is too long; shorten it.")
    assert len(line) < 400
    assert line.endswith("... is too long; shorten it.") or "... /x" not in line
    assert "shorten it." in line


def test_lines_of_a_message_stay_lines() -> None:
    assert visible_lines("one\n\x1btwo") == "one\n\\x1btwo"
