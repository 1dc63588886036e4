"""Residual networks for small images.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385,
sec. 4.2. Module names are those of the checkpoints commonly published for these networks.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from workers.errors import ModelError

_WIDTHS = (16, 32, 64)


class PadShortcut(nn.Module):
    """Option A of the paper: drop every other pixel, and add channels of zeros on both sides."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        extra = out_channels - in_channels
        self.before, self.after = extra // 2, extra - extra // 2

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C_out, H/2, W/2]``, without parameters."""
        return F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = (
                PadShortcut(in_channels, out_channels)
                if shortcut == "pad"
                else nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                    nn.BatchNorm2d(out_channels),
                )
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C_out, H/stride, W/stride]``."""
        inner = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(images))


class CifarResNet(nn.Module):
    """A stem, three stages of basic blocks with 16, 32 and 64 channels, and a linear layer."""

    def __init__(
        self, depth: int, *, num_classes: int = 10, in_channels: int = 3, shortcut: str = "pad"
    ) -> None:
        super().__init__()
        if shortcut not in {"pad", "projection"}:
            raise ModelError(
                f"shortcut is {shortcut!r}; it must be 'pad' (zeros, no parameters) or 'projection'"
            )
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks, stride=1, shortcut=shortcut)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks, stride=2, shortcut=shortcut)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks, stride=2, shortcut=shortcut)
        self.linear = nn.Linear(_WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to logits, ``[N, num_classes]``."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        pooled = F.adaptive_avg_pool2d(features, 1).flatten(1)
        logits: Tensor = self.linear(pooled)
        return logits


def _stage(
    in_channels: int, out_channels: int, blocks: int, *, stride: int, shortcut: str
) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride=stride, shortcut=shortcut)
    others = (
        BasicBlock(out_channels, out_channels, stride=1, shortcut=shortcut)
        for _ in range(blocks - 1)
    )
    return nn.Sequential(first, *others)
