"""What databases take: text without what they refuse, and values that JSON can say."""

from typing import Any

from tracking.errors import UnstorableError, redact_text
from tracking.ledger.tables import encode


def clean(text: str) -> str:
    """Return text to store: no passwords of URLs, and neither NUL nor lone surrogates.

    All of them may be in a traceback, and databases do not take the latter.
    """
    return (
        redact_text(text)
        .replace("\0", "\N{REPLACEMENT CHARACTER}")
        .encode(errors="replace")
        .decode()
    )


def check_json(what: str, value: Any) -> None:
    """Refuse what cannot be written as JSON.

    Raises:
        UnstorableError: ``value`` is of such a kind.
    """
    try:
        encode(value)
    except (TypeError, ValueError) as error:
        raise UnstorableError(what, str(error)) from error
