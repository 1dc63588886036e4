"""Training by the session of a trial and by a bare hand-written loop, to be held side by side."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from methods import NO_STATE, Hooks
from workers.data import DataInfo, DataSet, describe
from workers.models import build_model
from workers.node.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.training.measure import recalibrate_batch_norm, synchronize
from workers.training.seeds import fastest_kernels, seed_everything
from workers.training.session import TrainingSession
from workers.trial import run_trial

Prepare = Callable[[nn.Module], None]  #: Changes a network before it is trained.

described = cache(describe)  # which reads files


def to_nobody(_step: int, _values: dict[str, float]) -> None:
    """Take a report, and do nothing with it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its images, and how it is trained."""

    model: ModelSettings
    data: DataSettings
    recipe: Recipe

    @property
    def info(self) -> DataInfo:
        """What the images are."""
        return described(self.data)

    def spec(self, **changes: Any) -> TrialSpec:
        """Return a trial of it: one that trains the network from its beginning, but for changes."""
        values = {"kind": "baseline", "model": self.model, "data": self.data, "seed": 1}
        values |= {"data_hash": self.info.data_hash, "recipe": self.recipe}
        return TrialSpec(**{**values, **changes})

    def network(self) -> nn.Module:
        """Return the network as it is initialised, on the CPU."""
        return build_model(self.model, self.info.num_classes, self.info.channels)


class BareLoop:
    """Trains a network on images that lie on its device, as one would by hand for it alone."""

    def __init__(self, network: nn.Module, data: DataSet, recipe: Recipe) -> None:
        self._network = network.to(memory_format=torch.channels_last)
        batches = [*data.eval_batches(data.train, 1024)]
        images = torch.cat([images for images, _ in batches])  # float32, normalised
        self._images = images.contiguous(memory_format=torch.channels_last)
        self._labels = torch.cat([labels for _, labels in batches])
        self._recipe = recipe
        self._optimizer = SGD(
            network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True if self._images.is_cuda else None,
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self._labels), device=self._labels.device)
        for rows in torch.split(order, self._recipe.batch_size):
            yield self._images[rows], self._labels[rows]

    def epoch(self) -> float:
        """Train for an epoch; return the seconds it took."""
        device = self._images.device
        reduced = self._recipe.precision == "bfloat16"
        self._network.train()
        synchronize(device)
        started = time.perf_counter()
        for images, labels in self._batches():
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=reduced):
                logits = self._network(images)
            loss = F.cross_entropy(logits.float(), labels)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
        synchronize(device)
        return time.perf_counter() - started


class SessionLoop:
    """Trains a network by the session of a trial, which evaluates after every epoch."""

    def __init__(self, network: nn.Module, data: DataSet, spec: TrialSpec, node: Node) -> None:
        self._network = network
        self.session = TrainingSession(spec, data, node.device, node.files, to_nobody)

    def epoch(self) -> float:
        """Train for an epoch; return the seconds charged to training."""
        seconds = self.session.meter.seconds
        before = seconds["recover"]
        with self.session.meter.act("recover"):
            self.session.train_with(self._network, 1, Hooks(state=NO_STATE))
        return seconds["recover"] - before

    def evaluating(self) -> float:
        """Return the seconds that one look at the validation split takes."""
        return self._second_time(lambda: self.session.validate(self._network))

    def recalibrating(self, images: int) -> float:
        """Return the seconds that batch norms take to be estimated again."""

        def recalibrate() -> None:
            recalibrate_batch_norm(self._network, self.session.batches(images))

        return self._second_time(recalibrate)

    def _second_time(self, act: Callable[[], object]) -> float:
        act()
        synchronize(self.session.device)
        started = time.perf_counter()
        act()
        synchronize(self.session.device)
        return time.perf_counter() - started


def measure_training(
    case: Case, node: Node, rounds: int, prepare: Prepare | None = None
) -> dict[str, float]:
    """Train by both loops, epoch by epoch in turns; the first epoch of each warms up.

    Neither augments, for the bare loop cannot; then the session trains with the augmentation of
    the recipe.

    Args:
        case: What is trained.
        node: Where.
        rounds: Epochs that count, of each.
        prepare: Changes a network before it is trained.

    Returns:
        Images a second of both, the median ratio of neighbouring epochs, images a second with
        augmentation, and seconds of one evaluation and of one recalibration.
    """
    seed_everything(1, node.device)
    data = node.data(case.data).for_trial()
    bare = BareLoop(_ready(case, node, prepare), data, case.recipe)
    session, augmenting = (
        SessionLoop(_ready(case, node, prepare), data, case.spec(recipe=recipe), node)
        for recipe in _recipes(case.recipe, epochs=rounds + 1)
    )
    seconds: dict[str, list[float]] = {"bare": [], "session": []}
    loops = [("bare", bare.epoch), ("session", session.epoch)]
    for number in range(rounds + 1):
        for name, epoch in loops if number % 2 else loops[::-1]:  # neither is always first
            seconds[name].append(epoch())
    warm = {name: taken[1:] for name, taken in seconds.items()}
    augmenting.epoch()
    images = len(data.train)
    return {
        **{
            f"{name}_images_per_s": images / statistics.median(taken)
            for name, taken in warm.items()
        },
        "ratio": statistics.median(
            by_hand / by_session
            for by_hand, by_session in zip(warm["bare"], warm["session"], strict=True)
        ),
        "augmenting_images_per_s": images / augmenting.epoch(),
        "evaluation_s": session.evaluating(),
        "evaluated_images": float(len(data.val)),
        "recalibration_s": session.recalibrating(min(1000, images)),
    }


def measure_bare(case: Case, node: Node, rounds: int, prepare: Prepare | None = None) -> float:
    """Return the images a second of a bare loop for which cuDNN times its kernels first."""
    seed_everything(1, node.device)
    data = node.data(case.data).for_trial()
    bare = BareLoop(_ready(case, node, prepare), data, case.recipe)
    with fastest_kernels(True):
        bare.epoch()
        return len(data.train) / statistics.median(bare.epoch() for _ in range(rounds))


def _ready(case: Case, node: Node, prepare: Prepare | None) -> nn.Module:
    network = case.network()
    if prepare:
        prepare(network)
    return network.to(node.device)


def _recipes(recipe: Recipe, epochs: int) -> tuple[Recipe, Recipe]:
    """Return the recipe without augmentation and with it."""
    plain = recipe.model_copy(update={"epochs": epochs, "augmentation": "none"})
    return plain, recipe.model_copy(update={"epochs": epochs})


def measure_trial(case: Case, node: Node) -> dict[str, float]:
    """Run one whole trial, of two epochs or more, and say where its time goes.

    Returns:
        Seconds of the trial and before its first step (the first report, less what the second
        epoch took), and the share of the trial that was charged to training.
    """
    moments: list[float] = []
    started = time.perf_counter()
    result = run_trial(case.spec(), node, lambda *_: moments.append(time.perf_counter()))
    total = time.perf_counter() - started
    return {
        "trial_s": total,
        "before_first_step_s": max(0.0, moments[0] - started - (moments[1] - moments[0])),
        "training_share": result["seconds_recover"] / total,
    }
