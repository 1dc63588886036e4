"""A layout that was kept is the one that would be found, and only for the network it is of."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import LayerPolicy, Layout, find_layout
from methods.structure.stored_layout import layout_from_json, layout_name, layout_to_json
from methods.testing import INPUT_SHAPE
from methods.testing.example_networks import EXAMPLES

POLICY = LayerPolicy()


class Net(nn.Module):
    """Three convolutions, in one of two orders."""

    def __init__(self, width: int = 8, *, swapped: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.one, self.two = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(width, 4)
        self.swapped = swapped

    def forward(self, images: Tensor) -> Tensor:
        one, two = (self.two, self.one) if self.swapped else (self.one, self.two)
        logits: Tensor = self.head(two(one(self.stem(images)).relu()).mean(dim=(2, 3)))
        return logits


def kept(layout: Layout, network: nn.Module) -> Layout | None:
    data = json.loads(json.dumps(layout_to_json(layout, network)))
    return layout_from_json(data, network, layout.input_shape, layout.policy)


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_layout_is_read_as_it_was_found(name: str) -> None:
    example = EXAMPLES[name]
    found = find_layout(example.network(), INPUT_SHAPE, example.policy)
    read = kept(found, example.network())
    assert read is not None
    assert (read.groups, read.left_whole) == (found.groups, found.left_whole)
    halves = {group.name: range(0, group.width, 2) for group in found.groups}
    assert read.cost_of("macs", halves) == found.cost_of("macs", halves)
    assert read.cost_of("params", halves) == found.cost_of("params", halves)


def test_a_layout_is_of_no_use_to_a_network_that_runs_in_another_order() -> None:
    layout = find_layout(Net(), INPUT_SHAPE, POLICY)
    data = layout_to_json(layout, Net())
    assert layout_from_json(data, Net(), INPUT_SHAPE, POLICY) is not None
    assert layout_from_json(data, Net(swapped=True), INPUT_SHAPE, POLICY) is None


def _doubled() -> nn.Module:
    class Net(nn.Module):  # another class of the same name
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.stem(images) * 2
            return found

    return Net()


OTHERS: dict[str, Callable[[], str]] = {
    "width": lambda: layout_name(Net(9), INPUT_SHAPE, POLICY),
    "images": lambda: layout_name(Net(), (3, 9, 9), POLICY),
    "policy": lambda: layout_name(Net(), INPUT_SHAPE, LayerPolicy(kind="coupled")),
    "protected": lambda: layout_name(Net(), INPUT_SHAPE, LayerPolicy(protect=("one",))),
    "code": lambda: layout_name(_doubled(), INPUT_SHAPE, POLICY),
    "stride": lambda: layout_name(_strided(), INPUT_SHAPE, POLICY),
}


def _strided() -> nn.Module:
    network = Net()
    network.two.stride = (2, 2)
    return network


@pytest.mark.parametrize("what", list(OTHERS))
def test_another_network_policy_or_image_has_a_layout_of_another_name(what: str) -> None:
    assert OTHERS[what]() != layout_name(Net(), INPUT_SHAPE, POLICY)


def test_weights_do_not_matter_to_the_name() -> None:
    torch.manual_seed(1)
    first = Net()
    assert layout_name(first, INPUT_SHAPE, POLICY) == layout_name(Net(), INPUT_SHAPE, POLICY)
