"""A session in a few lines: real training on a few synthetic images, in this process."""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from methods.base import PruningSchedule
from methods.errors import MethodError
from methods.hooks import Hooks, Step, Trainer
from methods.schedule import Schedule
from methods.structure.cost import CostTarget
from methods.structure.latency_predictor import LatencyPredictor
from methods.structure.layout import Layout

BATCH_SIZE = 16
RATE = 0.05
MOMENTUM = 0.9


class TinySession(Trainer):
    """The services of a trial, on the CPU, for tests of methods and schedules.

    The images of a class scatter around a pattern of their own, so there is something to learn.
    Training is plain SGD with momentum and weight decay.

    Args:
        layout: Layout of the network that will be pruned.
        classes: Outputs of that network.
        epochs: Budget; asking for more raises.
        schedule: As for ``Schedule.create``.
        target: What the network must cost, for methods that allocate.
        latency: Predicts its latency, for methods that train against it.
        seed: Seed of the images and of everything that is drawn.
        images: How many there are to train on.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        classes: int,
        epochs: int = 4,
        schedule: Mapping[str, object] | str = "one_shot",
        target: CostTarget | None = None,
        latency: LatencyPredictor | None = None,
        seed: int = 0,
        images: int = 64,
    ) -> None:
        self.layout = layout
        self.device = torch.device("cpu")
        self.seed = seed
        self.target = target
        self.latency = latency
        self.schedule: PruningSchedule = Schedule.create(schedule)
        self.images, self.labels = _images(
            layout.input_shape, classes, self.generator("images"), images
        )
        self.epochs_left = epochs
        self.notes: dict[str, float] = {}
        self.epochs_trained = 0
        self.images_charged = 0

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator that depends on the seed and ``purpose`` only."""
        number = int.from_bytes(purpose.encode(), "big") % 2**31
        return torch.Generator().manual_seed(number * 1000 + self.seed)

    def batches(self, images: int, batch_size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first ``images`` images, or all if there are fewer."""
        for start in range(0, min(images, len(self.images)), batch_size):
            stop = min(start + batch_size, images)
            yield self.images[start:stop], self.labels[start:stop]

    def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
        """Train ``network``; it is in training mode afterwards.

        Raises:
            MethodError: More epochs were asked for than are left.
        """
        if epochs > self.epochs_left:
            raise MethodError(f"{epochs} epochs were asked for and {self.epochs_left} are left.")
        optimizer = optim.SGD(
            [p for p in network.parameters() if p.requires_grad],
            lr=RATE,
            momentum=MOMENTUM,
            weight_decay=5e-4,
        )
        for epoch in range(epochs):
            self.epochs_left -= 1
            order = torch.randperm(
                len(self.images), generator=self.generator(f"order {self.epochs_trained}")
            )
            self.epochs_trained += 1
            network.train()
            batches = torch.split(order, BATCH_SIZE)
            for i, chosen in enumerate(batches):
                step = Step(
                    network=network,
                    optimizer=optimizer,
                    epoch=epoch,
                    progress=(epoch + (i + 1) / len(batches)) / epochs,
                    images=self.images[chosen],
                    labels=self.labels[chosen],
                )
                optimizer.zero_grad()
                loss = F.cross_entropy(network(step.images), step.labels)
                if hooks.loss_term:
                    loss = loss + hooks.loss_term(network)
                loss.backward()  # type: ignore[no-untyped-call]
                if hooks.after_backward:
                    hooks.after_backward(step)
                optimizer.step()
                if hooks.after_step and hooks.after_step(step):
                    return
            if hooks.after_epoch:
                hooks.after_epoch(network, optimizer, epoch)

    def reach(self, epochs: int) -> float:
        """Return how far a gradient of 1 at every step moves a parameter in ``epochs``."""
        steps = epochs * -(-len(self.images) // BATCH_SIZE)
        return RATE * sum(1.0 - MOMENTUM ** (i + 1) for i in range(steps)) / (1.0 - MOMENTUM)

    def charge(self, images: int) -> None:
        """Count the images in ``images_charged``."""
        self.images_charged += images

    def statistics(
        self, network: nn.Module, key: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Return what ``compute`` gives; nothing is shared between tests."""
        return compute()

    def note(self, name: str, value: float) -> None:
        """Keep the number in ``notes``."""
        self.notes[name] = float(value)


def _images(
    shape: tuple[int, int, int], classes: int, generator: torch.Generator, count: int
) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % classes
    patterns = torch.randn(classes, *shape, generator=generator)
    noise = torch.randn(count, *shape, generator=generator)
    return patterns[labels] + noise, labels
