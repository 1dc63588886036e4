"""When and how hard filters go: three curves over the epochs of selection.

Source: one update rule for the soft pruning family. He et al., "Soft Filter Pruning", IJCAI 2018,
arXiv:1808.06866 (SFP); He et al., arXiv:1808.07471 (ASFP); Cai et al., arXiv:2010.09498 (SRFP,
ASRFP); Cai et al., arXiv:2011.03170 (GHFP). One-shot and iterative pruning are settings of it.

Of the filters that a group is to lose, the share ``P`` is *selected* at turn ``t``; weights of
selected filters are multiplied by the softness ``alpha`` and go on training; the share ``lambda``
of them is *hard*: zero with their batch norms, frozen and never taken back. After the last turn
all are hard, so that removing them changes nothing.

A turn comes after every epoch, as published. Where selection has fewer than ``TURNS`` epochs, turns
come within epochs too, evenly by steps: curves have a middle on any budget.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn, optim

from methods.base import PruningMethod, Session, build, prune_lowest
from methods.errors import SettingsError, nearest
from methods.hooks import Step
from methods.state import State
from methods.structure.layout import Group
from methods.structure.plan import PruningPlan, Ratios, removed_count
from methods.structure.surgery import (
    FilterParameter,
    filter_parameters,
    scale_filters,
    soften_filters,
)

SETTLED = 0.9  #: Share of the selection after which all three curves have reached their end.
TURNS = 10  #: Least looks at the filters during a selection that has steps enough for them.


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Curves of one schedule; with ``selection`` 0 all filters go at once, before any training.

    Curves are asked at turn ``t`` of ``turns``, from 0; before any training ``t`` is -1.
    """

    name: str = "one_shot"
    selection: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  #: Share of the trial's epochs.
    share: Literal["constant", "exponential", "cubic", "stairs"] = "constant"  #: Curve of P.
    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 1  #: Steps of the ``stairs``.
    knee: Annotated[float, Field(gt=0.0, lt=1.0)] = 1 / 8  #: Where ``exponential`` reaches 3/4.
    softness: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  #: alpha at the start; decays to 0.
    softness_end: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-5  #: alpha where it is cut to 0.
    hardness: Literal["none", "all", "cubic", "step"] = "all"  #: Curve of lambda.
    harden_at: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5  #: Where ``step`` jumps to 1.

    def __post_init__(self) -> None:
        if 0.0 < self.softness <= self.softness_end:
            raise ValueError(
                f"softness {self.softness} has to decay, so softness_end must lie below it; "
                f"it is {self.softness_end}"
            )

    @classmethod
    def create(cls, settings: Mapping[str, Any] | str | None = None) -> "Schedule":
        """Build a schedule from a preset's name and the settings that differ from it.

        Raises:
            SettingsError: The preset or a setting is unknown, a value is impossible, or a schedule
                that trains is given no epochs.
        """
        given = {"name": settings} if isinstance(settings, str) else dict(settings or {})
        name = given.setdefault("name", "one_shot")
        if name not in PRESETS:
            hint = nearest(str(name), list(PRESETS))
            raise SettingsError("schedule", "name", f"is {name!r}, which is unknown; {hint}")
        schedule = build(cls, f"schedule {name!r}", {**PRESETS[name], **given})
        if schedule.selection == 0.0 and PRESETS[name]:
            raise SettingsError(
                f"schedule {name!r}",
                "selection",
                "is 0: it chooses while it trains. Give it a share of the epochs, or use one_shot.",
            )
        return schedule

    @property
    def trains(self) -> bool:
        """Filters are chosen while the network trains."""
        return self.selection > 0.0

    def epochs(self, budget: int) -> int:
        """Return how many whole epochs of ``budget`` selection takes: one at least, if any.

        Rounded down, so that a share below 1 leaves time to recover on the shortest budget too.
        """
        if self.selection == 0.0:
            return 0
        return min(budget, max(1, math.floor(self.selection * budget + 1e-9)))

    def turns(self, epochs: int) -> int:
        """Return how many turns a selection of ``epochs`` has, as many in each epoch."""
        return epochs * math.ceil(TURNS / epochs)

    @property
    def revision(self) -> int:
        """Of what the settings mean: part of a trial's identity where it is not 1.

        2: counts are rounded down once; a short selection has turns within epochs.
        """
        return 2 if self.selection else 1

    @property
    def is_gradual(self) -> bool:
        """Whether filters of one group are selected, or become hard, at different turns."""
        return self.selection > 0.0 and (
            self.share != "constant" or self.hardness not in ("none", "all")
        )

    def selected_share(self, t: int, turns: int) -> float:
        """Return P at turn ``t`` of ``turns``: the share of the filters to go, in [0, 1].

        Before any training ``t`` is -1; there the smooth curves stand where turn 0 leaves them.
        """
        if self.share == "stairs":
            return min(1.0, (math.floor((t + 1) * self.rounds / turns) + 1) / self.rounds)
        t = max(t, 0)
        if self.share == "constant" or _settled(t, turns):
            return 1.0
        if self.share == "exponential":
            return 1.0 - math.exp(-math.log(4.0) / (self.knee * turns) * t)
        return _cubic(t, turns)

    def soft_factor(self, t: int, turns: int) -> float:
        """Return alpha at turn ``t``: what selected filters are multiplied by, in [0, 1]."""
        t = max(t, 0)
        if self.softness == 0.0 or _settled(t, turns):
            return 0.0
        end = self.softness_end
        return self.softness * math.exp(math.log(end / (self.softness + 0.01 * end)) / turns * t)

    def hard_share(self, t: int, turns: int) -> float:
        """Return lambda at turn ``t``: the hard share of the selected filters, in [0, 1]."""
        if self.hardness in ("none", "all"):
            return float(self.hardness == "all")
        t = max(t, 0)
        if self.hardness == "step":
            return float((t + 1) / turns > self.harden_at)
        return 1.0 if _settled(t, turns) else _cubic(t, turns)

    def counts(self, t: int, turns: int, width: int, ratio: float) -> tuple[int, int]:
        """Return how many of ``width`` filters are selected at turn ``t``, and hard of those.

        ``width * ratio * P``, rounded down once, as the authors' code does: were ``width * ratio``
        rounded first, the last filter would go only when ``P`` is exactly 1. Whatever the curves,
        at the last turn all are hard: what is chosen then is gone.
        """
        share, wanted = self.selected_share(t, turns), ratio * width
        selected = min(width - 1, math.floor(wanted * share + 1e-6))
        if t + 1 == turns:
            return selected, selected
        hard = math.floor(wanted * share * self.hard_share(t, turns) + 1e-6)
        return selected, min(selected, hard)

    def select(
        self, method: PruningMethod, network: nn.Module, ratios: Ratios, session: Session
    ) -> PruningPlan:
        """Choose the filters that stay, training the network on the way if the schedule asks."""
        epochs = self.epochs(session.epochs_left)
        if epochs == 0:
            return prune_lowest(method, session.layout, method.scores(network, session), ratios)
        turns = _Turns(self, method, network, ratios, session, epochs)
        turns.take(-1)
        session.train(
            network,
            epochs,
            after_backward=turns.masks.hold_gradients,
            after_step=turns.after_step,
            after_epoch=turns.after_epoch,
            state=turns.masks,
        )
        return prune_lowest(method, session.layout, turns.ranked(), ratios)


