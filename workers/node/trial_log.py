"""What a trial logs while it runs, kept beside its artifacts for whoever looks for it later."""

import logging
import traceback
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tracking.artifacts import ArtifactStore

MOST_LINES = 5_000  #: Of one attempt; the oldest go first.
_FORM = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


def log_path(uid: str, attempt: int) -> str:
    """Return where the log of an attempt at a trial lies in the artifact store."""
    return f"logs/{uid}/{attempt}.txt"


class _Lines(logging.Handler):
    """Keeps what is logged as lines."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_FORM)
        self.lines: deque[str] = deque(maxlen=MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.lines.append(self.format(record))


@contextmanager
def kept_log(artifacts: ArtifactStore, uid: str, attempt: int) -> Iterator[None]:
    """Keep what is logged and warned of in the block, with the traceback if it raises.

    Nothing is written where there is nothing to say, and no trouble with the store ends a trial.
    """
    handler, root = _Lines(), logging.getLogger()
    root.addHandler(handler)
    show = warnings.showwarning
    logging.captureWarnings(True)
    try:
        yield
    except Exception:
        handler.lines.extend(traceback.format_exc().rstrip().split("\n"))
        raise
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = show
        root.removeHandler(handler)
        if handler.lines:
            with suppress(OSError):
                text = "\n".join(handler.lines) + "\n"
                artifacts.write_bytes(log_path(uid, attempt), text.encode(errors="replace"))
