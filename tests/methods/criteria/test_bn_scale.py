import copy

import pytest
import torch
from torch import nn

from methods import (
    LayerPolicy,
    MethodError,
    PruningMethod,
    create,
    find_layout,
    identity_settings,
    shrink,
)
from methods.criteria.bn_scale import BatchNormScale
from methods.testing import CLASSES, EXAMPLES, INPUT_SHAPE, PruningMethodContract, TinySession
from tests.methods.helpers import filters, logits, norm_of, same_ratio


class TestOneShot(PruningMethodContract):
    method = BatchNormScale()

    def test_it_takes_the_absolute_scale(self) -> None:
        scale = torch.tensor([-0.5, 0.1, 2.0])
        found = BatchNormScale().score(filters(torch.randn(3, 1, 1, 1), scale=scale))
        assert found.tolist() == pytest.approx([0.5, 0.1, 2.0])

    def test_scaling_a_convolution_leaves_its_score(self) -> None:
        network = EXAMPLES["plain"].network()
        layout = EXAMPLES["plain"].layout()
        before = self.scores(network, layout)
        with torch.no_grad():
            network.get_parameter(f"{layout.groups[0].name}.weight").mul_(3.0)
        after = self.scores(network, layout)
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_a_channel_without_scale_and_shift_goes_first_and_nobody_notices(self) -> None:
        network = EXAMPLES["residual_pad"].network()
        layout = EXAMPLES["residual_pad"].layout()
        for group in layout.groups:
            norm = norm_of(network, group)
            with torch.no_grad():
                norm.weight[3] = norm.bias[3] = 0.0
        plan = self.select(network, layout, 0.126)
        assert all(plan.dropped(name) == [3] for name in plan.kept)
        images = self.session(layout).images
        before = logits(network, images)
        shrink(network, plan, layout)
        torch.testing.assert_close(logits(network, images), before, rtol=1e-5, atol=1e-5)


class TestSparse(PruningMethodContract):
    method = BatchNormScale(sparsity=1e-3)

    def test_sparse_training_is_charged_and_its_share_kept(self) -> None:
        network = EXAMPLES["plain"].network()
        layout = EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES, epochs=8)
        BatchNormScale(sparsity=1e-4, sparse_share=0.25).select(
            network, same_ratio(layout, 0.5), session
        )
        assert session.epochs_trained == 2

    def test_the_subgradient_pulls_prunable_scales_only(self) -> None:
        example = EXAMPLES["residual_pad"]
        networks = [example.network() for _ in range(2)]
        layout = example.layout()
        for network, sparsity in zip(networks, (1e-9, 0.5), strict=True):
            session = TinySession(layout, classes=CLASSES, epochs=1)
            BatchNormScale(sparsity=sparsity, sparse_share=1.0).select(
                network, same_ratio(layout, 0.5), session
            )
        prunable = {norm for group in layout.groups for norm in group.norms}
        for name, module in networks[0].named_modules():
            if isinstance(module, nn.BatchNorm2d):
                other = networks[1].get_submodule(name)
                assert isinstance(other, nn.BatchNorm2d)
                smaller = bool(other.weight.abs().sum() < 0.9 * module.weight.abs().sum())
                assert smaller == (name in prunable), name

    def test_sparsity_0_leaves_training_unchanged_bit_for_bit(self) -> None:
        example = EXAMPLES["plain"]
        plain, sparse = example.network(), example.network()
        layout = example.layout()
        TinySession(layout, classes=CLASSES, epochs=2).train(plain, 2)
        session = TinySession(layout, classes=CLASSES, epochs=2)
        BatchNormScale(sparsity=0.0).select(sparse, same_ratio(layout, 0.5), session)
        session.train(sparse, 2)
        expected = plain.state_dict()
        assert all(torch.equal(expected[n], v) for n, v in sparse.state_dict().items())

    def test_a_convolution_without_batch_norm_is_named_before_training(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, CLASSES),
        )
        self.assert_refused(network, "'2' has none")

    def test_a_batch_norm_without_scale_is_named_before_training(self) -> None:
        network = EXAMPLES["plain"].network()
        assert isinstance(network, nn.Sequential)
        network[4] = nn.BatchNorm2d(12, affine=False)
        self.assert_refused(network, "'3' has none")

    def assert_refused(self, network: nn.Module, message: str) -> None:
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy())
        session = TinySession(layout, classes=CLASSES)
        before = copy.deepcopy(network.state_dict())
        with pytest.raises(MethodError, match=message):
            self.method.select(network, same_ratio(layout, 0.5), session)
        assert session.epochs_trained == 0
        assert all(torch.equal(before[n], v) for n, v in network.state_dict().items())

    def test_its_alias_pulls_on_any_budget(self) -> None:
        slimming = create("network_slimming")
        assert slimming == BatchNormScale(pull=0.5)
        assert slimming.trains
        notes = [self.notes(slimming, epochs) for epochs in (4, 16)]
        assert [found["penalty_pull"] for found in notes] == [0.5, 0.5]
        few, many = (found["penalty_coefficient"] for found in notes)
        assert few / many == pytest.approx(self.reach(8) / self.reach(2))

    def test_a_coefficient_goes_before_the_pull(self) -> None:
        method = create("network_slimming", {"sparsity": 1e-2})
        notes = self.notes(method, 4)
        layout = EXAMPLES["plain"].layout()
        network = EXAMPLES["plain"].network()
        mean = torch.cat([norm_of(network, g).weight.abs() for g in layout.groups]).mean()
        assert notes["penalty_coefficient"] == 1e-2
        reach = self.reach(2)  # half of the epochs
        assert notes["penalty_pull"] == pytest.approx(1e-2 * reach / float(mean.detach()))

    @pytest.mark.parametrize(("sparsity", "warned"), [(1e-5, True), (1e-1, False)])
    def test_a_penalty_that_cannot_matter_is_warned_of(
        self, sparsity: float, warned: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.notes(BatchNormScale(sparsity=sparsity), 2)
        assert ("nothing is learned from it" in caplog.text) == warned

    def test_no_epoch_for_it_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.notes(BatchNormScale(pull=0.5, sparse_share=0.1), 2) == {}
        assert "no epoch to train sparsely" in caplog.text

    def test_younger_settings_leave_older_identities_alone(self) -> None:
        assert identity_settings(BatchNormScale()) == {"sparsity": 0.0, "sparse_share": 0.5}
        pulled = BatchNormScale(pull=0.5)
        assert identity_settings(pulled)["pull"] == 0.5
        assert create("bn_scale", identity_settings(pulled)) == pulled

    def reach(self, epochs: int) -> float:
        """Let a gradient of 1 move a parameter, in steps of the session's kind."""
        moved = velocity = 0.0
        for _ in range(4 * epochs):
            velocity = 0.9 * velocity + 1.0
            moved += 0.05 * velocity
        return moved

    def notes(self, method: PruningMethod, epochs: int) -> dict[str, float]:
        layout = EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES, epochs=epochs)
        method.select(EXAMPLES["plain"].network(), same_ratio(layout, 0.5), session)
        return session.notes
