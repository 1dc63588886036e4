"""The sweep: its specification, the loop that runs it, the command line."""

from orchestrator.errors import PrunesweepError, SpecError
from orchestrator.spec import SweepSpec
from orchestrator.sweep import Sweep

__all__ = ["PrunesweepError", "SpecError", "Sweep", "SweepSpec"]
