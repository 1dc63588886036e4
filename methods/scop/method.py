"""Filter ranking against a control group: filters that a control can replace are redundant.

Source: Tang et al., "SCOP: Scientific Control for Reliable Neural Network Pruning", NeurIPS 2020,
arXiv:2010.10732, and the authors' code.
"""

import copy
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn, optim

from methods.base import PruningMethod, Session, register
from methods.errors import MethodError
from methods.hooks import Step
from methods.scop.knockoffs import Construction, Knockoff, make_knockoff
from methods.state import State, load_optimizer_state, optimizer_state
from methods.structure.layout import Group, Layout
from methods.structure.plan import PruningPlan, Ratios

CHECK_STEPS = 10  #: Steps between two looks at how many factors have come to an end.


@register()
@dataclass(frozen=True, kw_only=True)
class Scop(PruningMethod):
    """Score each filter by how far it beats its control when the two are mixed to lower the loss.

    Weights stand still and one factor ``beta`` per filter learns: the real stream continues with
    ``beta * a + (1 - beta) * control``, the control stream is the dense network's. The score is
    ``|scale| * (2 beta - 1)``, with the scale of the batch norm behind the filter, 1 where there
    is none. Learning is charged to the trial's epochs, and ends early when most factors have come
    to 0 or 1, where nothing but the scale would rank them. The table serves every ratio and
    schedule; a schedule that trains does not make it anew.

    Departures: batches and augmentation are the recipe's; a control is another image of the batch,
    where the authors draw it from a generator network that was not published; batch norms keep
    their statistics unless ``batch_norm`` is ``joint``; a group with several producers has one
    factor per filter.
    """

    name: ClassVar[str] = "scop"
    source: ClassVar[str] = "Tang et al., NeurIPS 2020, arXiv:2010.10732"
    knockoff: Construction = "permutation"  #: How control images are made.
    batch_norm: Literal["frozen", "joint"] = "frozen"  #: Statistics: kept, or of both streams.
    start: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5  #: Factor of every filter at the start.
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.15  #: Of the trial's epochs; one at least.
    steps: Annotated[int, Field(ge=1)] | None = None  #: End after so many steps; null: all.
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.004  #: Of Adam; a step moves about as far.
    saturation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5  #: End when so many are at 0 or 1.
    images: Annotated[int, Field(ge=2)] = 2048  #: Training images ``pca_gaussian`` is fitted to.

    @property
    def trains(self) -> bool:
        """Its factors learn on the images and their knockoffs."""
        return True

    def check(self, network: nn.Module, layout: Layout) -> None:
        """Refuse joint statistics for a network without batch norms.

        Raises:
            MethodError: There are none.
        """
        if self.batch_norm == "joint" and not _norms(network):
            raise MethodError(
                f"The method {self.name!r} has batch_norm 'joint', and {type(network).__name__} "
                "has no batch norm. Leave the setting out."
            )

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return the score of every filter, by group, ``[filters]`` within ``+-|scale|``.

        Raises:
            MethodError: The trial has no epoch left to learn in.
        """
        found = session.statistics(network, repr(self), lambda: self._learn(network, session))
        return {g.name: found[f"score/{g.name}"].float().cpu() for g in session.layout.groups}

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        """Learn once, then choose by the session's schedule.

        Raises:
            MethodError: The trial has no epoch left to learn in.
        """
        ratios = self.settled(network, ratios, session)
        known = _Known(table=self.scores(network, session))
        return session.schedule.select(known, network, ratios, session)

    def _learn(self, network: nn.Module, session: Session) -> dict[str, Tensor]:
        """Return scores and factors by group, and the share of factors that came to 0 and to 1."""
        if session.epochs_left < 1:
            raise MethodError(
                f"The method {self.name!r} learns for an epoch at least, and the trial has "
                f"{session.epochs_left} left. Raise recipe.epochs."
            )
        draws = session.generator("knockoff")
        knockoff = make_knockoff(
            self.knockoff,
            lambda: torch.cat([images for images, _labels in session.batches(self.images)]),
            draws,
        )
        streams = TwoStreams(
            copy.deepcopy(network),
            session.layout,
            knockoff,
            start=self.start,
            joint=self.batch_norm == "joint",
        )
        learning = _Learning(self, streams, draws)
        epochs = max(1, round(self.share * session.epochs_left))
        session.train(
            streams,
            epochs,
            after_backward=learning.learn,
            after_step=learning.is_enough,
            state=learning,
        )
        at_0, at_1 = streams.ended()
        found = {"share/at 0": torch.tensor(at_0), "share/at 1": torch.tensor(at_1)}
        for group, factor in zip(session.layout.groups, streams.factors, strict=True):
            found[f"factor/{group.name}"] = factor.detach()
            found[f"score/{group.name}"] = _scale(network, group) * (2.0 * factor.detach() - 1.0)
        return found


class _Learning:
    """Lets the factors learn, and says when it is enough.

    Args:
        method: Its settings.
        streams: Whose factors learn.
        draws: What the control images are drawn from.
    """

    def __init__(self, method: Scop, streams: "TwoStreams", draws: torch.Generator) -> None:
        self._method, self._streams, self._draws = method, streams, draws
        self._adam = optim.Adam(streams.factors, lr=method.learning_rate, betas=(0.5, 0.9))
        self._taken = 0  # steps

    def learn(self, _step: Step) -> None:
        """Step the factors."""
        self._adam.step()
        self._adam.zero_grad()  # leaves nothing for the recipe's optimizer to do
        self._streams.clamp()

    def is_enough(self, _step: Step) -> bool:
        """Say whether the steps are taken, or most factors have come to an end."""
        self._taken += 1
        if self._taken == self._method.steps:
            return True
        if self._taken % CHECK_STEPS:
            return False
        return sum(self._streams.ended()) >= self._method.saturation

    def state_dict(self) -> State:
        """Return the steps taken, the draws, and what Adam remembers; factors are the network's."""
        remembered = optimizer_state(self._adam, self._streams.factors.named_parameters())
        return {"taken": self._taken, "draws": self._draws.get_state(), **remembered}

    def load_state_dict(self, state: State) -> None:
        """Take over the steps taken, the draws, and what Adam remembers."""
        remembered = {**state}
        self._taken = remembered.pop("taken")
        self._draws.set_state(remembered.pop("draws"))
        load_optimizer_state(self._adam, self._streams.factors.named_parameters(), remembered)


