"""A network whose training fails for as long as a file is there."""

from pathlib import Path

from torch import Tensor

from workers.models.digits_net import DigitsNet


class FlakyNet(DigitsNet):
    """The digits' network; ``trouble`` names the file."""

    def __init__(self, num_classes: int, in_channels: int, trouble: str) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels)
        self._trouble = Path(trouble)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and self._trouble.exists():
            raise RuntimeError("the network is in trouble")
        result: Tensor = super().forward(images)
        return result
