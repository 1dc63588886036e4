"""Accuracy, loss and batch-norm statistics of a network on a set of images."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from workers.errors import WorkerError

Batch = tuple[Tensor, Tensor]  #: Images [N, C, H, W] and labels [N].


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """How a network does on one split; every image weighs the same."""

    accuracy: float  #: Percent.
    loss: float  #: Mean cross-entropy, without label smoothing.
    images: int
    chance: float  #: Percent that naming the most frequent class would get right.


class EmptySplitError(WorkerError, ValueError):
    """A measurement was asked for on no images at all."""

    def __init__(self, purpose: str) -> None:
        super().__init__(purpose)
        self.purpose = purpose

    def __str__(self) -> str:
        return (
            f"There is no image to {self.purpose} with; every split needs at least one. Take more "
            "images or a larger validation fraction."
        )


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put ``network`` in evaluation mode without gradients; each module gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Evaluation:
    """Measure ``network`` in float32, in evaluation mode; it is left as found.

    Correct answers and losses are summed over images, so a short last batch weighs what it holds.

    Raises:
        EmptySplitError: ``batches`` holds no image.
    """
    return evaluate_each(network, batches, memory_format)[0]


def evaluate_each(
    network: nn.Module,
    batches: Iterable[Batch],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> tuple[Evaluation, Tensor]:
    """Measure as `evaluate` does, and say which images were got right: bool ``[N]``, on the CPU.

    Raises:
        EmptySplitError: ``batches`` holds no image.
    """
    right: list[Tensor] = []
    classes: list[Tensor] = []
    loss: Tensor | float = 0.0
    with evaluation_mode(network):
        for images, labels in batches:
            logits = network(images.contiguous(memory_format=memory_format)).float()
            right.append(logits.argmax(dim=1) == labels)
            classes.append(labels)
            loss = loss + F.cross_entropy(logits, labels, reduction="sum").double()
    if not right:
        raise EmptySplitError("evaluate")
    correct = torch.cat(right).cpu()
    found = Evaluation(
        accuracy=100.0 * int(correct.sum()) / len(correct),
        loss=float(loss) / len(correct),
        images=len(correct),
        chance=100.0 * int(torch.cat(classes).bincount().max()) / len(correct),
    )
    return found, correct


def recalibrate_batch_norm(
    network: nn.Module,
    batches: Iterable[Batch],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> int:
    """Replace the running statistics of every batch norm by averages over ``batches``.

    Every image weighs the same. A last batch of one image, which batch norm may not take, is left
    out. Weights stay as they are; a network without batch norms is not run.

    Returns:
        Images seen.

    Raises:
        EmptySplitError: ``batches`` holds no image.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return 0
    images_seen = 0
    momenta = [norm.momentum for norm in norms]
    with evaluation_mode(network):
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        try:
            for images, _ in batches:
                if images_seen and len(images) == 1:
                    continue
                images_seen += len(images)
                for norm in norms:
                    norm.momentum = len(images) / images_seen  # a cumulative average
                network(images.contiguous(memory_format=memory_format))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if not images_seen:
        raise EmptySplitError("recalibrate batch norms")
    return images_seen
