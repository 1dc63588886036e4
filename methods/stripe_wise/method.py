"""Pruning of stripes, by a skeleton of one factor per stripe that is trained with the network.

Source: Meng et al., "Pruning Filter in Filter", NeurIPS 2020, arXiv:2009.14410, and the authors'
code.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from methods.base import PruningMethod, Session, register
from methods.criteria.pull import Pull
from methods.errors import MethodError
from methods.hooks import Step
from methods.state import State
from methods.stripe_wise.removal_order import RemovalOrder
from methods.stripe_wise.skeletons import Skeletons
from methods.structure.groups import Unit
from methods.structure.plan import PruningPlan, Ratios

UPDATES = 50  #: Looks at the scores while stripes go, at most one a step.


@register()
@dataclass(frozen=True, kw_only=True)
class StripeWise(PruningMethod):
    """Train a factor for every stripe with the network, and remove the stripes that matter least.

    A *stripe* is what a filter reads at one tap of its kernel. The factors begin at 1, are pulled
    towards 0 by an L1 penalty, and are multiplied into the weights at the end. Stripes go for good
    while the network trains; a filter goes with its last stripe where that can be.

    ``target``: per layer, those of the lowest ``|factor| * norm of the stripe``, as many as the
    trial's ratios say, in a cubic ramp; none any more in the last ``fixed`` of the epochs. Where
    the trial has a target, as many fewer as dead filters save, so that the cost is met; with
    nothing but a target, the lowest of all layers. ``native``: those whose factor is ``delta`` or
    less after any step, as published; what the network then costs is an outcome.

    Departures: the trial's weights are trained ones, where the authors begin from scratch; stripes
    are latched with their momentum cleared, after the step, where the authors' momentum revives
    some; the ranking of ``target`` is ours, for it does not change when a factor is shifted from
    the skeleton to the weights; every layer keeps a stripe; a 1x1 convolution loses filters, inside
    blocks only.
    """

    name: ClassVar[str] = "stripe_wise"
    source: ClassVar[str] = "Meng et al., NeurIPS 2020, arXiv:2009.14410"
    allocates: ClassVar[bool] = True
    schedulable: ClassVar[bool] = False
    unit: ClassVar[Unit] = "stripes"
    mode: Literal["target", "native"] = "target"  #: What decides how much goes: cost, or delta.
    share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5  #: Of the trial's epochs; 0: no training.
    fixed: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25  #: Last share of these; ``target`` only.
    added: ClassVar[tuple[str, ...]] = ("pull",)
    #: Weight of the L1 penalty; null: as large as ``pull`` asks for.
    alpha: Annotated[float, Field(ge=0.0)] | None = None
    #: How far the penalty pulls a factor, which begins at 1; as the published settings do.
    pull: Annotated[float, Field(ge=0.0)] = 0.66
    delta: Annotated[float, Field(gt=0.0)] = 0.01  #: Threshold on the factors; ``native`` only.
    #: Weight decay of the factors; null: the recipe's. It shrinks them more than alpha does.
    weight_decay: Annotated[float, Field(ge=0.0)] | None = None

    @property
    def trains(self) -> bool:
        """The skeleton learns with the network."""
        return True

    @property
    def sets_cost(self) -> bool:
        """Whether the cost is an outcome of alpha and delta."""
        return self.mode == "native"

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        """Train with skeletons and choose the stripes that stay; the skeletons are merged.

        Raises:
            MethodError: In the mode ``native`` the trial has a target or ratios; or the target
                removes more than one stripe per layer leaves.
        """
        if self.sets_cost and (ratios or session.target is not None):
            raise MethodError(
                f"The method {self.name!r} in the mode 'native' cannot be given ratios or a "
                "target: what goes follows from alpha and delta. Use the mode 'target', or run it "
                "without targets and with allocation 'method'."
            )
        layout = session.layout
        order = RemovalOrder(layout, ratios, session.target)
        skeletons = Skeletons(network, layout.groups, weight_decay=self.weight_decay)
        try:
            decide = _Decision(self, skeletons, order)
            if epochs := self._epochs(session.epochs_left):
                skeletons.alpha = self._alpha(skeletons, session, epochs)
                session.train(
                    network,
                    epochs,
                    after_backward=skeletons.penalise,
                    after_step=decide,
                    state=decide,
                )
            decide.finish()
        finally:
            skeletons.merge()
        kept = skeletons.kept()
        stripes = sum(group.width - len(kept[group.name]) for group in layout.groups)
        filters = sum(len(group.filters_gone(kept[group.name])) for group in layout.groups)
        session.note("stripes removed", stripes)
        session.note("filters without stripes", filters)
        return PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)

    def _alpha(self, skeletons: Skeletons, session: Session, epochs: int) -> float:
        """Return the weight of the penalty, and record how far it pulls."""
        factors = skeletons.factors.values()
        if self.alpha is None:
            pull = Pull.of_total(self.pull, factors, session, epochs)
        else:
            pull = Pull.of_coefficient(self.alpha, factors, session, epochs)
        pull.record(self.name, session)
        return pull.coefficient

    def _epochs(self, budget: int) -> int:
        if self.share == 0.0:
            return 0
        return min(budget, max(1, round(self.share * budget)))


class _Decision:
    """Lets stripes go while the network trains.

    Args:
        method: Its settings.
        skeletons: Of the network.
        order: In which stripes go in the mode ``target``.
    """

    def __init__(self, method: StripeWise, skeletons: Skeletons, order: RemovalOrder) -> None:
        self._method, self._skeletons, self._order = method, skeletons, order
        self._next = 1  # of the updates; none is left once the ramp has ended

    def state_dict(self) -> State:
        """Return the next update, what is gone, and what scores are relative to."""
        return {
            "next": self._next,
            **self._order.state_dict(),
            **self._skeletons.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take over the next update, what is gone, and what scores are relative to."""
        self._next = state["next"]
        self._order.load_state_dict(state)
        self._skeletons.load_state_dict(state)

    def __call__(self, step: Step) -> None:
        """Let go what is due after this step."""
        if self._method.sets_cost:
            self._skeletons.remove_below(self._method.delta)
        else:
            self._go_on(min(1.0, step.progress / (1.0 - self._method.fixed)))
        self._skeletons.hold(step)

    def finish(self) -> None:
        """Let go all that is still to go."""
        if not self._method.sets_cost:
            self._go_on(1.0)

    def _go_on(self, done: float) -> None:
        """Follow the ramp to where the share ``done`` of it has passed."""
        if self._next <= done * UPDATES:
            self._next = math.floor(done * UPDATES) + 1
            ramp = 1.0 - (1.0 - done) ** 3
            self._skeletons.remove(self._order.gone(self._skeletons.scores(), ramp))
