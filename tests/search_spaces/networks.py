"""Cost models of known shapes, without building the networks."""

from collections.abc import Sequence
from dataclasses import dataclass

from methods.structure.cost import CostModel, Term


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedGroup:
    """A prunable group, reduced to what a search space reads."""

    name: str
    width: int
    stage: str


def residual(blocks: Sequence[tuple[int, int, int]]) -> tuple[list[NamedGroup], CostModel]:
    """Return groups and costs of a residual network whose blocks hold one prunable layer each.

    Args:
        blocks: (block width, stage width, positions) of each block; its first 3x3 convolution is
            prunable, its second gives back the stage width.
    """
    groups: list[NamedGroup] = []
    terms: list[Term] = []
    for i, (width, outer, positions) in enumerate(blocks):
        name = f"layer{outer}.{i}.conv1"
        groups.append(NamedGroup(name=name, width=width, stage=f"stage{outer}"))
        reads = Term(
            macs_unit=9 * positions,
            params_unit=9,
            out_by_group={name: 1},
            in_fixed=outer,
            in_by_group={},
        )
        emits = Term(
            macs_unit=9 * positions,
            params_unit=9,
            out_fixed=outer,
            out_by_group={},
            in_fixed=0,
            in_by_group={name: 1},
        )
        terms += [reads, emits]
    terms.append(
        Term(
            macs_unit=1,
            params_unit=1,
            out_fixed=10,
            out_by_group={},
            in_fixed=blocks[-1][1],
            in_by_group={},
        )
    )
    return groups, CostModel({g.name: g.width for g in groups}, terms)


def chain(widths: Sequence[int]) -> tuple[list[NamedGroup], CostModel]:
    """Return groups and costs of a VGG: each layer reads the one before, so costs multiply."""
    groups = [NamedGroup(name=f"conv{i}", width=w, stage=f"s{w}") for i, w in enumerate(widths)]
    terms = [
        Term(
            macs_unit=9 * max(1024 // 4 ** (i // 2), 1),
            params_unit=9,
            out_by_group={groups[i].name: 1},
            in_fixed=0 if i else 3,
            in_by_group={groups[i - 1].name: 1} if i else {},
        )
        for i in range(len(widths))
    ]
    return groups, CostModel({g.name: g.width for g in groups}, terms)


def resnet56() -> tuple[list[NamedGroup], CostModel]:
    """Return the 27 blocks of ResNet-56 for CIFAR."""
    return residual([(16, 16, 1024)] * 9 + [(32, 32, 256)] * 9 + [(64, 64, 64)] * 9)


def vgg16() -> tuple[list[NamedGroup], CostModel]:
    """Return the 13 convolutions of VGG-16."""
    return chain([64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512])
