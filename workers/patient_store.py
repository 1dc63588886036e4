"""An artifact store whose outages are waited for, and never taken for a trial's own fault.

A folder that was renamed away, a file system that is read-only for a while or an object store that
does not answer is the matter of whoever looks after them: the trial keeps what it has, says that
it waits, and goes on when the store is back.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from tracking.artifacts import (
    ArtifactNotFoundError,
    ArtifactPathError,
    ArtifactStore,
    StoreUnreachableError,
)

T = TypeVar("T")

MARKER: Final = ".prunesweep-store"  #: File that lies in every store: without it, it is away.
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0  #: Between two tries; each is twice as long as the last.


class PatientStore(ArtifactStore):
    """Tries again what the store does not do, for a while.

    Args:
        url: The store.
        patience_s: How long one call waits; 0: not at all.
        tell: Is given a sentence before every pause: what is wrong.

    Raises (every method but `prepare`):
        StoreUnreachableError: It is away for longer.
    """

    def __init__(
        self, url: str, patience_s: float, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        super().__init__(url)
        self.tell = tell
        self._raw_url, self._patience_s = url, patience_s
        self._is_waiting = False  # a method may call another

    @property
    def without_waiting(self) -> ArtifactStore:
        """The same for what can be done without: it is refused at once."""
        return PatientStore(self._raw_url, 0.0)

    def prepare(self) -> None:
        """Make the store recognisable, which makes it where there is none; waits as well."""

        def mark() -> None:
            if not super(PatientStore, self).exists(MARKER):
                super(PatientStore, self).write_bytes(MARKER, b"an artifact store of prunesweep\n")

        self._outlast(mark)

    def write_bytes(self, path: str, data: bytes, *, staging: str | None = None) -> str:
        """Store ``data`` under ``path``; see `ArtifactStore.write_bytes`."""
        write = super().write_bytes

        def write_there() -> str:
            self._require()  # or a folder that is away would be made anew
            return write(path, data, staging=staging)

        return self._outlast(write_there)

    def read_bytes(self, path: str) -> bytes:
        """Return the content of ``path``; see `ArtifactStore.read_bytes`."""
        read = super().read_bytes
        return self._outlast(lambda: self._found(lambda: read(path)))

    def local_path(self, path: str, cache_dir: "str | Path") -> Path:  # type: ignore[override]
        """Return a local file with the content of ``path``; see `ArtifactStore.local_path`."""
        find = super().local_path
        return self._outlast(lambda: self._found(lambda: find(path, cache_dir)))

    def exists(self, path: str) -> bool:
        """Say whether there is a file at ``path``, and not for want of the whole store."""
        exists = super().exists

        def look() -> bool:
            if exists(path):
                return True
            self._require()
            return False

        return self._outlast(look)

    def _found(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except ArtifactNotFoundError:
            self._require()
            raise  # the store is there, and the file is not

    def _require(self) -> None:
        if not super().exists(MARKER):
            raise FileNotFoundError(f"{MARKER} is not there, as if the store were away")

    def _outlast(self, action: Callable[[], T]) -> T:
        """Do something until it is done."""
        if self._is_waiting:
            return action()
        deadline, pause_s = time.monotonic() + self._patience_s, _PAUSE_S
        while True:
            try:
                with self._waiting():
                    return action()
            except (ArtifactNotFoundError, ArtifactPathError):
                raise
            except Exception as error:  # each kind of store has its own
                if self.folder is not None and not isinstance(error, OSError):
                    raise
                problem = StoreUnreachableError(self.url, f"{type(error).__name__}: {error}")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise problem
            self.tell(f"{problem} Waiting for it, {left_s:.0f} s at most.")
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False
