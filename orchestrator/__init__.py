"""The sweep: its specification, the loop that runs it, the command line."""

from typing import TYPE_CHECKING, Any

from orchestrator.errors import SpecError
from orchestrator.specification.spec import SweepSpec
from prunesweep import PrunesweepError

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep

__all__ = ["PrunesweepError", "SpecError", "Sweep", "SweepSpec"]


def __getattr__(name: str) -> Any:
    """Import what needs torch and Ray when it is used: reading records must not wait for them."""
    if name == "Sweep":
        from orchestrator.sweep import Sweep

        return Sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
