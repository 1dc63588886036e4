"""How tests feed what is hostile: many cases, each held to a time, to memory and to a message."""

import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings

from orchestrator.commands.exits import BAD_INPUT, exit_code
from prunesweep import PrunesweepError
from tracking.errors import redact_text
from tracking.plain_text import visible_lines

SLOWEST_S = 10.0  #: Of the processor for one case; most take a hundredth of a second.
MOST_BYTES = 600 << 20  #: Of memory beyond what was held before: one large image, decoded.
_HARD_BYTES = 4 << 30  #: Where a case ends that would take the machine with it.
LONGEST = 3000  #: Characters of a message, lines of several mistakes together.

#: Of every test: a run is repeated by the seed that stands above its results.
CHECKS = settings(
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


class Content(bytes):
    """Bytes that are shown by their length."""

    def __repr__(self) -> str:
        return f"Content({bytes(self[:20])!r}... {len(self)})"


@contextmanager
def empty(folder: Path) -> Iterator[Path]:
    """Give each case a folder of its own, and take it away: a case may leave much."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        yield Path(own)


def damaged(content: bytes, cut: float, changes: Sequence[tuple[int, int]]) -> Content:
    """Return some bytes cut short, with others in some places."""
    kept = bytearray(content[: int(len(content) * cut)])
    for at, value in changes:
        if kept:
            kept[at % len(kept)] = value
    return Content(kept)


@contextmanager
def held_to_limits() -> Iterator[None]:
    """Let the block end well or with a message; neither late, nor with memory that grows."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = _memory("VmRSS"), time.process_time()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + _HARD_BYTES, limits[1]))
    try:
        yield
    except PrunesweepError as error:
        _check_message(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - began < SLOWEST_S
    assert _memory("VmHWM") - before < MOST_BYTES


def _check_message(error: PrunesweepError) -> None:
    assert exit_code(error) == BAD_INPUT
    message = visible_lines(redact_text(str(error)))
    assert message.strip()
    assert message.replace("\n", "").isprintable(), ascii(message)
    assert len(message) < LONGEST
    message.encode()


def _memory(name: str) -> int:
    """Return what the kernel says of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(value) * 1024
