"""How large a part of what its readers compute a filter can be, on real images.

Source: Liebenwein et al., "Provable Filter Pruning for Efficient Neural Networks", ICLR 2020,
arXiv:1911.07412 (PFP), the empirical sensitivity; for convolutions as in the authors' code.

Seen from a layer that reads it, filter ``j`` emits activations ``a_jk`` of a patch, ``k`` running
over the positions of the kernel. Its part in output ``i`` at patch ``p`` is
``w_ijk a_jk(p) / sum_j'k' w_ij'k' a_j'k'(p)``; the sensitivity is the largest such part over
outputs, patches and images. Weights and activations of each sign are held against their own kind,
so that parts lie in [0, 1].
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.errors import MethodError
from methods.structure.cost import evaluation_mode, output_positions
from methods.structure.layout import Layout

DELTA = 1e-16  #: Probability of failure in the paper's bounds.
SMALLEST = torch.finfo(torch.float32).eps  #: Sums up to it have no parts.

_CHUNK = 1 << 22  # elements of the largest intermediate tensor

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How the parts of a filter become one number."""

    kernel: Literal["max", "sum"]  #: Over the positions of a kernel.
    patches: Literal["max", "mean"]  #: Over the patches of an image.
    sample: int | None  #: Patches looked at per image and layer; None: all.
    negligible: float  #: Sums below this share of their median over an image have no parts.


def readers_of(layout: Layout) -> dict[str, list[tuple[str, Tensor]]]:
    """Return, by layer that reads groups, each group's name and channels, ``[filters, r]``."""
    readers: dict[str, list[tuple[str, Tensor]]] = {}
    for group in layout.groups:
        for member in group.inputs:
            columns = torch.tensor(member.channels)
            readers.setdefault(member.layer, []).append((group.name, columns))
    return readers


def check_readers(network: nn.Module, layout: Layout) -> None:
    """Refuse a layout in which some filters have no reader to be seen from.

    Raises:
        MethodError: Which group it is.
    """
    for group in layout.groups:
        layers = [network.get_submodule(member.layer) for member in group.inputs]
        if not layers or not all(isinstance(layer, nn.Conv2d | nn.Linear) for layer in layers):
            raise MethodError(
                f"Provable pruning sees the filters of {group.name!r} through the convolutions "
                f"and linear layers that read them, and under the layer policy "
                f"{layout.policy.kind!r} none reads them alone. Protect that layer, or use the "
                "layer policy 'inside_blocks' or 'coupled'."
            )


def sample_size(network: nn.Module, input_shape: Shape) -> int:
    """Return how many images the paper looks at: ``ceil(3 ln(8 max(n) sum(n) / delta))``.

    ``n`` are the outputs of each convolution and linear layer for one image.
    """
    outputs = []
    for name, positions in output_positions(network, input_shape).items():
        weight = network.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        outputs.append(positions * weight.shape[0])
    return math.ceil(3 * math.log(8 * max(outputs) * sum(outputs) / DELTA))


def sensitivities(
    network: nn.Module,
    layout: Layout,
    batches: Iterable[Tensor],
    rule: Rule,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the sensitivity of every filter, by group, ``[filters]`` in [0, 1].

    A group with several readers takes the largest.

    Args:
        network: Looked at in evaluation mode, and left as found.
        layout: Its groups.
        batches: Images, ``[N, C, H, W]``.
        rule: How parts become one number.
        generator: Draws patches, where the rule has a sample.
    """
    device = next(network.parameters()).device
    found = {group.name: torch.zeros(group.width, device=device) for group in layout.groups}

    def look(layer: nn.Conv2d | nn.Linear, reads: Reads, inputs: Tensor) -> None:
        for image in inputs:
            patches = _sampled(_patches(layer, image.float()), rule.sample, generator)
            for name, parts in _parts(layer, patches, reads, rule):
                torch.maximum(found[name], parts, out=found[name])

    with evaluation_mode(network), torch.no_grad(), _watched(network, layout, look):
        for images in batches:
            network(images)
    return {name: value.clamp(max=1.0) for name, value in found.items()}


Reads = list[tuple[str, Tensor]]  #: Group and the rows of a patch that are its, ``[filters, e]``.
Look = Callable[[nn.Conv2d | nn.Linear, Reads, Tensor], None]


@contextmanager
def _watched(network: nn.Module, layout: Layout, look: Look) -> Iterator[None]:
    """Show ``look`` what every layer that reads groups is given, while the context lasts."""
    handles = []
    for name, groups in readers_of(layout).items():
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        kernel = layer.weight[0, 0].numel()
        reads = [(group, _entries(columns, kernel)) for group, columns in groups]
        handles.append(
            layer.register_forward_pre_hook(
                lambda module, inputs, reads=reads: look(module, reads, inputs[0])
            )
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _entries(columns: Tensor, kernel: int) -> Tensor:
    """Return the rows of an unfolded patch that are each filter's, ``[filters, r * kernel]``."""
    return (columns[:, :, None] * kernel + torch.arange(kernel)).flatten(1)


def _patches(layer: nn.Conv2d | nn.Linear, image: Tensor) -> Tensor:
    """Return what ``layer`` multiplies with its weights for one image, ``[C * K * K, P]``."""
    if isinstance(layer, nn.Linear):
        return image.reshape(-1, layer.in_features).T
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(image[None], layer._reversed_padding_repeated_twice, mode=mode)
    unfolded = F.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    return unfolded[0]


def _sampled(patches: Tensor, sample: int | None, generator: torch.Generator) -> Tensor:
    if sample is None or sample >= patches.shape[1]:
        return patches
    chosen = torch.randperm(patches.shape[1], generator=generator)[:sample]
    return patches[:, chosen.to(patches.device)]


def _parts(
    layer: nn.Conv2d | nn.Linear, patches: Tensor, reads: Reads, rule: Rule
) -> Iterator[tuple[str, Tensor]]:
    """Yield, by group and pair of signs, the largest part of each filter, ``[filters]``."""
    weight = layer.weight.detach().float().flatten(1)  # [O, C * K * K]
    signs = (1.0, -1.0) if bool((patches < 0).any()) else (1.0,)
    for activations in ((sign * patches).clamp(min=0.0) for sign in signs):
        for weights in (weight.clamp(min=0.0), (-weight).clamp(min=0.0)):
            sums = weights @ activations  # [O, P]
            counts = sums > SMALLEST
            if rule.negligible:
                counts &= sums >= rule.negligible * sums.median(dim=1, keepdim=True).values
            inverse = torch.where(counts, sums, torch.inf).reciprocal()
            for name, entries in reads:
                yield name, _largest(weights, activations, inverse, entries, rule)


def _largest(
    weights: Tensor, activations: Tensor, inverse: Tensor, entries: Tensor, rule: Rule
) -> Tensor:
    """Return the largest part of each filter over outputs and patches, a few outputs at a time."""
    own = activations[entries]  # [filters, e, P]
    at_once = max(1, _CHUNK // own.numel())
    best = own.new_zeros(len(entries))
    for rows, scale in zip(
        torch.split(weights[:, entries], at_once), torch.split(inverse, at_once), strict=True
    ):  # [o, filters, e] and [o, P]
        if rule.kernel == "sum":
            parts = torch.einsum("ofe,fep->ofp", rows, own)
        else:
            parts = (rows[..., None] * own).amax(dim=2)
        parts = parts * scale[:, None]  # [o, filters, P]
        by_output = parts.amax(dim=2) if rule.patches == "max" else parts.mean(dim=2)
        best = torch.maximum(best, by_output.amax(dim=0))
    return best
