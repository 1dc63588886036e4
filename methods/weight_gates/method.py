"""Gates that read the weights of each filter and learn, with the network, which to close.

Source: Li et al., "Weight-Dependent Gates for Differentiable Neural Network Pruning", ECCV 2020
Workshops, and "Weight-Dependent Gates for Network Pruning", TCSVT 2022, arXiv:2007.02066 (W-Gates).
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn, optim

from methods.base import PruningMethod, Session, prune_lowest, register
from methods.criteria.allocation import check_reachable, meet_target
from methods.errors import MethodError
from methods.hooks import Step
from methods.state import State, load_optimizer_state, optimizer_state
from methods.structure.cost import CostModel, CostTarget, Counts
from methods.structure.latency_predictor import PredictorSettings
from methods.structure.layout import Layout
from methods.structure.plan import PruningPlan, Ratios, removed_count
from methods.weight_gates.gates import Estimator, GateRule, Gates

TOO_SOON = 0.05  #: Share of the phase before which no choice can have been learned.
RESTARTS = 3  #: Times a phase that met its target too soon begins again, more gently.
_NUMBERS = ("alpha", "share", "steps", "_gate_rate", "_progress", "_patience")  # of a phase

Logits = Mapping[str, Tensor]  #: By group, ``[filters]``; below 0: closed.


@register(aliases={"free_gates": {"weight_dependent": False}})
@dataclass(frozen=True, kw_only=True)
class WeightGates(PruningMethod):
    """Train gates and weights together until the network with closed gates is cheap enough.

    Each step minimises ``cross-entropy + alpha log(1 + cost / dense cost)``; the phase ends when
    the open filters cost what the target asks for, and the gates are frozen. One threshold on all
    logits, near 0, then makes the cost exact. Given ratios in place of a target, the phase ends at
    the cost of those ratios, and each group keeps its largest logits. ``alpha`` doubles when half
    of the phase has passed without an end, and again after half of what is left; a phase that ends
    at once begins again with half of ``alpha`` and of the gates' learning rate.

    With cost ``latency`` the loss has the latency that a predictor, trained on networks measured
    on the device before the sweep's trials, gives for the open filters; the phase ends at the
    same target all the same, so that trials compare at equal cost.

    Departures, where the papers are silent or no code was published: filters are read by how they
    differ from their layer mates; the cost is relative to the dense one, so that ``alpha`` has no
    unit; a share of each group cannot close; what tells filters apart learns by Adam, and the
    offsets of the groups in proportion to their gradients, so that the price decides where most
    goes: Adam would close all groups alike. Batch norms behind closed filters see other inputs than
    before: recovery adapts them, after the recalibration that every arm gets.
    """

    name: ClassVar[str] = "weight_gates"
    source: ClassVar[str] = "Li et al., TCSVT 2022, arXiv:2007.02066"
    allocates: ClassVar[bool] = True
    schedulable: ClassVar[bool] = False
    weight_dependent: bool = True  #: False: logits are parameters, the control.
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  #: Of the trial's epochs; one at least.
    cost: Literal["macs", "latency"] = "macs"  #: In the loss; macs: what the target counts.
    alpha: Annotated[float, Field(gt=0.0)] = 1.0  #: Weight of the cost.
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None  #: Of the gates; null: auto.
    weight_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1  #: Times the recipe's learning rate.
    estimator: Estimator = "polynomial"  #: Of the gradient of a step; polynomial as published.
    start: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.25  #: Every logit at the start.
    floor: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  #: Share of a group that cannot close.
    detached: bool = True  #: Gradients do not reach weights through the gates that read them.
    samples: Annotated[int, Field(ge=20)] = 1000  #: Networks timed to learn latency from.
    batch_size: Annotated[int, Field(ge=1)] | None = None  #: Of those; null: 128, on a CPU 32.

    @property
    def trains(self) -> bool:
        """Gates learn with the network."""
        return True

    @property
    def predictor(self) -> PredictorSettings | None:
        """How latency is learned; None with cost ``macs``."""
        if self.cost != "latency":
            return None
        return PredictorSettings(samples=self.samples, batch_size=self.batch_size)

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        """Train gates and weights, then choose by the logits at which the gates were frozen.

        Raises:
            MethodError: The trial has no epoch left to learn in, or its target cannot be met.
        """
        layout = session.layout
        if not ratios and session.target is not None:
            logits = self._learn(network, session.target, session)
            ratios = _ratios_at(layout.cost, session.target, logits, self._rule)
        elif (goal := _goal_of(ratios, layout, session.target)) is not None:
            logits = self._learn(network, goal, session)
        else:  # nothing is to go, so there is nothing to learn
            logits = {group.name: torch.zeros(group.width) for group in layout.groups}
        plan = prune_lowest(self, layout, logits, ratios)
        if session.latency is not None:
            kept = [len(plan.kept[name]) for name in layout.cost.groups]
            predicted = session.latency.latency_ms(torch.tensor(kept))
            session.note("predicted_latency_ms", float(predicted))
            session.note("predicted_dense_latency_ms", session.latency.dense_ms)
        return plan

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Train gates and weights; return what they leave at ``target``."""
        logits = self._learn(network, target, session)
        return _ratios_at(session.layout.cost, target, logits, self._rule)

    @property
    def _rule(self) -> GateRule:
        return GateRule(
            start=self.start,
            floor=self.floor,
            estimator=self.estimator,
            weight_dependent=self.weight_dependent,
            detached=self.detached,
        )

    def _learn(self, network: nn.Module, target: CostTarget, session: Session) -> Logits:
        """Train until ``target`` is met or the phase is over; return the logits of the last step.

        The network is trained on the way.
        """
        if session.epochs_left < 1:
            raise MethodError(
                f"The method {self.name!r} learns for an epoch at least, and the trial has "
                f"{session.epochs_left} left. Raise recipe.epochs."
            )
        if self.cost == "latency" and session.latency is None:
            raise MethodError(
                f"The method {self.name!r} with cost 'latency' needs a latency predictor, and the "
                "session has none. A sweep measures one; elsewhere use cost 'macs'."
            )
        check_reachable(session.layout.cost, target)
        epochs = max(1, round(self.share * session.epochs_left))
        before = copy.deepcopy(network.state_dict())
        alpha, rate, steps = self.alpha, 1.0, 0
        for chance in range(RESTARTS + 1):
            phase = _Phase(self, network, session, target, alpha=alpha, rate=rate)
            with phase.gates.attached():
                session.train(
                    network,
                    epochs,
                    after_backward=phase.learn,
                    after_step=phase.is_over,
                    loss_term=phase.cost_term,
                    state=phase,
                )
            steps += phase.steps
            if not phase.too_soon or chance == RESTARTS or session.epochs_left < epochs:
                break
            network.load_state_dict(before)
            alpha, rate = alpha / 2, rate / 2
        session.note("gate_steps", steps)
        session.note("gate_alpha", phase.alpha)
        session.note("cost_at_freeze", phase.share)
        session.note("gates_outside_support", phase.gates.outside)
        return {name: logits.cpu() for name, logits in phase.gates.logits.items()}


