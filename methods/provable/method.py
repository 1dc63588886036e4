"""Filter ranking, and allocation over layers, by the largest part a filter has in what reads it.

Source: Liebenwein et al., "Provable Filter Pruning for Efficient Neural Networks", ICLR 2020,
arXiv:1911.07412 (PFP).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import PruningMethod, Session, register
from methods.criteria.allocation import meet_target
from methods.criteria.filter_norm import FilterNorm
from methods.provable.sensitivity import (
    DELTA,
    Rule,
    check_readers,
    sample_size,
    sensitivities,
)
from methods.structure.cost import CostTarget, Counts, output_positions
from methods.structure.layout import Group, Layout
from methods.structure.plan import PruningPlan, Ratios, removed_count

BATCH = 16  # images per forward pass

Reals = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class SensitivityPruning(PruningMethod):
    """What the variants share: sensitivities, measured once, and the allocation they imply.

    The paper asks for the smallest error bound at a given size: with one error for all layers,
    layer ``l`` draws ``m = t S L`` of its filters with replacement, ``S`` being the sum of its
    sensitivities and ``L = ln(8 (positions + 1) kernel / delta)``, and keeps as many as are
    expected to be drawn. Only ``t`` is free, so it is found by bisection. Departures: cost is
    counted exactly, MACs or parameters, where the authors chain layers in the order they are
    defined; layers that must shrink together have one sensitivity, the largest of their readers';
    images come from the training split, where the authors take the validation split; constant
    channels are not folded. The bound is void at useful ratios, so no error is reported.
    """

    source: ClassVar[str] = "Liebenwein et al., ICLR 2020, arXiv:1911.07412"
    allocates: ClassVar[bool] = True
    images: Annotated[int, Field(ge=1)] | None = None  #: Training images; null: as many as eq. 3.
    kernel: Literal["max", "sum"] = "max"  #: Over the positions of a kernel; max as published.
    patches: Literal["max", "mean"] = "max"  #: Over the patches of an image; max as published.
    sample: Annotated[int, Field(ge=1)] | None = None  #: Patches per image and layer; null: all.
    negligible: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  #: Skip patches below x median sum.

    def check(self, network: nn.Module, layout: Layout) -> None:
        """Refuse a layout in which some filters are read by no convolution or linear layer.

        Raises:
            MethodError: Which group it is.
        """
        check_readers(network, layout)

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return the sensitivity of every filter, by group, ``[filters]`` in [0, 1]."""
        found = session.statistics(network, repr(self), lambda: self._measure(network, session))
        return {name: value.float().cpu() for name, value in found.items()}

    def _measure(self, network: nn.Module, session: Session) -> dict[str, Tensor]:
        layout = session.layout
        count = self.images or sample_size(network, layout.input_shape)
        rule = Rule(
            kernel=self.kernel,
            patches=self.patches,
            sample=self.sample,
            negligible=self.negligible,
        )
        batches = (images for images, _labels in session.batches(count, BATCH))
        return sensitivities(network, layout, batches, rule, session.generator("patches"))

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Return the ratios at which one error for all layers costs what ``target`` asks for.

        Raises:
            MethodError: The target removes more than one filter per group leaves.
        """
        measured = SensitivityPruning.scores(self, network, session)
        logs = complexities(network, session.layout)
        draws = [_Draws.of(measured[name], logs[name]) for name in session.layout.cost.groups]

        def counts(t: float) -> Counts:
            return np.array([draw.expected(t) for draw in draws], dtype=np.int64)

        return meet_target(session.layout.cost, target, counts)


def complexities(network: nn.Module, layout: Layout) -> dict[str, float]:
    """Return ``ln(8 (positions + 1) kernel / delta)`` by group, of its largest reader."""
    positions = output_positions(network, layout.input_shape)
    found = {}
    for group in layout.groups:
        sizes = []
        for member in group.inputs:
            weight = network.get_submodule(member.layer).weight
            assert isinstance(weight, Tensor)
            sizes.append((positions[member.layer] + 1) * weight[0, 0].numel())
        found[group.name] = math.log(8 * max(sizes) / DELTA)
    return found


@dataclass(frozen=True, slots=True)
class _Draws:
    """How many different filters of one group are expected when some are drawn."""

    probabilities: Reals  #: Of each filter, per draw.
    rate: float  #: Draws at ``t = 1``: the sum of sensitivities times the complexity.

    @classmethod
    def of(cls, sensitivity: Tensor, complexity: float) -> "_Draws":
        values = sensitivity.double().numpy()
        total = float(values.sum())
        return cls(values / total if total else values, total * complexity)

    def expected(self, t: float) -> int:
        """Return how many filters stay at ``t``: at least one, never those of sensitivity 0."""
        draws = max(1.0, float(np.ceil(t * self.rate)))
        different = float(inclusion(self.probabilities, draws).sum())
        return max(1, math.ceil(different - 1e-9))


def inclusion(probabilities: Reals, draws: float) -> Reals:
    """Return how probable it is that each filter is among ``draws`` with replacement."""
    with np.errstate(divide="ignore"):  # a filter that is always drawn
        missed: Reals = draws * np.log1p(-probabilities)
    included: Reals = -np.expm1(missed)
    return included


@register(aliases={"pfp": {}})
@dataclass(frozen=True, kw_only=True)
class Provable(SensitivityPruning):
    """Keep the filters with the largest sensitivity: what the paper's experiments use.

    With ``ranking: l1`` filters are ranked by the L1 norm and only the allocation is the paper's,
    which tells its two ingredients apart.
    """

    name: ClassVar[str] = "provable"
    ranking: Literal["sensitivity", "l1"] = "sensitivity"  #: What decides within a group.

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return one score per filter, by group, ``[filters]``; the lowest is pruned first."""
        if self.ranking == "l1":
            return FilterNorm(p=1.0).scores(network, session)
        return super().scores(network, session)


