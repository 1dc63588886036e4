"""The session of one trial: the only way to train, so that everything is charged.

It meters epochs, images and device-seconds by act, keeps to the recipe's budget, hands out
randomness that depends on nothing but the trial's seed and a purpose, and shares statistics that
are the same for many trials.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from methods import NO_STATE, CostTarget, Layout, MethodError, Schedule, State
from methods.base import PruningSchedule
from methods.hooks import Hooks, Trainer
from methods.structure.latency_predictor import LatencyPredictor
from workers.data import DataSet, Split
from workers.errors import BudgetError, TestSplitReadError
from workers.files import SharedFiles
from workers.networks.checkpoints import weights_hash
from workers.networks.folding import folded
from workers.results import Report
from workers.settings import TrialSpec
from workers.training.loop import (
    DivergedError,
    EpochPosition,
    Training,
    autocast,
    channels_last,
    learning_rate,
    make_optimizer,
    train_epoch,
)
from workers.training.measure import Batch, Evaluation, evaluate_each, evaluation_mode
from workers.training.meter import Act, Meter
from workers.training.seeds import derive_seed, fastest_kernels
from workers.training.shared_statistics import (
    StatisticsCost,
    depends_on_recipe,
    load_statistics,
    statistics_name,
    store_statistics,
)
from workers.training.trial_checkpoints import Checkpoint, TrialCheckpoints, restoring

#: Images evaluated at once: on a CPU as many as keep their activations in its caches.
EVALUATION_BATCH = {"cpu": 128}
EVALUATION_BATCH_ELSEWHERE = 1024

FOLDING_IMAGES = 8  #: On which a network with its batch norms folded is held against itself.

#: Steps from which it pays to time the kernels for the shapes of a network first.
TUNING_STEPS = 1000


class TrainingSession(Trainer):
    """Trains within one trial's budget and meters it.

    Args:
        spec: The trial.
        data: Its images, on ``device``.
        device: Where networks train.
        files: Where trials share statistics.
        report: Called after every epoch, with a step that only grows.
        checkpoints: Where to go on, once training comes to that call, and where it is kept how far
            the trial is; None: nowhere.
    """

    def __init__(
        self,
        spec: TrialSpec,
        data: DataSet,
        device: torch.device,
        files: SharedFiles,
        report: Report,
        *,
        checkpoints: TrialCheckpoints | None = None,
    ) -> None:
        self.spec = spec
        self.device = device
        self.seed = spec.seed
        self.meter = Meter(device)
        self.best: dict[Act, float] = {}  #: Best validation accuracy after an epoch, by act.
        self.latest: Evaluation | None = None  #: On the validation split, after the last epoch.
        self.notes: dict[str, float] = {}  #: What the method recorded of its choice.
        self.statistics_computed = 0
        self.statistics_reused = 0
        self.seconds_statistics = 0.0  #: What they cost when they were computed.
        self.steps_per_epoch = data.steps_per_epoch(spec.recipe.batch_size)
        self._data = data
        self._files = files
        self._report = report
        self._steps = 0
        self._reported = 0
        self._paid: dict[str, Mapping[str, Tensor]] = {}  # shared statistics this trial has
        self.trial_state: State = {}  #: What the trial keeps in checkpoints beside the session.
        self._checkpoints = checkpoints
        self._resume = resume = checkpoints.resume if checkpoints else None
        if resume and resume.act == "recover":
            self._steps = resume.first_step  # selection was done when recovery began

    @property
    def steps_left(self) -> int:
        """Optimizer steps left of the budget."""
        return self.spec.recipe.epochs * self.steps_per_epoch - self._steps

    @property
    def epochs_left(self) -> int:
        """Whole epochs left of the budget."""
        return self.steps_left // self.steps_per_epoch

    def epochs_spent(self, *acts: Act) -> float:
        """Return the epochs charged to ``acts``; a call that ended early counts its share."""
        return sum(self.meter.steps[act] for act in acts) / self.steps_per_epoch

    def generator(self, purpose: str) -> torch.Generator:
        """Return a fresh CPU generator that depends on the trial's seed and ``purpose`` only."""
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose))

    def batches(self, images: int, batch_size: int = 128) -> Iterator[Batch]:
        """Yield un-augmented training images in an order that depends on the seed only.

        Args:
            images: How many; at most the training split is given.
            batch_size: The last batch may be shorter.
        """
        left = images
        for batch, labels in self._data.train_batches(
            batch_size, self.generator("batches"), augmentation="none"
        ):
            if left <= 0:
                return
            self.meter.charge(images=min(left, len(labels)))
            yield batch[:left], labels[:left]
            left -= len(labels)

    def reach(self, epochs: float) -> float:
        """Return how far a gradient of 1 at every step moves a parameter in ``epochs`` from here.

        With AdamW that holds for a gradient of any size, since it divides by that.
        """
        recipe, first = self.spec.recipe, self._steps
        momentum = recipe.momentum if recipe.optimizer == "sgd" else 0.0
        reached = remembered = 0.0
        for step in range(first, first + round(epochs * self.steps_per_epoch)):
            remembered = momentum * remembered + 1.0
            moved = 1.0 + momentum * remembered if recipe.nesterov else remembered
            reached += moved * learning_rate(recipe, (step + 0.5) / self.steps_per_epoch)
        return reached

    def charge(self, images: int) -> None:
        """Charge images that a method made itself and passed forward and back, like training's."""
        self.meter.charge(images=images)

    def images(self, count: int) -> Tensor:
        """Return the first images of the validation split, ``[N, C, H, W]``: to look, not learn."""
        images, _ = next(self._data.eval_batches(self._data.val, count))
        return images

    def train_with(self, network: nn.Module, epochs: float, hooks: Hooks) -> None:
        """Train ``network`` by the trial's recipe, continuing its learning-rate curve.

        Every call has an optimizer of its own over the parameters that want gradients. After each
        epoch the network is evaluated on the validation split and the epoch is reported. The data
        order and dropout depend on the seed and on how much of the budget is spent.

        Args:
            network: Trained in place.
            epochs: May end within an epoch.
            hooks: Where they remember something, ``state`` lets a retry of the trial go on within
                this call.

        Raises:
            BudgetError: More than what is left of the budget was asked for.
            CheckpointMismatchError: The checkpoint to go on from is of another network.
            DivergedError: The training or validation loss is not finite.
        """
        steps = round(epochs * self.steps_per_epoch)
        if steps > self.steps_left:
            left = self.steps_left / self.steps_per_epoch
            raise BudgetError(epochs, left, self.spec.recipe.epochs)
        torch.manual_seed(derive_seed(self.seed, f"train/{self._steps}"))
        optimizer = make_optimizer(self.spec.recipe, network)
        training = Training(
            network=network, optimizer=optimizer, method=hooks.state or NO_STATE, device=self.device
        )
        first_step = self._steps
        with (
            channels_last(network, self.device) as memory_format,
            fastest_kernels(steps >= TUNING_STEPS),
        ):
            epoch = self._go_on(training, steps)
            while (taken := self._steps - first_step) < steps:
                outcome = train_epoch(
                    network,
                    optimizer,
                    self._data.train_batches(
                        self.spec.recipe.batch_size,
                        self.generator(f"order/{self._steps}"),
                        augmentation=self.spec.recipe.augmentation,
                    ),
                    self.spec.recipe,
                    EpochPosition(
                        epoch=epoch,
                        first_step=taken,
                        call_steps=steps,
                        trial_steps=self._steps,
                        steps_per_epoch=self.steps_per_epoch,
                    ),
                    hooks,
                    memory_format=memory_format,
                )
                epoch += 1
                self._steps += outcome.steps
                self.meter.charge(steps=outcome.steps, images=outcome.images)
                # Reported before it is kept: a retry goes on behind the checkpoint, so an epoch
                # that was kept first and cut off here would never be reported.
                self._report_epoch(network, outcome.train_loss, outcome.learning_rate)
                if outcome.ended_early:
                    return
                if hooks.state is not None:
                    self._keep(training, first_step, epoch)

    def _go_on(self, training: Training, steps: int) -> int:
        """Put the call where a checkpoint was made, if it was made in this call.

        Returns:
            Epochs of the call that are done.
        """
        found = self._resume
        # A checkpoint belongs to one call, told by its act and the step at which that began: calls
        # before it train again, so that this one starts from the network it started from then.
        if found is None or (found.act, found.first_step) != (self.meter.current, self._steps):
            return 0
        if found.step > self._steps + steps:  # a call for no steps comes before the one meant
            return 0
        with restoring():
            training.load_parts(found.parts)
            self._load_state(found.parts["session"])
        # From here on images come in the order they would have come in: it is drawn from the steps.
        self._steps = found.step
        return found.epoch

    def _keep(self, training: Training, first_step: int, epoch: int) -> None:
        """Write a checkpoint if one is due."""
        kept = self._checkpoints
        if kept is None or not kept.is_due(self._steps, self.steps_per_epoch):
            return
        act = self.meter.current
        with self.meter.act("measure"):  # so that training costs what it does without
            session = {"session": self._state(), "trial": self.trial_state}
            kept.write(
                Checkpoint(
                    act=act,
                    first_step=first_step,
                    step=self._steps,
                    epoch=epoch,
                    parts={**training.parts(), **session},
                )
            )

    def _state(self) -> State:
        return {
            "reported": self._reported,
            "meter": self.meter.state_dict(),
            "best": self.best,
            "latest": asdict(self.latest) if self.latest else None,
            "notes": self.notes,
            "statistics_computed": self.statistics_computed,
            "statistics_reused": self.statistics_reused,
            "seconds_statistics": self.seconds_statistics,
        }

    def _load_state(self, state: State) -> None:
        self._reported = state["reported"]
        self.meter.load_state_dict(state["meter"])
        self.best, self.notes = {**state["best"]}, {**state["notes"]}
        self.latest = Evaluation(**state["latest"]) if state["latest"] else None
        self.statistics_computed = state["statistics_computed"]
        self.statistics_reused = state["statistics_reused"]
        self.seconds_statistics = state["seconds_statistics"]

    def note(self, name: str, value: float) -> None:
        """Record a number about the choice in the trial's result; the last one of a name counts.

        Raises:
            ValueError: The number is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"The note {name!r} must be a finite number; it is {value}.")
        self.notes[name] = float(value)

    def validate(self, network: nn.Module) -> Evaluation:
        """Evaluate ``network`` on the validation split; charged to measuring."""
        return self._evaluate(network, self._data.val)[0]

    def judge(self, network: nn.Module, images: int | None) -> Evaluation:
        """Evaluate ``network`` on the first validation images, in the recipe's number type.

        Args:
            network: Evaluated as it stands.
            images: How many, a random sample; None: all.
        """
        split = self._data.val if images is None else self._data.val.first(images)
        with autocast(self.device, self.spec.recipe), evaluation_mode(network):
            if self.device.type == "cpu" and self.spec.recipe.precision == "float32":
                with self.meter.act("measure"):
                    network = folded(network, self.images(FOLDING_IMAGES))
            return self._evaluate(network, split)[0]

    def test(self, network: nn.Module) -> tuple[Evaluation, Tensor]:
        """Evaluate ``network`` on the test split: once per trial, when all else is done.

        Returns:
            The evaluation, and which images were got right: bool ``[N]``, in test order.

        Raises:
            TestSplitReadError: This was called before, or the trial is one of a search.
        """
        if not self.spec.reads_test:
            raise TestSplitReadError(self._data.info.name)
        return self._evaluate(network, self._data.take_test())

    def _evaluate(self, network: nn.Module, split: Split) -> tuple[Evaluation, Tensor]:
        size = EVALUATION_BATCH.get(self.device.type, EVALUATION_BATCH_ELSEWHERE)
        with self.meter.act("measure"), channels_last(network, self.device) as memory_format:
            batches = self._data.eval_batches(split, size)
            return evaluate_each(network, batches, memory_format)

    def _report_epoch(self, network: nn.Module, train_loss: float, rate: float) -> None:
        act = self.meter.current
        found = self.validate(network)
        if not math.isfinite(found.loss):
            raise DivergedError("validation", self._steps / self.steps_per_epoch, rate)
        self.best[act] = max(self.best.get(act, 0.0), found.accuracy)
        self.latest = found
        self._reported = max(self._reported + 1, -(-self._steps // self.steps_per_epoch))
        self._report(
            self._reported,
            {
                "train_loss": train_loss,
                "val_accuracy": found.accuracy,
                "val_loss": found.loss,
                "learning_rate": rate,
            },
        )

    def statistics(
        self, network: nn.Module, key: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Return what ``compute`` gives, computed once for all trials that would get the same.

        That is every trial with the same starting weights, data, recipe, layers, method settings
        and seed: ratios, target and schedule must not matter to ``compute``, which draws from
        ``generator`` and ``batches`` only and leaves the network as found. Steps and images are
        charged alike, and seconds reported alike, whether it ran here or elsewhere; a trial that
        asks twice pays once. Once this trial has changed the network, its statistics are its own
        and nothing is shared.

        Args:
            network: Network the statistics are about.
            key: Tells apart the statistics of one method.
            compute: Gives tensors by name.

        Returns:
            The tensors, on the session's device.
        """
        name = statistics_name(self.spec, key, self.device)
        shared = self._steps == 0 and weights_hash(network.state_dict()) == self.spec.weights
        if shared and name in self._paid:
            return self._paid[name]
        if shared and (found := load_statistics(self._files, name)):
            stored, cost = found
            self._pay(cost)
            self.statistics_reused += 1
            self._paid[name] = {key: value.to(self.device) for key, value in stored.items()}
            return self._paid[name]
        before = self._spent()
        with self.meter.act("statistics"):
            tensors = {key: value.detach().to(self.device) for key, value in compute().items()}
        after = self._spent()
        cost = StatisticsCost(
            steps=after.steps - before.steps,
            images=after.images - before.images,
            seconds=after.seconds - before.seconds,
        )
        if cost.steps and not depends_on_recipe(self.spec):
            raise MethodError(
                f"The method {self.spec.method!r} trains to compute statistics, so they depend on "
                "the recipe; but they are shared across recipes unless its class says trains. "
                "Override that property to return True."
            )
        self.statistics_computed += 1
        self.seconds_statistics += cost.seconds
        if shared:
            store_statistics(self._files, name, tensors, cost)
            self._paid[name] = tensors
        return tensors

    def _spent(self) -> StatisticsCost:
        self.meter.settle()
        return StatisticsCost(
            steps=self._steps,
            images=self.meter.images["statistics"],
            seconds=self.meter.seconds["statistics"],
        )

    def _pay(self, cost: StatisticsCost) -> None:
        """Charge statistics that were computed by another trial."""
        if cost.steps > self.steps_left:
            raise BudgetError(
                cost.steps / self.steps_per_epoch,
                self.steps_left / self.steps_per_epoch,
                self.spec.recipe.epochs,
            )
        self._steps += cost.steps
        self.seconds_statistics += cost.seconds
        self.meter.steps["statistics"] += cost.steps
        self.meter.images["statistics"] += cost.images


class PruningSession(TrainingSession):
    """A session as a pruning method sees it: it also knows what may go, how much, and when."""

    def __init__(
        self,
        spec: TrialSpec,
        data: DataSet,
        device: torch.device,
        files: SharedFiles,
        report: Report,
        layout: Layout,
        latency: LatencyPredictor | None = None,
        *,
        checkpoints: TrialCheckpoints | None = None,
    ) -> None:
        super().__init__(spec, data, device, files, report, checkpoints=checkpoints)
        self.layout = layout
        self.latency = latency
        self.schedule: PruningSchedule = Schedule.create(spec.schedule)
        self.target: CostTarget | None = spec.target
