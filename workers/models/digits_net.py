"""A small network for the 8x8 digits: a whole sweep in minutes on a laptop."""

import torch.nn.functional as F
from torch import Tensor, nn


class DigitsNet(nn.Module):
    """Four 3x3 convolutions with batch norm, 32-64-64-128 filters, and a linear layer."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.conv4 = nn.Conv2d(64, 128, 3, stride=2, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(128)
        self.linear = nn.Linear(128, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to logits, ``[N, num_classes]``."""
        features = F.relu(self.bn1(self.conv1(images)))  # [N, 32, H, W]
        features = F.relu(self.bn2(self.conv2(features)))  # [N, 64, H/2, W/2]
        features = F.relu(self.bn3(self.conv3(features)))
        features = F.relu(self.bn4(self.conv4(features)))  # [N, 128, H/4, W/4]
        pooled = F.adaptive_avg_pool2d(features, 1).flatten(1)
        logits: Tensor = self.linear(pooled)
        return logits
