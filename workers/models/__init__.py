"""The networks a sweep can name, and how a name becomes a network."""

from workers.models.resolve import build_model, list_models

__all__ = ["build_model", "list_models"]
