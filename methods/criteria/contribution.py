"""How much each filter moves the loss: by the gradient where the filter emits, on some images."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.structure.cost import evaluation_mode
from methods.structure.layout import Layout

Contribution = Literal["grad", "taylor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """One call of the layer behind which filters are looked at."""

    group: str
    output: Tensor  #: ``[N, filters, H, W]``
    probe: Tensor  #: Zeros added to the output; their gradient is that of the output.


def contributions(
    network: nn.Module,
    layout: Layout,
    batches: Iterable[tuple[Tensor, Tensor]],
    kind: Contribution,
) -> dict[str, Tensor]:
    """Measure the contribution of every filter, per image, in one pass.

    With ``A`` what the filter emits behind its batch norm (the convolution, where there is none)
    and ``L`` the image's loss: ``grad`` is the mean over images of ``sum |dL/dA|`` over positions,
    ``taylor`` that of ``|sum A dL/dA|``. A group with several producers takes their mean.

    Args:
        network: Left as found; runs in evaluation mode.
        layout: Its layout.
        batches: Images and labels.
        kind: Which of the two.

    Returns:
        ``[filters]`` by group, never negative.
    """
    totals: dict[str, Tensor] = {}
    seen = 0
    with evaluation_mode(network), torch.enable_grad():
        for images, labels in batches:
            with _probes(network, layout) as calls:
                loss = F.cross_entropy(network(images), labels, reduction="sum")
                gradients = torch.autograd.grad(loss, [call.probe for call in calls])
            for call, gradient in zip(calls, gradients, strict=True):
                if kind == "grad":
                    per_image = gradient.abs().sum(dim=(2, 3))  # [N, filters]
                else:
                    per_image = (gradient * call.output).sum(dim=(2, 3)).abs()
                totals[call.group] = totals.get(call.group, 0.0) + per_image.sum(dim=0)
            seen += len(labels)
    uses = {group.name: len(group.producers) for group in layout.groups}
    return {name: total / (seen * uses[name]) for name, total in totals.items()}


@contextmanager
def _probes(network: nn.Module, layout: Layout) -> Iterator[list[_Call]]:
    """Add zeros that record gradients to what every group emits, while the context lasts."""
    calls: list[_Call] = []

    def add_probe(group: str, output: Tensor) -> Tensor:
        probe = torch.zeros_like(output).requires_grad_()
        calls.append(_Call(group=group, output=output.detach(), probe=probe))
        return output + probe  # and what follows may change that in place

    handles = [
        network.get_submodule(norm or producer).register_forward_hook(
            lambda _module, _inputs, output, group=group.name: add_probe(group, output)
        )
        for group in layout.groups
        for producer, norm in zip(group.producers, group.norms, strict=True)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