class _Turns:
    """One selection while the network trains: looks at the filters, turn by turn."""

    def __init__(
        self,
        schedule: Schedule,
        method: PruningMethod,
        network: nn.Module,
        ratios: Ratios,
        session: Session,
        epochs: int,
    ) -> None:
        self._schedule, self._method, self._network = schedule, method, network
        self._ratios, self._session = ratios, session
        self._count = schedule.turns(epochs)
        self._per_epoch = self._count // epochs
        self._taken = 0
        self.masks = SoftMasks(network, session.layout.groups)

    def after_step(self, step: Step) -> None:
        """Hold what is hard, and take the turn that is due within the epoch."""
        self.masks.hold_weights(step)
        due = math.floor(step.progress * self._count + 1e-6)
        self._taken = max(self._taken, step.epoch * self._per_epoch)
        if due > self._taken and due % self._per_epoch:  # that of the epoch's end has its own hook
            self._take_with(step.optimizer, due)

    def after_epoch(self, _network: nn.Module, optimizer: optim.Optimizer, epoch: int) -> None:
        """Take the turn at the end of an epoch."""
        self._take_with(optimizer, (epoch + 1) * self._per_epoch)

    def _take_with(self, optimizer: optim.Optimizer, due: int) -> None:
        self._taken = due
        self.take(due - 1)
        self.masks.clear_momentum(optimizer)

    def take(self, t: int) -> None:
        """Rank the filters anew, and scale down as many as turn ``t`` says."""
        masks, layout = self.masks, self._session.layout
        masks.scores = masks.rank(self._method.scores(self._network, self._session))
        for group in layout.groups:
            ratio = self._ratios.get(group.name, 0.0)
            removed_count(group.name, group.width, ratio)  # refuses what is no ratio
            selected, hard = self._schedule.counts(t, self._count, group.width, ratio)
            chosen = self._method.choose(group, masks.scores[group.name], selected)
            masks.apply(group, chosen, hard, self._schedule.soft_factor(t, self._count))

    def ranked(self) -> dict[str, Tensor]:
        """Return the scores of the last turn, hard filters lowest."""
        return self.masks.rank(self.masks.scores)