@dataclass(frozen=True, kw_only=True)
class _Known(PruningMethod):
    """Ranks by a table."""

    name: ClassVar[str] = Scop.name
    table: Mapping[str, Tensor]

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return the table."""
        return self.table


class TwoStreams(nn.Module):
    """Runs a network on real images and their controls, and mixes the feature maps of the two.

    It does so whenever it is run with gradients; without, it is the dense network. The streams are
    two passes; only joint statistics need them in one batch, real images first. Either way the
    output is that of the real images.

    Args:
        network: Changed for good; a copy of the network that is pruned. Only the factors learn.
        layout: The groups that get factors.
        knockoff: Makes control images.
        start: Every factor at the start.
        joint: Let batch norms take the statistics of both streams.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        knockoff: Knockoff,
        *,
        start: float,
        joint: bool,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        device = next(network.parameters()).device
        self.factors = nn.ParameterList(
            torch.full((group.width,), start, device=device) for group in layout.groups
        )  #: One per filter, by group, in [0, 1].
        self._knockoff, self._joint = knockoff, joint
        self._norms = _norms(network) if joint else []
        self._controls: defaultdict[str, deque[Tensor]] = defaultdict(deque)
        self._is_control = False
        for norm in self._norms:
            norm.track_running_stats = False  # the dense network's are kept for evaluation
        for group, factor in zip(layout.groups, self.factors, strict=True):
            for producer in group.producers:
                network.get_submodule(producer).register_forward_hook(
                    lambda _module, _inputs, output, name=producer, factor=factor: self._mix(
                        output, name, factor
                    )
                )

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to logits, ``[N, classes]``."""
        if not torch.is_grad_enabled():
            dense: Tensor = self.network(images)
            return dense
        self.network.eval()
        controls = self._knockoff(images)
        if self._joint:
            for norm in self._norms:
                norm.train()
            logits: Tensor = self.network(torch.cat([images, controls]))
            return logits[: len(images)]
        self._controls.clear()
        self._is_control = True
        with torch.no_grad():
            self.network(controls)
        self._is_control = False
        mixed: Tensor = self.network(images)
        return mixed

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring every factor back into [0, 1]."""
        for factor in self.factors:
            factor.clamp_(0.0, 1.0)

    @torch.no_grad()
    def ended(self) -> tuple[float, float]:
        """Return the share of factors at 0, and at 1."""
        factors = torch.cat([*self.factors])
        return float((factors <= 0.0).float().mean()), float((factors >= 1.0).float().mean())

    def _mix(self, output: Tensor, name: str, factor: Tensor) -> Tensor | None:
        if self._is_control:
            self._controls[name].append(output.clone())  # what follows may work in place
            return None
        if not torch.is_grad_enabled():
            return None
        weight = factor.to(output.dtype).reshape(1, -1, 1, 1)
        if not self._joint:
            return torch.lerp(self._controls[name].popleft(), output, weight)
        real, control = output.chunk(2)
        return torch.cat([torch.lerp(control, real, weight), control])


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def _scale(network: nn.Module, group: Group) -> Tensor:
    """Return the absolute batch-norm scale of each filter, ``[filters]``, the producers' mean."""
    device = next(network.parameters()).device
    scales = []
    for name in group.norms:
        scale = network.get_submodule(name).weight if name else None
        known = scale.detach().abs() if isinstance(scale, Tensor) else torch.ones(group.width)
        scales.append(known.to(device))
    return torch.stack(scales).mean(dim=0)
