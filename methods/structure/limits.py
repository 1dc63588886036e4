"""How long finding groups may take, and how much memory: a network cannot hold up a sweep."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from methods.errors import LayoutError

SECONDS, GIBIBYTES = "PRUNESWEEP_GROUPING_SECONDS", "PRUNESWEEP_GROUPING_GIB"
_LOOK_EVERY_S = 0.05


class GroupingLimitError(LayoutError):
    """Finding the groups of a network takes longer, or more memory, than it may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingLimits:
    """What finding the groups of one network may take."""

    seconds: float = 100.0
    gibibytes: float = 8.0  #: That the process grows by.

    @classmethod
    def from_environment(cls) -> "GroupingLimits":
        """Read the limits that this machine has set, the default where it has none.

        Raises:
            LayoutError: One of them is no number.
        """
        return cls(
            seconds=_number(SECONDS, cls().seconds), gibibytes=_number(GIBIBYTES, cls().gibibytes)
        )


class Watch:
    """Ends a search for groups at its limits.

    Args:
        network: What is said to be too large.
        limits: Counted from here on.
    """

    def __init__(self, network: str, limits: GroupingLimits) -> None:
        self._network, self._limits = network, limits
        self._began = self._looked = time.monotonic()
        self._memory = _resident()

    def look(self) -> None:
        """See whether a limit is passed.

        Raises:
            GroupingLimitError: One is.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        if now - self._began > self._limits.seconds:
            self._end(f"took more than {self._limits.seconds:g} s", SECONDS)
        if _resident() - self._memory > self._limits.gibibytes * 2**30:
            self._end(f"took more than {self._limits.gibibytes:g} GiB of memory", GIBIBYTES)

    def _end(self, what: str, variable: str) -> None:
        raise GroupingLimitError(
            f"Finding which filters of {self._network} can go {what}. Protect layers "
            "(layers.protect), which then need not be tried, give smaller images "
            f"(data.image_size), or allow more with the environment variable {variable}."
        )


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not value > 0.0:
        raise LayoutError(
            f"The environment variable {variable} is {text!r}; give a number above 0."
        )
    return value


def _resident() -> int:
    """Return the bytes this process has in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