def _settled(t: int, turns: int) -> bool:
    return (t + 1) / turns >= SETTLED + 1e-9 or t + 1 == turns


def _cubic(t: int, turns: int) -> float:
    return 1.0 - (1.0 - (t + 1) / turns) ** 3


#: Half of the epochs is left to recover, under a cosine 18 % of all learning; a tenth, with which
#: the papers' own schedules would compare, has 0.2 % of it and repairs nothing.
_SOFT: dict[str, Any] = {"selection": 0.5, "hardness": "none"}
_ASYMPTOTIC: dict[str, Any] = {"share": "exponential"}
_SOFTER: dict[str, Any] = {"softness": 1.0}

#: Settings a schedule's name stands for. All but ``one_shot`` choose for the first time before they
#: train: trials start from trained weights, so that even what is hard at once is no blind choice.
PRESETS: dict[str, dict[str, Any]] = {
    "one_shot": {},
    "iterative": {"selection": 0.5, "share": "stairs", "rounds": 3},
    "hfp": {**_SOFT, "hardness": "all"},
    "sfp": _SOFT,
    "asfp": {**_SOFT, **_ASYMPTOTIC},
    "srfp": {**_SOFT, **_SOFTER},
    "asrfp": {**_SOFT, **_ASYMPTOTIC, **_SOFTER},
    "ghfp": {**_SOFT, **_ASYMPTOTIC, **_SOFTER, "hardness": "cubic"},
}


class SoftMasks:
    """Filters that are scaled down while the network trains, and those already hard."""

    def __init__(self, network: nn.Module, groups: tuple[Group, ...]) -> None:
        self._network = network
        self._parameters = {g.name: filter_parameters(network, g) for g in groups}
        self._hard: dict[str, list[int]] = {g.name: [] for g in groups}
        self._rows: list[FilterParameter] | None = []  # of them; None: to be found
        self.scores: dict[str, Tensor] = {}  #: Ranked when last looked at, by group.

    def state_dict(self) -> State:
        """Return which filters are hard, and the scores."""
        hard = {f"hard/{name}": [*latched] for name, latched in self._hard.items()}
        return {**hard, **{f"score/{name}": values for name, values in self.scores.items()}}

    def load_state_dict(self, state: State) -> None:
        """Take over which filters are hard, and the scores."""
        self._hard = {name: [*state[f"hard/{name}"]] for name in self._hard}
        self._rows = None
        self.scores = {name: state[f"score/{name}"] for name in self._hard}

    def rank(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scores with hard filters below all others, so that they stay chosen."""
        ranked = {}
        for name, values in scores.items():
            ranked[name] = values.clone().float()
            ranked[name][self._hard[name]] = -torch.inf
        return ranked

    def apply(self, group: Group, selected: list[int], hard: int, factor: float) -> None:
        """Scale the weights of the selected; the first ``hard`` filters are zero for good."""
        latched = self._hard[group.name]
        fresh = [index for index in selected if index not in latched]
        latched += fresh[: max(0, hard - len(latched))]
        self._rows = None
        soften_filters(self._network, group, [i for i in fresh if i not in latched], factor)
        scale_filters(self._network, group, latched, 0.0)

    @torch.no_grad()
    def hold_gradients(self, _step: Step) -> None:
        """Let no gradient reach a hard filter."""
        for part in self._hard_rows():
            if part.parameter.grad is not None:
                part.by_row(part.parameter.grad)[part.rows] = 0.0

    @torch.no_grad()
    def hold_weights(self, _step: Step) -> None:
        """Keep hard filters at zero whatever the optimizer did."""
        for part in self._hard_rows():
            part.by_row(part.parameter)[part.rows] = 0.0

    @torch.no_grad()
    def clear_momentum(self, optimizer: optim.Optimizer) -> None:
        """Forget what the optimizer remembers of hard filters, which would move them again."""
        for part in self._hard_rows():
            for value in optimizer.state[part.parameter].values():
                if isinstance(value, Tensor) and value.shape == part.parameter.shape:
                    part.by_row(value)[part.rows] = 0.0

    def _hard_rows(self) -> list[FilterParameter]:
        """Return the rows of hard filters; they are brought to the device when they change."""
        if self._rows is None:
            self._rows = [
                replace(part, rows=part.rows[torch.tensor(hard, device=part.rows.device)].flatten())
                for name, hard in self._hard.items()
                if hard
                for part in self._parameters[name]
            ]
        return self._rows