class _Phase:
    """Gates and weights learning together, from open gates to the target.

    Args:
        method: Its settings.
        network: Trained in place.
        session: The trial.
        target: Where the phase ends.
        alpha: Weight of the cost at the start.
        rate: Factor of the gates' learning rate.
    """

    def __init__(
        self,
        method: WeightGates,
        network: nn.Module,
        session: Session,
        target: CostTarget,
        *,
        alpha: float,
        rate: float,
    ) -> None:
        self.gates = Gates(network, session.layout, method._rule)
        self.alpha = alpha
        self.share = 1.0  #: What the open filters cost, of the dense network.
        self.steps = 0
        self._method, self._target, self._rate = method, target, rate
        self._model, self._device = session.layout.cost, session.device
        self._latency = session.latency if method.cost == "latency" else None
        self._adam = optim.Adam(self.gates.directions)
        self._gate_rate = 0.0  # until the first step
        self._rates: list[float] = []  # of the recipe's optimizer at this step
        self._progress, self._patience = 0.0, 0.5

    @property
    def is_met(self) -> bool:
        """The open filters cost no more than the target."""
        return self.share <= 1.0 - self._target.reduction

    @property
    def too_soon(self) -> bool:
        """The target was met before anything can have been learned."""
        return self.is_met and self._progress < TOO_SOON

    def cost_term(self, _network: nn.Module) -> Tensor:
        """Return ``alpha log(1 + cost)``, the cost relative to the dense network's."""
        axis, counts = self._target.axis, self.gates.counts()
        cost = self._model.soft_cost(axis, counts) / self._model.dense(axis)
        self.share = float(cost.detach())
        if self._latency is not None:
            cost = self._latency.latency_ms(counts) / self._latency.dense_ms
        return (self.alpha * torch.log1p(cost)).float().to(self._device)

    def learn(self, step: Step) -> None:
        """Step the gates, and slow down the weights' step that follows."""
        if not self._gate_rate:
            self._set_gate_rate(self._learning_rate(step))
        self._adam.step()
        self._adam.zero_grad()
        self._step_offsets()
        self._rates = [group["lr"] for group in step.optimizer.param_groups]
        for group in step.optimizer.param_groups:
            group["lr"] *= self._method.weight_rate

    def state_dict(self) -> State:
        """Return how far the phase is, the gates, and what Adam remembers of them."""
        remembered = optimizer_state(self._adam, self.gates.named_parameters())
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            **self.gates.state_dict(),
            **{f"adam/{path}": value for path, value in remembered.items()},
        }

    def load_state_dict(self, state: State) -> None:
        """Take over how far the phase is, the gates, and what Adam remembers of them."""
        for name in _NUMBERS:
            setattr(self, name, state[name])
        self.gates.load_state_dict(state)
        remembered = {
            path.removeprefix("adam/"): value
            for path, value in state.items()
            if path.startswith("adam/")
        }
        load_optimizer_state(self._adam, self.gates.named_parameters(), remembered)
        self._set_gate_rate(self._gate_rate)

    def _set_gate_rate(self, rate: float) -> None:
        self._gate_rate = rate
        for group in self._adam.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def _step_offsets(self) -> None:
        """Move the offset with the largest gradient by the gates' rate, others in proportion."""
        offsets = self.gates.offsets
        pull = torch.cat([torch.zeros_like(o) if o.grad is None else o.grad for o in offsets])
        moves = self._gate_rate * pull / pull.abs().max().clamp(min=1e-12)
        for offset, move in zip(offsets, moves, strict=True):
            offset.sub_(move)
            offset.grad = None

    def is_over(self, step: Step) -> bool:
        """Say whether the target is met; ask for more pressure if it should be by now."""
        for group, rate in zip(step.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        self.steps += 1
        self._progress = step.progress
        if self.is_met or step.progress >= 1.0:
            self.gates.freeze()
        if self._patience <= step.progress < 1.0:
            self.alpha *= 2.0
            self._patience = (1.0 + self._patience) / 2.0
        return self.is_met

    def _learning_rate(self, first: Step) -> float:
        """Return the gates' rate: unless it is set, one that closes a gate in half of the phase."""
        steps = 1.0 / first.progress
        rate = self._method.learning_rate or self._method.start / max(1.0, 0.5 * steps)
        return rate * self._rate


def _goal_of(ratios: Ratios, layout: Layout, target: CostTarget | None) -> CostTarget | None:
    """Return what ``ratios`` come to as a target; None where they remove nothing."""
    axis, model = target.axis if target else "macs", layout.cost
    widths = zip(model.groups, model.widths, strict=True)
    kept = [width - removed_count(name, width, ratios.get(name, 0.0)) for name, width in widths]
    reduction = 1.0 - model.cost(axis, np.array(kept, dtype=np.int64)) / model.dense(axis)
    return CostTarget(axis=axis, reduction=reduction) if reduction > 0.0 else None


def _ratios_at(model: CostModel, target: CostTarget, logits: Logits, rule: GateRule) -> Ratios:
    """Return the ratios that meet ``target`` with one threshold on all logits."""
    return meet_target(model, target, _counts_above(model, logits, rule))


def _counts_above(model: CostModel, logits: Logits, rule: GateRule) -> Callable[[float], Counts]:
    """Return how many filters stay, by scale: those with a logit above ``-log(scale)``."""
    ordered = [np.sort(logits[name].double().numpy()) for name in model.groups]
    least = [rule.least(len(values)) for values in ordered]

    def counts(scale: float) -> Counts:
        threshold = -np.log(scale)
        above = [len(values) - int(np.searchsorted(values, threshold)) for values in ordered]
        return np.maximum(np.array(above, dtype=np.int64), least)

    return counts