@register()
@dataclass(frozen=True, kw_only=True)
class ProvableSampling(SensitivityPruning):
    """Draw the filters that stay, and scale up what reads them, so that sums are kept on average.

    Departure: the authors draw with replacement until as many different filters are expected as
    shall stay; here exactly as many stay, each as probably as in those draws, so that the cost is
    met. A filter that stays with probability ``q`` is read with ``1 / q`` times its weight.
    """

    name: ClassVar[str] = "provable_sampling"
    schedulable: ClassVar[bool] = False
    #: Keep for sure what is drawn at least once on average, and draw the rest: derandomised.
    certain: bool = False

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        """Choose the filters that stay and scale the weights that read them, in place."""
        ratios = self.settled(network, ratios, session)
        measured = self.scores(network, session)
        layout = session.layout
        kept = {}
        for group in layout.groups:
            gone = removed_count(group.name, group.width, ratios.get(group.name, 0.0))
            chances = self._chances(measured[group.name].double().numpy(), group.width - gone)
            chosen = draw(chances, session.generator(f"draw {group.name}"))
            scale_readers(network, group, chosen, 1.0 / chances[list(chosen)])
            kept[group.name] = chosen
        return PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)

    def _chances(self, sensitivity: Reals, count: int) -> Reals:
        """Return the probability to stay by filter; they add up to ``count``."""
        if count >= np.count_nonzero(sensitivity):
            chances: Reals = np.zeros_like(sensitivity)
            chances[np.argsort(-sensitivity, kind="stable")[:count]] = 1.0
            return chances
        probabilities: Reals = sensitivity / sensitivity.sum()
        low, high = 0.0, 1.0
        spread = _capped if self.certain else inclusion
        while spread(probabilities, high).sum() < count:
            high *= 2.0
        for _ in range(100):
            middle = (low + high) / 2
            if spread(probabilities, middle).sum() < count:
                low = middle
            else:
                high = middle
        return spread(probabilities, high)


def _capped(probabilities: Reals, draws: float) -> Reals:
    capped: Reals = np.minimum(1.0, draws * probabilities)
    return capped


def draw(chances: Reals, generator: torch.Generator) -> tuple[int, ...]:
    """Draw as many filters as ``chances`` add up to, each with its own probability.

    Systematic sampling in a drawn order: one offset, then a filter at every whole step along the
    running sum of chances.

    Returns:
        Indices, ascending.
    """
    sure = np.flatnonzero(chances > 1.0 - 1e-9)
    order = torch.randperm(len(chances), generator=generator).numpy()
    order = order[(chances[order] > 0.0) & ~np.isin(order, sure)]
    count = round(float(chances.sum())) - len(sure)
    if count <= 0:
        return tuple(sorted(sure.tolist()))
    ends = np.cumsum(chances[order])
    offset = float(torch.rand((), generator=generator, dtype=torch.float64))
    hits = np.searchsorted(ends * (count / ends[-1]), offset + np.arange(count), side="right")
    return tuple(sorted([*sure.tolist(), *order[hits].tolist()]))


@torch.no_grad()
def scale_readers(
    network: nn.Module, group: Group, filters: tuple[int, ...], factors: Reals
) -> None:
    """Multiply the weights by which layers read some filters of ``group``.

    Args:
        network: Changed in place.
        group: One of its groups.
        filters: Which of its filters.
        factors: One for each of them.
    """
    for member in group.inputs:
        weight = network.get_submodule(member.layer).weight
        assert isinstance(weight, Tensor)
        for index, factor in zip(filters, factors.tolist(), strict=True):
            if factor != 1.0:
                weight[:, list(member.channels[index])] *= factor
