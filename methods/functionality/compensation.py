"""Letting the filters that stay stand in for those that go, in the weights that read them.

Where a filter emits about ``a`` times what another does, whoever reads both can read the other
alone, with ``a`` times the first one's weights added; exact for filters that are copies.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.errors import MethodError
from methods.structure.cost import evaluation_mode
from methods.structure.layout import Group, Layout, Member
from methods.structure.plan import PruningPlan

TINY = torch.finfo(torch.float64).tiny
ROUNDING = 1e-6  #: A variance below this share of the mean square is none.


@dataclass(frozen=True, kw_only=True, slots=True)
class Folding:
    """How much of what was removed could be made up for; one filter counts once per reader."""

    folded: int
    refused: int  #: Not enough like any filter of its cluster that stays.


def check_readers(network: nn.Module, layout: Layout) -> None:
    """Refuse a network in which a prunable group is read by other than plain layers.

    Raises:
        MethodError: Which layer it is, or which group is added to a stream that stays.
    """
    for group in layout.groups:
        if group.scattered:
            raise MethodError(
                f"With 'merge' on, every layer that reads a pruned filter must read it alone; what "
                f"{group.name!r} emits is added to a stream. Turn 'merge' off, protect that layer, "
                "or use the layer policy 'inside_blocks'."
            )
        for member in group.inputs:
            reader = network.get_submodule(member.layer)
            plain = type(reader) is nn.Linear or (type(reader) is nn.Conv2d and reader.groups == 1)
            if not plain:  # a parametrised layer computes its weight, and would lose the change
                raise MethodError(
                    f"With 'merge' on, the layers that read pruned filters must be plain nn.Conv2d "
                    f"or nn.Linear; {member.layer!r} is {type(reader).__name__}. Turn 'merge' off, "
                    f"or protect {group.name!r}."
                )


def read_moments(
    network: nn.Module, layout: Layout, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Measure how alike the filters of each group are, as every layer that reads them sees it.

    Returns:
        By :func:`moments_key`, sums over images and positions of the products of each two
        channels, and of each channel with 1: ``[filters + 1, filters + 1]``.
    """
    totals: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(member.layer).register_forward_pre_hook(
            _Recorder(totals, moments_key(group, member), member)
        )
        for group in layout.groups
        for member in group.inputs
    ]
    try:
        with evaluation_mode(network), torch.no_grad():
            for images, _ in batches:
                network(images)
    finally:
        for handle in handles:
            handle.remove()
    return {key: total.float() for key, total in totals.items()}  # added up in double precision


def moments_key(group: Group, member: Member) -> str:
    """Name what ``member`` reads of ``group``."""
    return f"{group.name} -> {member.layer}"


class _Recorder:
    """Adds up the moments of what one layer reads."""

    def __init__(self, totals: dict[str, Tensor], key: str, member: Member) -> None:
        self._totals, self._key = totals, key
        self._channels = torch.tensor(member.channels)  # [filters, channels per filter]

    def __call__(self, reader: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read = inputs[0].movedim(1 if isinstance(reader, nn.Conv2d) else -1, 0)
        rows = read[self._channels.to(read.device)].flatten(1)  # [filters, positions]
        if rows.device.type == "mps":
            rows = rows.cpu()  # no double precision there
        rows = torch.cat([rows, torch.ones_like(rows[:1])]).double()
        self._totals[self._key] = self._totals.get(self._key, 0.0) + rows @ rows.T


@torch.no_grad()
def fold(
    network: nn.Module,
    layout: Layout,
    plan: PruningPlan,
    clusters: Mapping[str, Sequence[int]],
    moments: Mapping[str, Tensor],
    least_fit: float,
) -> Folding:
    """Add what readers take from a removed filter to what they take from one that stays.

    That is the filter of its cluster which explains it best; where none explains enough, or none
    stays, nothing is added.

    Args:
        network: Of full width; the weights of readers change.
        layout: Its layout.
        plan: Filters that stay.
        clusters: Cluster of each filter, by group.
        moments: From :func:`read_moments`, of this network.
        least_fit: R squared that is enough, in [0, 1].
    """
    folded = refused = 0
    for group in layout.groups:
        kept, labels = plan.kept[group.name], clusters[group.name]
        for member in group.inputs:
            weight = network.get_submodule(member.layer).weight
            assert isinstance(weight, Tensor)
            slopes, fits = regressions(moments[moments_key(group, member)])
            for gone in plan.dropped(group.name):
                mates = [i for i in kept if labels[i] == labels[gone]]
                mate = max(mates, key=lambda i: fits[gone][i], default=None)
                if mate is None or fits[gone][mate] < least_fit:
                    refused += 1
                    continue
                share = slopes[gone][mate] * weight[:, list(member.channels[gone])]
                weight[:, list(member.channels[mate])] += share
                folded += 1
    return Folding(folded=folded, refused=refused)


def regressions(moments: Tensor) -> tuple[list[list[float]], list[list[float]]]:
    """Explain each filter as a multiple of each other one.

    Args:
        moments: ``[filters + 1, filters + 1]``, as :func:`read_moments` gives them.

    Returns:
        The multiple, and R squared against the filter's mean: row ``i``, column ``r`` explains
        filter ``i`` by filter ``r``. A filter that never changes is explained by none.
    """
    moments = moments.cpu().double()
    products, sums, count = moments[:-1, :-1], moments[:-1, -1], moments[-1, -1]
    squares = products.diagonal()
    slopes = products / squares.clamp(min=TINY)
    unexplained = squares[:, None] - slopes * products
    spread = (squares - sums.square() / count)[:, None]
    changes = spread > ROUNDING * squares[:, None]
    fits = torch.where(changes, 1 - unexplained / spread.clamp(min=TINY), 0.0)
    return slopes.tolist(), fits.tolist()
