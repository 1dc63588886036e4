"""Where a method reaches into training: the hooks of one call, as one record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn, optim

from methods.state import Stateful


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of training, as its hooks see it."""

    network: nn.Module
    optimizer: optim.Optimizer
    epoch: int  #: Epoch of this call to ``train``, from 0.
    progress: float  #: Share of this call's steps that are done, in [0, 1].
    images: Tensor  #: ``[N, C, H, W]``
    labels: Tensor  #: ``[N]``


StepHook = Callable[[Step], bool | None]
EpochHook = Callable[[nn.Module, optim.Optimizer, int], None]
LossTerm = Callable[[nn.Module], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What runs within one call to ``train``, and what it remembers."""

    after_backward: StepHook | None = None  #: Gradients are there, no step taken yet.
    after_step: StepHook | None = None  #: True ends the call early.
    after_epoch: EpochHook | None = None  #: Given the epoch of the call, from 0.
    loss_term: LossTerm | None = None  #: Scalar added to the loss, in float32.
    state: Stateful | None = None  #: All that the hooks remember; None: it cannot be kept.


class Trainer(Protocol):
    """Trains networks; a session inherits the call and says how by :meth:`train_with`."""

    def train(
        self,
        network: nn.Module,
        epochs: int,
        *,
        after_backward: StepHook | None = None,
        after_step: StepHook | None = None,
        after_epoch: EpochHook | None = None,
        loss_term: LossTerm | None = None,
        state: Stateful | None = None,
    ) -> None:
        """Train ``network`` by the sweep's recipe.

        A trial that is interrupted goes on within the call where ``state`` gives all that the hooks
        remember beside the network (``NO_STATE``: nothing); without, the call begins again.

        Args:
            network: Trained in place.
            epochs: At most what is left of the budget.
            after_backward: Sees the gradients before the step.
            after_step: May return True to end the call; only what was trained is charged.
            after_epoch: Runs before the validation split is looked at.
            loss_term: Scalar added to the loss.
            state: What the hooks remember.
        """
        hooks = Hooks(
            after_backward=after_backward,
            after_step=after_step,
            after_epoch=after_epoch,
            loss_term=loss_term,
            state=state,
        )
        self.train_with(network, epochs, hooks)

    def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
        """Train ``network`` as :meth:`train` does."""
