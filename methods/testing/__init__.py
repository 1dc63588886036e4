"""The contract of pruning methods as tests to inherit, and what such tests stand on."""

from methods.testing.contract import PruningMethodContract, counted_by_torch, permute_filters
from methods.testing.example_networks import CLASSES, EXAMPLES, INPUT_SHAPE, Example
from methods.testing.tiny_session import TinySession

__all__ = [
    "CLASSES",
    "EXAMPLES",
    "INPUT_SHAPE",
    "Example",
    "PruningMethodContract",
    "TinySession",
    "counted_by_torch",
    "permute_filters",
]
