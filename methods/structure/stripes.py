"""Pruning by the stripe: which convolutions can, stripes set to zero, stripes really removed.

A filter whose stripes are all gone is removed like any pruned filter where the layer policy
``inside_blocks`` could remove it. Elsewhere, in a residual stream, it stays as a row of zeros: what
follows it, a batch norm for one, still emits a constant there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods.structure.groups import Group
from methods.structure.stripe_conv import StripeConv


def can_lose_stripes(conv: nn.Conv2d) -> bool:
    """Say whether ``conv`` has several taps and is neither grouped nor padded but with zeros."""
    several = conv.kernel_size[0] * conv.kernel_size[1] > 1
    plain_padding = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return several and conv.groups == 1 and plain_padding


def by_stripe(name: str, conv: nn.Conv2d, norm: str | None, whole: Group | None) -> Group:
    """Return the group of the stripes of one convolution.

    Args:
        name: Name of the convolution.
        conv: The convolution.
        norm: Name of the batch norm behind it.
        whole: The group of its filters, if they can be removed.
    """
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    return Group(
        name=name,
        width=conv.out_channels * taps,
        producers=(name,),
        norms=(norm,),
        outputs=whole.outputs if whole else (),
        inputs=whole.inputs if whole else (),
        taps=taps,
    )


@torch.no_grad()
def zero_stripes(network: nn.Module, group: Group, stripes: Sequence[int]) -> None:
    """Set the weights of some stripes to zero; nothing where the group has whole filters."""
    if group.taps == 1 or not stripes:
        return
    weight = network.get_parameter(f"{group.name}.weight")
    gone = torch.zeros(group.width, dtype=torch.bool)
    gone[list(stripes)] = True
    weight.masked_fill_(gone.reshape(-1, 1, *weight.shape[2:]).to(weight.device), 0.0)


def hold_stripes(network: nn.Module, group: Group, kept: Sequence[int]) -> None:
    """Set the stripes of a convolution that do not stay to zero, and let no gradient reach them.

    Weight decay and momentum leave a zero that never had a gradient where it is.

    Args:
        network: Changed in place; filters that could be removed are.
        group: Stripes of the convolution.
        kept: Stripes of the dense convolution that stay, ascending.
    """
    conv = _convolution(network, group)
    gone = ~_kept_mask(conv, group, kept).unsqueeze(1)  # [N, 1, K, K]
    with torch.no_grad():
        conv.weight.masked_fill_(gone, 0.0)
    if conv.weight.requires_grad and gone.any():
        conv.weight.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient.masked_fill(gone, 0.0)
        )


def break_convolution(network: nn.Module, group: Group, kept: Sequence[int]) -> None:
    """Replace a convolution by what ``kept`` leaves of it.

    One whose filters are whole, those that were removed apart, stays as it is.

    Args:
        network: Changed in place; filters that could be removed are.
        group: Stripes of the convolution.
        kept: Stripes of the dense convolution that stay, ascending.
    """
    conv = _convolution(network, group)
    mask = _kept_mask(conv, group, kept)
    if mask.all():
        return
    broken = StripeConv(conv, mask)
    broken.training = conv.training
    network.set_submodule(group.name, broken)


def _convolution(network: nn.Module, group: Group) -> nn.Conv2d:
    conv = network.get_submodule(group.name)
    assert isinstance(conv, nn.Conv2d)
    return conv


def _kept_mask(conv: nn.Conv2d, group: Group, kept: Sequence[int]) -> Tensor:
    """Return which stripes of the filters that are left stay, ``[N, K, K]``."""
    mask = torch.zeros(group.width, dtype=torch.bool)
    mask[list(kept)] = True
    mask = mask.reshape(group.filters, *conv.kernel_size)
    if group.outputs:
        mask = mask[mask.flatten(1).any(dim=1)]
    return mask.to(conv.weight.device)
