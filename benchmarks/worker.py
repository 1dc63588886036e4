"""What a worker adds to training: a trial's session against a bare hand-written loop, in turns.

``python -m benchmarks.worker [--images 2000] [--rounds 5] [--output FILE]``

Epoch by epoch by turns, so that whatever else the machine does hits both: the session as a trial
trains, and a loop that does the same arithmetic on the same images and nothing else. Then whole
trials: how much of the time passes in training, and how much before the first step.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.surroundings import publish, surroundings
from methods import NO_STATE, Hooks
from tracking.artifacts import ArtifactStore
from workers.data import DataSet, describe
from workers.models import build_model
from workers.node.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.training.measure import recalibrate_batch_norm, synchronize
from workers.training.seeds import seed_everything
from workers.training.session import TrainingSession
from workers.trial import run_trial

GOAL_RATE, GOAL_SHARE = 0.95, 0.95


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its images, and how it is trained."""

    model: ModelSettings
    data: DataSettings
    recipe: Recipe

    def spec(self, **changes: Any) -> TrialSpec:
        """Return the trial that trains the network from its beginning."""
        values = {"kind": "baseline", "model": self.model, "data": self.data, "seed": 1}
        values |= {"data_hash": describe(self.data).data_hash, "recipe": self.recipe}
        return TrialSpec(**{**values, **changes})


def nothing(_step: int, _values: dict[str, float]) -> None:
    """Report to nobody."""


class BareLoop:
    """Trains a network on images that lie on its device, as one would by hand for it alone."""

    def __init__(self, network: nn.Module, data: DataSet, recipe: Recipe) -> None:
        self._network = network.to(memory_format=torch.channels_last)
        batches = [*data.eval_batches(data.train, 1024)]
        self._images = torch.cat([images for images, _ in batches])  # float32, normalised
        self._images = self._images.contiguous(memory_format=torch.channels_last)
        self._labels = torch.cat([labels for _, labels in batches])
        self._recipe = recipe
        is_cuda = self._images.is_cuda
        self._optimizer = SGD(
            network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True if is_cuda else None,
        )

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch, shuffled."""
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
        for images, labels in self.batches():
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
        self._network, self._data = network, data
        self.session = TrainingSession(spec, data, node.device, node.files, nothing)

    def epoch(self) -> float:
        """Train for an epoch; return the seconds charged to training."""
        seconds = self.session.meter.seconds
        before = seconds["recover"]
        with self.session.meter.act("recover"):
            self.session.train_with(self._network, 1, Hooks(state=NO_STATE))
        return seconds["recover"] - before

    def evaluating(self) -> float:
        """Return the seconds that one look at the validation split takes."""
        return timed(self.session.device, lambda: self.session.validate(self._network))

    def recalibrating(self, images: int) -> float:
        """Return the seconds that batch norms take to be estimated again."""

        def recalibrate() -> None:
            recalibrate_batch_norm(self._network, self.session.batches(images, 128))

        return timed(self.session.device, recalibrate)


def timed(device: torch.device, act: Callable[[], object]) -> float:
    """Return the seconds that ``act`` takes, the second time."""
    act()
    synchronize(device)
    started = time.perf_counter()
    act()
    synchronize(device)
    return time.perf_counter() - started


def measure_training(
    case: Case, node: Node, rounds: int, prepare: Callable[[nn.Module], None] | None = None
) -> dict[str, float]:
    """Train by both loops in turns; the first epoch of each warms up.

    Args:
        case: What is trained, without augmentation: the bare loop has none.
        node: Where.
        rounds: Epochs that count, of each.
        prepare: Changes a network before it is trained.

    Returns:
        Images a second of both, the median ratio of neighbouring epochs, and seconds of one
        evaluation and one recalibration.
    """
    recipe = case.recipe.model_copy(update={"epochs": rounds + 1, "augmentation": "none"})
    spec = case.spec(recipe=recipe)
    seed_everything(spec.seed, node.device)
    data = node.data(case.data).for_trial()
    info = data.info
    networks = [build_model(case.model, info.num_classes, info.input_shape[0]) for _ in range(2)]
    for network in networks:
        if prepare:
            prepare(network)
        network.to(node.device)
    bare = BareLoop(networks[0], data, recipe)
    session = SessionLoop(networks[1], data, spec, node)
    bare.epoch()
    session.epoch()
    bare_seconds, session_seconds = [], []
    for number in range(rounds):
        if number % 2:  # neither is always first
            session_seconds.append(session.epoch())
            bare_seconds.append(bare.epoch())
        else:
            bare_seconds.append(bare.epoch())
            session_seconds.append(session.epoch())
    images = len(data.train)
    pairs = zip(bare_seconds, session_seconds, strict=True)
    return {
        "bare_images_per_s": images / statistics.median(bare_seconds),
        "session_images_per_s": images / statistics.median(session_seconds),
        "ratio": statistics.median(one / other for one, other in pairs),
        "evaluation_s": session.evaluating(),
        "evaluated_images": float(len(data.val)),
        "recalibration_s": session.recalibrating(min(1000, images)),
    }


def measure_trial(case: Case, node: Node) -> dict[str, float]:
    """Run one whole trial, and say where its time goes.

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


def cases(images: int) -> list[Case]:
    """Return ResNet-20 on digits of 32x32 pixels, and the digits' own network."""
    recipe = Recipe(epochs=3, batch_size=128, augmentation="shift", learning_rate=0.02)
    large = DataSettings(image_size=32, train_images=images, test_images=200)
    return [
        Case(model=ModelSettings(name="cifar_resnet20"), data=large, recipe=recipe),
        Case(
            model=ModelSettings(name="digits_net"),
            data=DataSettings(),
            recipe=recipe.model_copy(update={"epochs": 10}),
        ),
    ]


def main() -> None:
    """Measure, print and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# What a worker adds to training",
        "",
        "`python -m benchmarks.worker`: a trial's session against a bare hand-written loop, epoch "
        "by epoch in turns; then a whole trial, the second of its process.",
        "",
        "| network | bare loop, images/s | session, images/s | ratio (goal "
        f"{GOAL_RATE}) | evaluation, ms per 1,000 images | recalibration, ms | trial, s "
        f"| in training (goal {GOAL_SHARE:.0%}) | before the first step, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory(prefix="worker-") as name:
        node = Node(
            device=torch.device("cpu"),
            cache_dir=Path(name) / "cache",
            artifacts=ArtifactStore(f"{name}/artifacts"),
        )
        for case in cases(options.images):
            found = measure_training(case, node, options.rounds)
            measure_trial(case, node)
            trial = measure_trial(case, node)
            lines.append(line(case.model.name, found, trial))
    publish([*lines, "", *surroundings(), ""], options.output)


def line(name: str, found: dict[str, float], trial: dict[str, float]) -> str:
    """Return one row of the table."""
    evaluation = 1e6 * found["evaluation_s"] / found["evaluated_images"]
    return (
        f"| {name} | {found['bare_images_per_s']:,.0f} | {found['session_images_per_s']:,.0f} "
        f"| {found['ratio']:.3f} | {evaluation:.0f} | {1e3 * found['recalibration_s']:.0f} "
        f"| {trial['trial_s']:.1f} | {trial['training_share']:.0%} "
        f"| {trial['before_first_step_s']:.2f} |"
    )


if __name__ == "__main__":
    main()
