"""One trial on one device: data, models, training, measuring."""

from workers.rebuild import load_pruned

__all__ = ["load_pruned"]
