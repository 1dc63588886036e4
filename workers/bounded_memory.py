"""A bound on the memory that a decoder of foreign files takes, whatever the file declares."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/status")


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Let this process take ``most`` bytes more within the block, on Linux.

    Beyond them an allocation fails: in Python with ``MemoryError``, elsewhere as the library says
    it. The bound holds for the whole process, so it is for a command before its threads, not for a
    worker at its trials.
    """
    held = _held()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if held is None or 0 <= soft < held + most:  # no Linux, or bounded more tightly already
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (held + most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held() -> int | None:
    """Return the bytes that count against the bound; None where they cannot be told."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:")), None)
