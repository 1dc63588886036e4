import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import LayerPolicy, Layout, find_layout
from methods.criteria.taylor import Taylor
from methods.criteria.taylor import _gates as open_gates
from methods.testing import CLASSES, EXAMPLES, PruningMethodContract, TinySession
from tests.methods.helpers import logits, norm_of


def at(network: nn.Module, layer: str, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``layer`` emits, and the gradient of the mean loss there: ``[N, C, H, W]``."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = network.get_submodule(layer).register_forward_hook(keep)
    F.cross_entropy(network.eval()(images), labels).backward()  # type: ignore[no-untyped-call]
    handle.remove()
    gradient = kept[0].grad
    assert gradient is not None
    return kept[0].detach(), gradient


def behind_norms(
    network: nn.Module, layout: Layout, images: Tensor, labels: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield, by group, what its first producer emits behind its norm, and the gradient there."""
    for group in layout.groups:
        yield group.name, *at(network, group.norms[0] or "", images, labels)


def exact_loss(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the mean loss in evaluation mode, computed in double precision."""
    precise = copy.deepcopy(network).eval().double()
    return float(F.cross_entropy(precise(images.double()), labels).detach())


class TestTaylor(PruningMethodContract):
    method = Taylor(images=64, batch_size=16)

    @pytest.mark.parametrize("name", ["plain", "bottleneck", "inverted_residual"])
    def test_the_score_is_the_squared_sum_of_activation_times_gradient(self, name: str) -> None:
        network = EXAMPLES[name].network()
        layout = EXAMPLES[name].layout()
        session = TinySession(layout, classes=CLASSES)
        scores = Taylor(images=32, batch_size=16).scores(network, session)
        expected = {group.name: torch.zeros(group.width) for group in layout.groups}
        for images, labels in session.batches(32, 16):
            for group, output, gradient in behind_norms(network, layout, images, labels):
                expected[group] += (output * gradient).sum(dim=(0, 2, 3)).square() / 2
        for group, values in expected.items():
            torch.testing.assert_close(scores[group], values, rtol=1e-4, atol=1e-9)

    def test_per_example_squares_before_it_averages(self) -> None:
        network = EXAMPLES["plain"].network()
        layout = EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES)
        scores = Taylor(images=16, batch_size=16, per_example=True).scores(network, session)
        images, labels = next(session.batches(16, 16))
        for group, output, gradient in behind_norms(network, layout, images, labels):
            of_each = (output * gradient * len(images)).sum(dim=(2, 3))  # [N, filters]
            torch.testing.assert_close(
                scores[group], of_each.square().mean(dim=0), rtol=1e-4, atol=1e-9
            )

    def test_per_example_does_not_depend_on_the_batch_size(self) -> None:
        network = EXAMPLES["plain"].network()
        layout = EXAMPLES["plain"].layout()
        one, other = (
            Taylor(images=40, batch_size=size, per_example=True).scores(
                network, TinySession(layout, classes=CLASSES)
            )
            for size in (40, 16)  # the last batch is short
        )
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-9)

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_gates_of_1_leave_the_output_to_the_bit(self, name: str) -> None:
        network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
        images = TinySession(layout, classes=CLASSES).images[:8]
        expected = logits(network, images)
        with open_gates(network, layout, 1, images.device) as gates:
            gated = network(images)
            assert torch.equal(gated, expected)
            gradients = torch.autograd.grad(gated.square().sum(), list(gates.values()))
        assert all(gradient.any() for gradient in gradients)  # and they were in its way

    def test_a_filter_nobody_reads_scores_0(self) -> None:
        network = EXAMPLES["residual_pad"].network()
        layout = EXAMPLES["residual_pad"].layout()
        group = layout.groups[0]
        before = self.scores(network, layout)[group.name]
        with torch.no_grad():
            network.get_parameter(f"{group.inputs[0].layer}.weight")[:, 4] = 0.0
        after = self.scores(network, layout)[group.name]
        assert before[4] > 0.0
        assert after[4] == 0.0

    def test_a_loss_twice_as_steep_ranks_alike(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network = EXAMPLES["plain"].network()
        layout = EXAMPLES["plain"].layout()
        once = self.scores(network, layout)
        cross_entropy = F.cross_entropy

        def doubled(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
            return 2.0 * cross_entropy(logits, labels, reduction=reduction)

        monkeypatch.setattr("methods.criteria.taylor.F.cross_entropy", doubled)
        twice = self.scores(network, layout)
        for name in once:
            torch.testing.assert_close(twice[name], 4.0 * once[name])

    def test_it_is_close_to_the_true_change_of_the_loss_for_weak_filters(self) -> None:
        network = EXAMPLES["plain"].network().eval()
        layout = EXAMPLES["plain"].layout()
        group = layout.groups[1]
        norm = norm_of(network, group)
        session = TinySession(layout, classes=CLASSES)
        with torch.no_grad():
            norm.weight[4] = norm.bias[4] = 1e-4
            images, labels = next(session.batches(64, 64))
            before = exact_loss(network, images, labels)
        score = Taylor(images=64, batch_size=64).scores(network, session)[group.name][4]
        with torch.no_grad():
            norm.weight[4] = norm.bias[4] = 0.0
            change = exact_loss(network, images, labels) - before
        assert float(score.sqrt()) == pytest.approx(abs(change), rel=0.02)

    def test_a_group_with_several_producers_shares_one_gate(self) -> None:
        network = EXAMPLES["residual_stream"].network()
        layout = EXAMPLES["residual_stream"].layout()
        group = next(g for g in layout.groups if len(g.producers) == 3)
        session = TinySession(layout, classes=CLASSES)
        images, labels = next(session.batches(16, 16))
        total = torch.zeros(group.width)
        for norm in group.norms:
            output, gradient = at(network, norm or "", images, labels)
            total += (output * gradient).sum(dim=(0, 2, 3))
        score = Taylor(images=16, batch_size=16).scores(network, session)[group.name]
        torch.testing.assert_close(score, total.square() / 3, rtol=1e-4, atol=1e-9)

    def test_a_convolution_without_batch_norm_is_gated_itself(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, CLASSES),
        )
        layout = find_layout(network, (3, 8, 8), LayerPolicy(protect_stem=False))
        scores = self.scores(network, layout)
        assert (scores["0"] > 0).any()
        assert (scores["2"] > 0).any()


class TestPerExample(PruningMethodContract):
    method = Taylor(images=32, batch_size=8, per_example=True)
