"""Statistics that many trials share, on whatever machine, kept with what they cost."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

import methods
from tracking.artifacts import ArtifactNotFoundError
from workers.files import SharedFiles
from workers.settings import TrialSpec, content_hash

log = logging.getLogger(__name__)

COST = "cost"
PREFIX = "statistics/"  #: Before the name of every tensor of a file.


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticsCost:
    """What statistics cost the trial that computed them."""

    steps: int  #: Optimizer steps of the trial's budget.
    images: int  #: Training images, each time one was used.
    seconds: float  #: Device-seconds.


def statistics_name(spec: TrialSpec, key: str, device: torch.device) -> str:
    """Return the name of statistics: a hash of all in a trial that they depend on.

    Args:
        spec: A trial that wants them.
        key: Tells apart the statistics of one method.
        device: Where they are computed.
    """
    matters = {"model", "data_hash", "weights", "layers", "method", "method_settings", "seed"}
    if depends_on_recipe(spec):
        matters.add("recipe")
    content = spec.model_dump(mode="json", include=matters)
    return content_hash({**content, "key": key, "device": device.type})


def depends_on_recipe(spec: TrialSpec) -> bool:
    """Say whether a trial's statistics may come of training."""
    return spec.method is None or methods.create(spec.method, spec.method_settings).trains


def load_statistics(
    files: SharedFiles, name: str
) -> tuple[dict[str, Tensor], StatisticsCost] | None:
    """Return the statistics called ``name``, on the CPU, and their cost; None when there are none.

    Args:
        files: Where they may be.
        name: Content hash of all they depend on.
    """
    try:
        tensors = safetensors.torch.load(files.read(_path(name)))
    except ArtifactNotFoundError:
        return None
    steps, images, seconds = tensors.pop(COST).tolist()
    return (
        {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()},
        StatisticsCost(steps=int(steps), images=int(images), seconds=seconds),
    )


def store_statistics(
    files: SharedFiles, name: str, tensors: Mapping[str, Tensor], cost: StatisticsCost
) -> None:
    """Keep statistics under ``name``; without room for them other trials compute their own."""
    plain = {PREFIX + key: tensor.cpu().contiguous().clone() for key, tensor in tensors.items()}
    plain[COST] = torch.tensor([cost.steps, cost.images, cost.seconds], dtype=torch.float64)
    try:
        files.write(_path(name), safetensors.torch.save(plain))
    except OSError as error:
        log.warning("Statistics are not shared with other trials: %s", error)


def _path(name: str) -> str:
    return f"statistics/{name}.safetensors"
