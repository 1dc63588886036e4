"""The sweep: its specification, the loop that runs it, the command line."""

import importlib
from typing import TYPE_CHECKING, Any

import prunesweep

if TYPE_CHECKING:
    from orchestrator.errors import SpecError
    from orchestrator.specification.spec import SweepSpec
    from orchestrator.sweep import Sweep
    from prunesweep import PrunesweepError

__all__ = ["PrunesweepError", "SpecError", "Sweep", "SweepSpec"]

_HOME = {
    "PrunesweepError": "prunesweep",
    "SpecError": "orchestrator.errors",
    "Sweep": "orchestrator.sweep",
    "SweepSpec": "orchestrator.specification.spec",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch and Ray when it is used: reading records must not wait for them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    prunesweep.require_own_packages()
    return getattr(importlib.import_module(_HOME[name]), name)
