"""What a network's layout is made of: groups of layers that lose the same filters, and a policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from methods.structure.cost import Axis, CostModel

Shape = tuple[int, int, int]
Unit = Literal["filters", "stripes"]  #: What a method prunes.
PolicyKind = Literal["inside_blocks", "scatter", "coupled", "every_layer", "stripes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPolicy:
    """Which groups may lose filters.

    ``inside_blocks`` prunes convolutions whose outputs stay inside a residual block; ``scatter``
    also the last one of each block (and the stem, unless protected), whose outputs are then added
    into the stream by index; ``coupled`` also whole streams. ``every_layer`` is ``coupled`` for
    layers of more kinds: hidden linear layers, transposed convolutions and those of one or three
    dimensions lose filters too, and a convolution in groups, or a norm over groups of channels,
    loses whole groups.

    ``stripes`` is for methods that prune stripes: every spatial convolution, whatever reads it,
    and as plain filters the 1x1 convolutions that ``inside_blocks`` prunes.
    """

    kind: PolicyKind = "inside_blocks"
    protect: tuple[str, ...] = ()  #: Patterns of layer names that keep all filters.
    protect_stem: bool = True  #: The first convolution keeps all filters.

    @property
    def unit(self) -> Unit:
        """What is pruned under it."""
        return "stripes" if self.kind == "stripes" else "filters"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One layer that shrinks with a group, and which of its channels belong to which filter."""

    layer: str  #: Module name; of a scale per channel that of the parameter.
    channels: tuple[tuple[int, ...], ...]  #: Channel indices, by filter of the group.


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Layers that must lose the same filters together.

    Where a convolution or a norm works in groups of channels, a filter of the group is all that
    goes with one of these.

    Where a convolution is pruned by the stripe, ``width`` counts stripes: index ``n * taps + t`` is
    what filter ``n`` reads at tap ``t`` of its kernel, row by row. A filter goes with its last
    stripe; without ``outputs`` it cannot go and stays as a row of zeros.
    """

    name: str  #: Its first producer.
    width: int  #: Filters of the dense network, or stripes.
    producers: tuple[str, ...]  #: Convolutions, or linear layers, whose filters these are.
    norms: tuple[str | None, ...]  #: Batch norm behind each producer.
    outputs: tuple[
        Member, ...
    ]  #: Everything that emits the group's channels: producers, norms, depthwise.
    inputs: tuple[Member, ...]  #: Layers that read them.
    fused: bool = False  #: Its channels pass a layer that mixes or scales them as one.
    scattered: bool = False  #: The stream it feeds keeps its width, with zeros for what went.
    taps: int = 1  #: Stripes of one filter; 1: whole filters are pruned.

    @property
    def stage(self) -> str:
        """Name shared by the groups that take one ratio when a sweep searches per stage."""
        return f"width{self.width}"

    @property
    def filters(self) -> int:
        """Filters of the dense network."""
        return self.width // self.taps

    def filters_gone(self, kept: Sequence[int]) -> list[int]:
        """Return the filters of which nothing stays, ascending, when ``kept`` stay."""
        alive = {index // self.taps for index in kept}
        return [index for index in range(self.filters) if index not in alive]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The prunable structure of one network at one input size."""

    groups: tuple[Group, ...]
    cost: CostModel
    policy: LayerPolicy
    input_shape: Shape
    left_whole: Mapping[str, str] = field(default_factory=dict)
    #: Why a convolution keeps all its filters, by its name.

    @property
    def widths(self) -> dict[str, int]:
        """Dense filters or stripes, by group."""
        return {group.name: group.width for group in self.groups}

    def cost_of(self, axis: Axis, kept: Mapping[str, Sequence[int]]) -> int:
        """Return MACs or parameters when the filters or stripes ``kept`` stay, by group."""
        counts = np.array([len(kept[name]) for name in self.cost.groups], dtype=np.int64)
        alive = [
            group.filters - len(group.filters_gone(kept[group.name]))
            for group in self.groups
            if group.name in self.cost.striped
        ]
        return self.cost.cost(axis, counts, np.array(alive, dtype=np.int64))
