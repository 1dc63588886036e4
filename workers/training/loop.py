"""Training one network by a recipe: optimizer, learning rate, precision, and where hooks run."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from methods.hooks import Hooks, Step
from methods.state import State, Stateful, load_optimizer_state, optimizer_state
from workers.errors import WorkerError
from workers.networks.checkpoints import fit
from workers.settings import Recipe
from workers.training.seeds import load_random_state, random_state

LOSS_CHECK_STEPS = 50  # reading the loss waits for the device, so not at every step


class DivergedError(WorkerError, ArithmeticError):
    """The loss is no longer a finite number."""

    def __init__(self, split: str, epoch: float, learning_rate: float) -> None:
        super().__init__(split, epoch, learning_rate)
        self.split, self.epoch, self.learning_rate = split, epoch, learning_rate

    def __str__(self) -> str:
        return (
            f"The {self.split} loss stopped being finite at epoch {self.epoch:.2f}, at learning "
            f"rate {self.learning_rate:g}. Lower learning_rate or add warmup_epochs; with "
            "precision bfloat16, try float32."
        )


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate after ``epoch`` epochs of the trial's whole budget.

    The curve belongs to the trial, so training that is split into several calls continues it.
    """
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    if recipe.schedule == "cosine":
        length = recipe.epochs - recipe.warmup_epochs
        done = (epoch - recipe.warmup_epochs) / length if length else 0.0
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if recipe.schedule == "step":
        passed = sum(epoch >= share * recipe.epochs for share in recipe.milestones)
        return recipe.learning_rate * recipe.decay**passed
    return recipe.learning_rate


def make_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """Create the recipe's optimizer over every parameter of ``network`` that wants gradients.

    On CUDA a step of it is one kernel.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    fused = True if parameters and all(p.is_cuda for p in parameters) else None
    if recipe.optimizer == "adamw":
        return AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
        )
    return SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


@contextmanager
def channels_last(network: nn.Module, device: torch.device) -> Iterator[torch.memory_format]:
    """Hold the weights channels-last where that is faster; afterwards they are as found.

    Yields:
        The memory format that images should have.
    """
    if device.type not in {"cuda", "cpu"}:
        yield torch.contiguous_format
        return
    if any(not weight.is_contiguous() for weight in network.parameters()):
        yield torch.channels_last  # an epoch ends with an evaluation, and another may follow
        return
    network.to(memory_format=torch.channels_last)
    try:
        yield torch.channels_last
    finally:
        network.to(memory_format=torch.contiguous_format)


def autocast(device: torch.device, recipe: Recipe) -> AbstractContextManager[object]:
    """Compute in the recipe's number type; weights stay as they are."""
    reduced = recipe.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=reduced)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What moves while a network is trained; put together again, it goes on bit for bit."""

    network: nn.Module
    optimizer: Optimizer
    method: Stateful  #: What the hooks remember.
    device: torch.device

    def parts(self) -> dict[str, State]:
        """Return all of it as it is between two epochs, by owner."""
        return {
            "network": self.network.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.network.named_parameters()),
            "method": self.method.state_dict(),
            "random": random_state(self.device),
        }

    def load_parts(self, parts: Mapping[str, State]) -> None:
        """Take over what :meth:`parts` gave, in place.

        Raises:
            WeightsMismatchError: The network is another one; nothing is changed then.
        """
        fit(self.network, parts["network"])
        load_optimizer_state(self.optimizer, self.network.named_parameters(), parts["optimizer"])
        self.method.load_state_dict(parts["method"])
        load_random_state(parts["random"], self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochOutcome:
    """What one epoch, or the part of it that was trained, came to."""

    steps: int
    images: int
    train_loss: float  #: Mean over images of what was minimised, loss term included.
    learning_rate: float  #: Of the last step.
    ended_early: bool  #: A hook asked for the end of the call.


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochPosition:
    """Where one epoch lies, within the call and within the trial."""

    epoch: int  #: From 0 within the call.
    first_step: int  #: Steps the call has taken before this epoch.
    call_steps: int  #: Steps of the whole call.
    trial_steps: int  #: Steps the trial has taken before this epoch.
    steps_per_epoch: int  #: Of a whole epoch.


def train_epoch(
    network: nn.Module,
    optimizer: Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    recipe: Recipe,
    position: EpochPosition,
    hooks: Hooks,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> EpochOutcome:
    """Train on ``batches`` once, stopping where the call ends.

    Raises:
        DivergedError: The loss is not finite.
    """
    network.train()
    steps = images_seen = 0
    rate = 0.0
    ended_early = False
    total: Tensor | float = 0.0
    for images, labels in batches:
        if position.first_step + steps == position.call_steps:
            break
        # In the middle of the step, so that neither warm-up begins nor the cosine ends at rate 0.
        epochs_done = (position.trial_steps + steps + 0.5) / position.steps_per_epoch
        rate = learning_rate(recipe, epochs_done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = images.to(memory_format=memory_format)
        optimizer.zero_grad(set_to_none=True)
        loss = _loss(network, images, labels, recipe, hooks)
        loss.backward()  # type: ignore[no-untyped-call]
        steps += 1
        step = Step(
            network=network,
            optimizer=optimizer,
            epoch=position.epoch,
            progress=(position.first_step + steps) / position.call_steps,
            images=images,
            labels=labels,
        )
        if hooks.after_backward:
            hooks.after_backward(step)
        optimizer.step()
        images_seen += len(labels)
        total = total + loss.detach() * len(labels)
        if steps % LOSS_CHECK_STEPS == 0 and not math.isfinite(float(total)):
            raise DivergedError("training", epochs_done, rate)
        if hooks.after_step and hooks.after_step(step):
            ended_early = True
            break
    train_loss = float(total) / max(images_seen, 1)
    if not math.isfinite(train_loss):
        raise DivergedError(
            "training", (position.trial_steps + steps) / position.steps_per_epoch, rate
        )
    if hooks.after_epoch:
        hooks.after_epoch(network, optimizer, position.epoch)
    return EpochOutcome(
        steps=steps,
        images=images_seen,
        train_loss=train_loss,
        learning_rate=rate,
        ended_early=ended_early,
    )


def _loss(
    network: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, hooks: Hooks
) -> Tensor:
    with autocast(images.device, recipe):
        logits = network(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    return loss + hooks.loss_term(network) if hooks.loss_term else loss
