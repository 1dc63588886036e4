"""VGG for small images: 3x3 convolutions with batch norm, and one linear layer.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv:1409.1556, table 1, columns D and E. As usual for 32x32 images the
three linear layers become one and the last max pooling an average.
"""

from torch import Tensor, nn

_POOL = 0  #: Marks a max pooling among the widths.
_WIDTHS = {
    16: (64, 64, _POOL, 128, 128, _POOL, *(256,) * 3, _POOL, *(512,) * 3, _POOL, *(512,) * 3),
    19: (64, 64, _POOL, 128, 128, _POOL, *(256,) * 4, _POOL, *(512,) * 4, _POOL, *(512,) * 4),
}


class CifarVGG(nn.Module):
    """13 or 16 convolutions and a linear layer; images of 16 pixels or more."""

    def __init__(self, depth: int, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in _WIDTHS[depth]:
            if width == _POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to logits, ``[N, num_classes]``."""
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits
