"""Text from elsewhere, fit for a message: nothing in it reaches a terminal or forges a line."""

import re

LONGEST_LINE = 2000  #: Characters of one line of a message.
LONGEST_WORD = 300  #: Characters without a space; longer ones are somebody's input, not ours.
_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def visible(text: str) -> str:
    r"""Return ``text`` with each character that cannot be seen written as an escape, ``\x1b``.

    Line ends, tabs, controls of a terminal, marks that reverse what follows, lone surrogates, and
    blanks that are not the usual one.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """Return ``text`` as one visible line; of what is too long the middle is left out."""
    text = _WORD.sub(lambda word: _shortened(word[0], LONGEST_WORD), _shortened(text, most))
    return visible(text)


def visible_lines(text: str) -> str:
    """Return a message of several lines with each made visible, and short."""
    return "\n".join(map(one_line, text.split("\n")))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}...{text[-most // 4 :]}"
