"""Networks with their batch norms folded: they compute the same, or are left alone."""

import pytest
import torch
from torch import Tensor, nn

from workers.models import build_model
from workers.networks.folding import TOLERANCE, folded
from workers.settings import ModelSettings


def lived(network: nn.Module) -> nn.Module:
    """Give every batch norm statistics and scales of its own."""
    draw = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data, module.weight.data):
                assert values is not None
                values.copy_(torch.randn(values.shape, generator=draw))
            assert module.running_var is not None
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=draw) + 0.5)
    return network.eval()


def norms(network: nn.Module) -> int:
    kept = dict(network.named_modules())
    if isinstance(network, torch.fx.GraphModule):
        called = {str(node.target) for node in network.graph.nodes if node.op == "call_module"}
        kept = {name: module for name, module in kept.items() if name in called}
    return sum(isinstance(module, nn.BatchNorm2d) for module in kept.values())


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_vgg16", "digits_net"])
def test_no_norm_is_left_and_the_logits_are_the_same(name: str) -> None:
    torch.manual_seed(0)
    channels = 1 if name == "digits_net" else 3
    network = lived(build_model(ModelSettings(name=name), 10, channels))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(12, channels, 32, 32)
    made = folded(network, images[:4])
    assert norms(network) > 0
    assert norms(made) == 0
    with torch.no_grad():
        expected, got = network(images), made(images)
    assert float((expected - got).abs().max()) < TOLERANCE * float(expected.abs().max())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


class Asking(nn.Module):
    """Asks for the type of its input, which tracing answers otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.conv(images))
        factor = 1.0 if isinstance(images, Tensor) else 2.0
        return features.mean(dim=(2, 3)) * factor


class Branching(Asking):
    """Looks at its numbers, which tracing refuses."""

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.conv(images))
        return features.mean(dim=(2, 3)) if images.sum() > 0 else features.amax(dim=(2, 3))


@pytest.mark.parametrize("kind", [Asking, Branching])
def test_a_network_that_tracing_misleads_is_left_alone(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = lived(kind())
    assert folded(network, torch.randn(4, 3, 8, 8)) is network
