"""Addresses of databases: of files whatever their paths hold, and what a given one names."""

import os
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError


class Named(NamedTuple):
    """What an address names."""

    is_sqlite: bool
    file: Path | None  #: Of SQLite, absolute; None where it would be in memory.
    port: int | None


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """Return the SQLAlchemy URL of a file, with ``?``, ``%`` and ``@`` in its path escaped."""
    url = sa.URL.create("sqlite", database=str(Path(path).absolute()))
    return url.render_as_string(hide_password=False)


def named_by(url: str) -> Named:
    """Return what an SQLAlchemy URL names.

    Raises:
        ValueError: It is none.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("is no database address; it must read SCHEME://HOST:PORT/NAME") from None
    is_sqlite = parsed.get_backend_name() == "sqlite"
    in_memory = not is_sqlite or parsed.database in {None, "", ":memory:"}
    file = None if in_memory else Path(str(parsed.database)).absolute()
    return Named(is_sqlite=is_sqlite, file=file, port=parsed.port)
