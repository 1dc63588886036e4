"""The contract of pruning methods as tests to inherit, for this package and for others.

An outside package writes::

    class TestMine(PruningMethodContract):
        method = Mine()

and pytest asks of ``Mine`` what every method must keep, on networks with residual, grouped and
depthwise layers.
"""

# ruff: noqa: D102 (the name of a test is its sentence)

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, ClassVar
from unittest import SkipTest

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from methods.base import PruningMethod, create
from methods.structure.cost import count_cost, evaluation_mode, input_like
from methods.structure.layout import Group, Layout
from methods.structure.plan import PruningPlan, removed_count
from methods.structure.surgery import masked_difference, shrink
from methods.testing.example_networks import CLASSES, EXAMPLES, Example
from methods.testing.tiny_session import TinySession

if TYPE_CHECKING:
    import pytest

TOLERANCE = 1e-5  #: Between the masked and the shrunk network, relative to the largest logit.


class PruningMethodContract:
    """What every pruning method keeps.

    Subclasses name a ``method``, narrow the ``examples`` to networks it accepts, and may override
    a test whose question does not make sense for it.
    """

    method: ClassVar[PruningMethod]
    examples: ClassVar[Mapping[str, Example]] = EXAMPLES
    #: A filter's score stays with it when filters change places; not so where chance decides.
    scores_follow_filters: ClassVar[bool] = True

    def pytest_generate_tests(self, metafunc: "pytest.Metafunc") -> None:
        """Ask every question on every example network."""
        if "example" in metafunc.fixturenames:
            metafunc.parametrize("example", list(self.examples.values()), ids=list(self.examples))

    def session(self, layout: Layout, *, seed: int = 0) -> TinySession:
        """Return the session that the method is given."""
        return TinySession(layout, classes=CLASSES, seed=seed)

    def select(
        self, network: nn.Module, layout: Layout, ratio: float, *, seed: int = 0
    ) -> PruningPlan:
        """Let the method choose at one ratio for all groups; ``network`` may get trained."""
        ratios = {group.name: ratio for group in layout.groups}
        return self.method.select(network, ratios, self.session(layout, seed=seed))

    def scores(self, network: nn.Module, layout: Layout) -> Mapping[str, Tensor]:
        """Return the method's scores; a method without any skips the tests that ask for them."""
        kind = type(self.method)
        if kind.score is PruningMethod.score and kind.scores is PruningMethod.scores:
            raise SkipTest(f"{kind.__name__} chooses without scores")
        return self.method.scores(network, self.session(layout))

    def test_it_is_built_from_its_name_and_settings(self) -> None:
        settings = {f.name: getattr(self.method, f.name) for f in fields(self.method) if f.init}
        assert create(self.method.name, settings) == self.method

    def test_it_accepts_the_network(self, example: Example) -> None:
        network = example.network()
        before = copy.deepcopy(network.state_dict())
        self.method.accept(network, example.layout())
        assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())

    def test_every_filter_has_one_finite_score(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        scores = self.scores(network, layout)
        for group in layout.groups:
            assert scores[group.name].shape == (group.width,)
            assert scores[group.name].isfinite().all()

    def test_reordered_filters_have_reordered_scores(self, example: Example) -> None:
        if not self.scores_follow_filters:
            raise SkipTest("its scores do not depend on the filters")
        network = example.network()
        layout = example.layout()
        expected = self.scores(network, layout)
        for group in layout.groups:
            order = torch.randperm(group.width, generator=torch.Generator().manual_seed(1))
            permute_filters(network, group, order)
            got = self.scores(network, layout)[group.name]
            scale = float(expected[group.name].abs().max())
            torch.testing.assert_close(
                got, expected[group.name][order], rtol=1e-3, atol=1e-4 * scale
            )

    def test_one_seed_gives_one_choice(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        plans = [self.select(copy.deepcopy(network), layout, 0.5, seed=3) for _ in range(2)]
        assert plans[0] == plans[1]

    def test_the_network_is_left_as_found_unless_trained(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        for parameter in list(network.parameters())[::3]:
            parameter.requires_grad_(False)
        last = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)][-1]
        last.eval()
        before, session = copy.deepcopy(network), self.session(layout)
        ratios = {group.name: 0.5 for group in layout.groups}
        self.method.select(network, ratios, session)
        assert [p.requires_grad for p in network.parameters()] == [
            p.requires_grad for p in before.parameters()
        ]
        for module in network.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
        for name, value in before.state_dict().items():
            assert network.state_dict()[name].shape == value.shape, name  # never shrunk
            if session.epochs_trained == 0:
                assert torch.equal(network.state_dict()[name], value), name
        if session.epochs_trained == 0:
            assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
            assert all(p.grad is None for p in network.parameters())

    def test_the_network_sees_training_images_only(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        session = self.session(layout)
        known = {image.numpy().tobytes() for image in session.images}
        strange: list[Tensor] = []

        def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shown = (image.detach() for image in inputs[0])  # a black one only measures sizes
            strange.extend(i for i in shown if i.any() and i.numpy().tobytes() not in known)

        with_look = network.register_forward_pre_hook(look)
        self.method.select(network, {group.name: 0.5 for group in layout.groups}, session)
        with_look.remove()
        assert not strange

    def test_ratio_0_is_the_identity(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        plan = self.select(network, layout, 0.0)
        assert plan.kept == {group.name: tuple(range(group.width)) for group in layout.groups}
        images = self.session(layout).images
        with evaluation_mode(network), torch.no_grad():
            before = network(images)
            shrink(network, plan, layout)
            assert torch.equal(network(images), before)

    def test_every_group_keeps_a_filter(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        plan = self.select(network, layout, 0.99)
        assert {name: len(kept) for name, kept in plan.kept.items()} == {
            name: width - removed_count(name, width, 0.99) for name, width in layout.widths.items()
        }
        shrink(network, plan, layout)
        assert network(self.session(layout).images).isfinite().all()

    def test_the_shrunk_network_computes_what_the_masked_one_does(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        plan = self.select(network, layout, 0.5)
        images = self.session(layout).images[:8]
        assert masked_difference(network, plan, layout, images) < TOLERANCE

    def test_the_shrunk_network_costs_what_was_predicted(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        plan = self.select(network, layout, 0.5)
        shrink(network, plan, layout)
        counted = count_cost(network, layout.input_shape)
        assert counted.macs == layout.cost_of("macs", plan.kept)
        assert counted.macs == counted_by_torch(network, layout.input_shape)
        assert counted.params == layout.cost_of("params", plan.kept)
        assert counted.macs < layout.cost.dense("macs")

    def test_the_shrunk_network_still_learns(self, example: Example) -> None:
        network = example.network()
        layout = example.layout()
        shrink(network, self.select(network, layout, 0.5), layout)
        before = copy.deepcopy(network.state_dict())
        self.session(layout).train(network, 1)
        assert any(not torch.equal(network.state_dict()[n], v) for n, v in before.items())


def counted_by_torch(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the MACs of one image by PyTorch's own counter."""
    with evaluation_mode(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(input_like(network, input_shape))
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def permute_filters(network: nn.Module, group: Group, order: Tensor) -> None:
    """Put filter ``order[i]`` of ``group`` in place ``i``; the network computes what it did.

    Args:
        network: Changed in place.
        group: One of its groups.
        order: A permutation, ``[filters]``.
    """
    for member in group.outputs:
        layer = network.get_submodule(member.layer)
        rows = torch.tensor(member.channels)  # [filters, channels per filter]
        for value in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if value.dim():  # a batch norm counts its batches in a scalar
                value[rows.flatten()] = value[rows[order].flatten()]
    for member in group.inputs:
        weight = network.get_submodule(member.layer).weight
        assert isinstance(weight, Tensor)
        columns = torch.tensor(member.channels)
        weight[:, columns.flatten()] = weight[:, columns[order].flatten()]
