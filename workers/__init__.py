"""One trial on one device: data, models, training, measuring."""

from typing import TYPE_CHECKING, Any

import prunesweep

if TYPE_CHECKING:
    from workers.rebuild import load_pruned

__all__ = ["load_pruned"]

prunesweep.require_own_packages()  # also where a node of a cluster has others


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is used: the settings are read without it."""
    if name == "load_pruned":
        from workers.rebuild import load_pruned

        return load_pruned
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
