"""On trained networks and real images, a criterion has to know more than chance does."""

import copy
from statistics import mean
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from methods import LayerPolicy, Layout, create, find_layout, shrink
from methods.testing import TinySession
from tests.methods.helpers import logits, same_ratio
from workers.models.digits_net import DigitsNet

TRAINING = 1297  #: Images to train on; the other 500 measure.
SEEDS = range(3)
RATIO = 0.4

pytestmark = pytest.mark.slow


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return images, torch.tensor(data.target)


class DigitsSession(TinySession):
    """The tiny session on real images."""

    def __init__(self, layout: Layout, *, seed: int, epochs: int = 0) -> None:
        super().__init__(layout, classes=10, epochs=epochs, seed=seed)
        images, labels = digits()
        self.images, self.labels = images[:TRAINING], labels[:TRAINING]


@pytest.fixture(scope="module")
def trained() -> list[tuple[nn.Module, Layout]]:
    """One trained network per seed."""
    networks: list[tuple[nn.Module, Layout]] = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        network = DigitsNet()
        layout = find_layout(network, (1, 8, 8), LayerPolicy())
        DigitsSession(layout, seed=seed, epochs=4).train(network, 4)
        networks.append((network, layout))
    return networks


def accuracy_after(
    trained: list[tuple[nn.Module, Layout]], name: str, settings: dict[str, Any], draws: int = 1
) -> float:
    """Return the mean accuracy of the shrunk networks, not trained again."""
    images, labels = digits()
    found = []
    for seed, (network, layout) in enumerate(trained):
        for draw in range(draws):
            small = copy.deepcopy(network)
            session = DigitsSession(layout, seed=seed + 100 * draw)
            plan = create(name, settings).select(small, same_ratio(layout, RATIO), session)
            shrink(small, plan, layout)
            right = logits(small, images[TRAINING:]).argmax(dim=1) == labels[TRAINING:]
            found.append(float(right.float().mean()))
    return mean(found)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("l1", {}),
        ("l2", {}),
        ("fpgm", {}),
        ("fpgm", {"norm_share": 0.25}),
        ("bn_scale", {}),
        ("taylor", {"images": 1024}),
        ("taylor", {"images": 1024, "per_example": True}),
    ],
)
def test_a_criterion_beats_chance(
    trained: list[tuple[nn.Module, Layout]], name: str, settings: dict[str, Any]
) -> None:
    chance = accuracy_after(trained, "random", {}, draws=5)
    assert accuracy_after(trained, name, settings) > chance + 0.05


def test_pruning_the_largest_norms_is_clearly_worse_than_the_smallest(
    trained: list[tuple[nn.Module, Layout]],
) -> None:
    best, worst = (
        accuracy_after(trained, "l1", {"largest_first": largest}) for largest in (False, True)
    )
    assert worst < best - 0.2
