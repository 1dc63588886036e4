"""What to remove, and removing it: criteria, schedules, plan, surgery.

The names come from `methods.api` when the first of them is used: whoever raises or catches an
error must not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Return one of the public names."""
    api = import_module("methods.api")
    if name in getattr(api, "__all__", ()):  # not there yet while it imports
        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
