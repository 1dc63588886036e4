"""A convolution that has lost stripes, and the skeleton by which it learns which.

Source: Meng et al., "Pruning Filter in Filter", NeurIPS 2020, arXiv:2009.14410. A *stripe* is what
one filter reads at one tap of its kernel: a 1x1 filter. What is left of a convolution is therefore
a set of 1x1 convolutions, one for each tap, over shifted views of the input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Skeleton(nn.Module):
    """One factor per stripe of a convolution, by which its weight is multiplied while it trains.

    Args:
        weight: Of the convolution, ``[N, C, K, K]``.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones_like(weight[:, 0]))  # [N, K, K]

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight the convolution computes with, ``[N, C, K, K]``."""
        return weight * self.factors.unsqueeze(1)


def wear(conv: nn.Conv2d) -> Skeleton:
    """Give ``conv`` a skeleton of ones; it computes what it did.

    The weight it learns is :func:`bare_weight`; ``conv.weight`` is that times the skeleton.
    """
    skeleton = Skeleton(conv.weight)
    parametrize.register_parametrization(conv, "weight", skeleton)
    return skeleton


def bare_weight(conv: nn.Conv2d) -> Tensor:
    """Return the weight of a convolution that has a skeleton, without it, ``[N, C, K, K]``."""
    weight: Tensor = conv.get_parameter("parametrizations.weight.original")
    return weight


def merge(conv: nn.Conv2d) -> None:
    """Multiply the skeleton into the weight and take it off; ``conv`` computes what it did."""
    parametrize.remove_parametrizations(conv, "weight")


class StripeConv(nn.Module):
    """Computes only the stripes that are left of a convolution.

    Args:
        conv: Not grouped, padded with zeros. Its weights are copied.
        kept: Stripes that stay, ``[N, K, K]``; at least one. A filter without any emits zeros (its
            bias, if there is one).
    """

    index: Tensor

    def __init__(self, conv: nn.Conv2d, kept: Tensor) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        self.kernel_size, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        assert not isinstance(conv.padding, str)
        self.padding = conv.padding
        by_tap = kept.flatten(1).t()  # [K * K, N]
        taps, filters = by_tap.nonzero(as_tuple=True)  # tap by tap, filters ascending
        counts = by_tap.sum(dim=1).tolist()
        #: Taps with any stripe, and how many filters read there.
        self.taps = tuple((tap, count) for tap, count in enumerate(counts) if count)
        rows = conv.weight.detach().flatten(2).permute(2, 0, 1)[taps, filters]  # [stripes, C]
        self.weight = nn.Parameter(rows[:, :, None, None].contiguous(), conv.weight.requires_grad)
        self.bias = None
        if conv.bias is not None:
            self.bias = nn.Parameter(conv.bias.detach().clone(), conv.bias.requires_grad)
        self.register_buffer("index", filters)  # the filter of each row

    @property
    def fan_in(self) -> float:
        """Weights that a filter has on average, of those that have any."""
        return self.weight.numel() / int(self.index.bincount().count_nonzero())

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, filters, H', W']``."""
        padded = F.pad(images, (self.padding[1],) * 2 + (self.padding[0],) * 2)
        height, width = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                padded.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        counts = [count for _, count in self.taps]
        output: Tensor | None = None
        for (tap, _), rows, filters in zip(
            self.taps,
            torch.split(self.weight, counts),
            torch.split(self.index, counts),
            strict=True,
        ):
            top, left = divmod(tap, self.kernel_size[1])
            seen = _view(padded, 2, top * self.dilation[0], height, self.stride[0])
            seen = _view(seen, 3, left * self.dilation[1], width, self.stride[1])
            part = F.conv2d(seen, rows)
            if output is None:
                output = part.new_zeros(part.shape[0], self.out_channels, height, width)
            output = output.index_add_(1, filters, part)
        assert output is not None
        return output if self.bias is None else output + self.bias.reshape(-1, 1, 1)

    def extra_repr(self) -> str:
        """Say how many stripes of how many are left."""
        kernel = self.kernel_size[0] * self.kernel_size[1]
        return (
            f"{self.weight.shape[1]}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}; {len(self.index)} of {self.out_channels * kernel} stripes"
        )


def _view(images: Tensor, dim: int, start: int, count: int, step: int) -> Tensor:
    """Return every ``step``-th line of ``images`` along ``dim``, ``count`` of them."""
    index = [slice(None)] * images.dim()
    index[dim] = slice(start, start + (count - 1) * step + 1, step)
    return images[tuple(index)]
