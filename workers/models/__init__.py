"""The networks a sweep can name, and how a name becomes a network."""

from workers.models.published import TIMM, published_weights
from workers.models.resolve import ZOO, build_model, check_name, list_models

__all__ = [
    "TIMM",
    "ZOO",
    "build_model",
    "check_name",
    "list_models",
    "published_weights",
]
