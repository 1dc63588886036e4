"""The contract of pruning methods as tests to inherit, and what such tests stand on."""

from methods.testing.contract import (
    CLASSES,
    EXAMPLES,
    INPUT_SHAPE,
    Example,
    PruningMethodContract,
    TinySession,
    counted_by_torch,
    permute_filters,
)

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
