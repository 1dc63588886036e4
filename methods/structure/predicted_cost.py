"""The cost of every width a network can be pruned to, told from its layers and groups."""

from collections.abc import Mapping

from torch import Tensor, nn

from methods.structure.cost import CostModel, Term, filters_of
from methods.structure.groups import Group
from methods.structure.narrowing import PRODUCERS, emitted_channels, emitting_dim


def cost_model(network: nn.Module, positions: Mapping[str, int], groups: list[Group]) -> CostModel:
    """Describe what ``network`` costs, by what its groups keep.

    Args:
        network: The dense network.
        positions: What each convolution and linear layer computes, by
            :func:`~methods.cost.output_positions`.
        groups: What may be pruned.
    """
    emits: dict[str, dict[str, int]] = {}
    reads: dict[str, dict[str, int]] = {}
    kept = {group.name: group.width for group in groups}
    striped = {group.name: group.filters for group in groups if group.taps > 1 and group.outputs}
    widths = {**kept, **{filters_of(name): count for name, count in striped.items()}}
    for group in groups:
        column = filters_of(group.name) if group.name in striped else group.name
        for member in group.outputs:
            emits.setdefault(member.layer, {})[column] = len(member.channels[0])
        for member in group.inputs:
            reads.setdefault(member.layer, {})[column] = len(member.channels[0])
    taps = {group.name: group.taps for group in groups if group.taps > 1}
    terms: list[Term] = []
    counted: set[int] = set()
    for name, layer in network.named_modules():
        own = {n: p for n, p in layer.named_parameters(recurse=False) if id(p) not in counted}
        counted |= {id(p) for p in own.values()}  # a tied weight is one parameter
        holder = name.split(".parametrizations.")[0]  # of what its weight is computed from
        out_by, in_by = emits.get(holder, {}), reads.get(holder, {})
        weight = own.pop("weight", None)
        two_way = weight is not None and isinstance(layer, PRODUCERS)
        width = emitted_channels(network.get_submodule(holder)) if out_by else 0
        for own_name, parameter in own.items():
            scale_by = emits.get(f"{name}.{own_name}" if name else own_name)
            rows = parameter.numel() if scale_by else width
            dim = emitting_dim(layer, own_name, parameter, width)
            follows = scale_by or (out_by if dim is not None else {})
            terms.append(_slope(parameter.numel(), 0, rows, widths, follows))
        positioned = positions.get(name, 0)
        if weight is None:
            if positioned:  # its weight is computed
                computed = layer.weight
                assert isinstance(computed, Tensor)
                terms.append(_slope(0, computed.numel() * positioned, width, widths, out_by))
            continue
        macs = weight.numel() * positioned
        if not two_way or getattr(layer, "groups", 1) > 1:
            dim = emitting_dim(layer, "weight", weight, width)
            follows = out_by if dim is not None else {}
            terms.append(_slope(weight.numel(), macs, width, widths, follows))
            continue
        turned = emitting_dim(layer, "weight", weight, width) == 1
        ins, outs = weight.shape[:2] if turned else weight.shape[1::-1]
        made, made_by = (outs * taps[name], {name: 1}) if name in taps else (outs, out_by)
        terms.append(
            Term(
                macs_unit=macs // (made * ins),
                params_unit=weight.numel() // (made * ins),
                out_fixed=made - sum(c * widths[g] for g, c in made_by.items()),
                out_by_group=made_by,
                in_fixed=ins - sum(c * widths[g] for g, c in in_by.items()),
                in_by_group=in_by,
            )
        )
    return CostModel(kept, terms, striped)


def _slope(
    params: int, macs: int, channels: int, widths: Mapping[str, int], by_group: Mapping[str, int]
) -> Term:
    """Describe a layer whose cost grows with its channels alone, given its dense cost."""
    if not by_group:
        return Term(
            macs_unit=macs, params_unit=params, out_fixed=1, out_by_group={}, in_by_group={}
        )
    return Term(
        macs_unit=macs // channels,
        params_unit=params // channels,
        out_fixed=channels - sum(count * widths[group] for group, count in by_group.items()),
        out_by_group=by_group,
        in_by_group={},
    )
