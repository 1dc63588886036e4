"""What lies where a file was to be, and is told for what it is."""

import re
from typing import Final

_IN_PLACE_OF_A_FILE: Final = (
    (re.compile(rb"version https://git-lfs"), "the pointer that Git LFS keeps in place of a file"),
    (
        re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE),
        "a web page, as of a failed download",
    ),
)


def in_place_of_a_file(start: bytes) -> str | None:
    """Say what the first bytes are of, where that is known to be no file of its own."""
    return next((what for pattern, what in _IN_PLACE_OF_A_FILE if pattern.match(start)), None)
