"""What to try next: ratio spaces, the projection onto a cost target, and the search.

The names come from `search_spaces.api` when the first of them is used: whoever raises or catches an
error must not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Return one of the public names."""
    api = import_module("search_spaces.api")
    if name in getattr(api, "__all__", ()):  # not there yet while it imports
        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
