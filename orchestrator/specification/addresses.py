"""Where records and artifacts go, as text: addresses that can work, paths that can be written.

What an address must look like is checked wherever a sweep is prepared; what depends on the machine
only where the sweep will run. No message shows an address, which may hold a password.
"""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import fsspec

from tracking.database_url import named_by

LONGEST_NAME: Final = 255  #: Bytes of a file's name, in every common file system.
LONGEST_PATH: Final = 4000  #: Bytes; Linux takes 4,096, and file names are appended.
HIGHEST_PORT: Final = 65_535
LEAST_FREE: Final = 16 << 20  #: Bytes of disk, below which a sweep is not begun.
#: Stores that can be written to, from several machines; of those that fsspec knows.
ARTIFACT_SCHEMES: Final = (
    *("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "hdfs", "webhdfs"),
    *("sftp", "ssh", "smb", "hf", "memory"),
)
_SQLITE_BEGINS: Final = b"SQLite format 3\0"
_HOST_AND_PORT: Final = re.compile(r"(?:[\w.-]+|\[[\da-f:.]+\]):(\d{1,5})")


def check_store(text: str) -> None:
    """Refuse what is no folder.

    Raises:
        ValueError: With what is wrong.
    """
    if "://" in text:
        raise ValueError(
            "is an address, and the store is a folder of the machine that drives the sweep; give "
            "addresses in 'ledger', 'mlflow' and 'artifacts'"
        )
    _check_home(text)
    _check_path(os.path.abspath(os.path.expanduser(text)))


def check_artifacts(text: str) -> None:
    """Refuse an address that nothing could be written to.

    Raises:
        ValueError: With what is wrong.
    """
    _check_characters(text)
    _check_home(text)
    path = local_path(text)
    if path is not None:
        _check_path(path)
        return
    scheme = text.partition("://")[0]
    if scheme not in ARTIFACT_SCHEMES:
        raise ValueError(
            "must be a folder or an address that can be written to, beginning with "
            f"{', '.join(ARTIFACT_SCHEMES[:-1])} and ://"
        )
    if scheme != "memory" and not urlsplit(text).netloc:
        raise ValueError(f"names no bucket or host after {scheme}://")


def check_package(text: str) -> None:
    """Refuse an address whose package is not installed.

    Raises:
        ValueError: With the package.
    """
    if local_path(text) is not None:
        return
    try:
        fsspec.get_filesystem_class(text.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise ValueError(f"cannot be used here: {str(error).rstrip('.')}") from None


def check_database(text: str) -> None:
    """Refuse an SQL address that names no database that lasts.

    Raises:
        ValueError: With what is wrong.
    """
    _check_characters(text)
    named = named_by(text)
    if named.is_sqlite and "?" in text:  # mode=memory, say, in which nothing would last
        raise ValueError("has parameters after '?', which a file takes none of; leave them out")
    if named.port is not None and not 0 < named.port <= HIGHEST_PORT:
        raise ValueError(f"has a port above {HIGHEST_PORT}, the highest there is")
    if named.is_sqlite and named.file is None:
        raise ValueError("names no file; write sqlite:///PATH, or sqlite:////PATH from the root")
    if named.file is not None:
        _check_path(str(named.file))


def check_server(text: str) -> None:
    """Refuse an address of the web that no server can have.

    Raises:
        ValueError: With what is wrong.
    """
    _check_characters(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"has a port that is none; it must be 1 to {HIGHEST_PORT}") from None
    if not host or port == 0:
        raise ValueError(f"must name a host after {parts.scheme}://")


def check_cluster(text: str) -> str:
    """Return the address of a Ray cluster.

    Raises:
        ValueError: With what is wrong.
    """
    if text.startswith("ray://"):  # Ray's client cannot stream what actors report
        raise ValueError(
            f"is {text!r}, and a sweep cannot be driven from outside its cluster; send it there "
            "with `prunesweep submit`, or give HOST:PORT on a machine of the cluster"
        )
    if text in {"auto", "local"}:
        return text
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or not text.isascii():
        raise ValueError(f"is {text!r}; it must be 'auto', 'local' or HOST:PORT")
    if not 0 < int(found[1]) <= HIGHEST_PORT:
        raise ValueError(f"is {text!r}; a port is 1 to {HIGHEST_PORT}")
    return text


def local_path(text: str) -> str | None:
    """Return the absolute path that a path or a ``file://`` address means; None for others."""
    if text.startswith("file://"):
        return os.path.abspath(unquote(urlsplit(text).path))
    return None if "://" in text else os.path.abspath(os.path.expanduser(text))


def check_folder_here(path: str) -> None:
    """Refuse a folder that is not there and cannot be made, or cannot be written to.

    Raises:
        ValueError: With what is in the way.
    """
    there = Path(path)
    while not _exists(there):
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"would lie below {str(there)!r}, which is no folder; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"cannot be written: {str(there)!r} lets nobody like you write")
    found = os.statvfs(there)
    if found.f_bavail * found.f_frsize < LEAST_FREE:
        raise ValueError(f"is on a disk that is full; free {LEAST_FREE >> 20} MiB at least")


def check_database_here(path: str) -> None:
    """Refuse a file that cannot be, or become, an SQLite database.

    Raises:
        ValueError: With what is in the way.
    """
    if not _exists(Path(path)):
        check_folder_here(str(Path(path).parent))
        return
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ValueError("names a folder; name a file in it, such as sqlite:///ledger.db")
    if not stat.S_ISREG(mode):
        raise ValueError("names a device or a pipe; name a file")
    check_folder_here(str(Path(path).parent))  # SQLite keeps its journal beside it
    if not os.access(path, os.R_OK | os.W_OK):
        raise ValueError("names a file that you may not write to")
    with open(path, "rb") as file:
        if file.read(len(_SQLITE_BEGINS)) not in {b"", _SQLITE_BEGINS}:
            raise ValueError("names a file of another kind, no SQLite database; name a new one")


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ValueError(f"cannot be reached: {error.strerror}") from None
    return True


def _check_characters(text: str) -> None:
    if not text.isprintable() or text != text.strip():
        raise ValueError("has a control character in it, or a blank at an end; take it out")


def _check_home(text: str) -> None:
    if text.startswith("~") and os.path.expanduser(text).startswith("~"):
        raise ValueError("begins with '~' and no user of this machine; write the whole path")


def _check_path(path: str) -> None:
    _check_characters(path.strip())  # a folder's name may well end with a blank
    try:
        names: Sequence[bytes] = os.fsencode(path).split(b"/")
    except UnicodeEncodeError:
        raise ValueError("has a lone surrogate in it, which is no character") from None
    if max(map(len, names)) > LONGEST_NAME:
        raise ValueError(f"has a name of more than {LONGEST_NAME} bytes in it; shorten it")
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(f"is longer than {LONGEST_PATH:,} bytes; name a place nearer to the root")
