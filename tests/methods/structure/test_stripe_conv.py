"""What a stripe convolution computes: the invariants of the layer alone."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.structure.cost import count_cost
from methods.structure.stripe_conv import StripeConv, bare_weight, merge, wear
from methods.testing import counted_by_torch

CASES = list(itertools.product((1, 3, 5), (1, 2), (7, 8)))  # kernel, stride, size


def conv_of(kernel: int, stride: int = 1, *, inputs: int = 4, outputs: int = 6) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def images(size: int = 8, count: int = 3) -> Tensor:
    return torch.randn(count, 4, size, size)


def random_mask(conv: nn.Conv2d, share: float = 0.5) -> Tensor:
    mask = torch.rand(conv.out_channels, *conv.kernel_size) < share
    mask[0, 0, 0] = True
    return mask


def masked(conv: nn.Conv2d, mask: Tensor) -> nn.Conv2d:
    twin = copy.deepcopy(conv)
    twin.weight.data *= mask[:, None]
    return twin


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("kernel", "stride", "size"), CASES)
class TestForms:
    def test_a_skeleton_of_ones_changes_nothing(self, kernel: int, stride: int, size: int) -> None:
        conv, batch = conv_of(kernel, stride), images(size)
        dense = conv(batch)
        wear(conv)
        assert torch.equal(conv(batch), dense)

    def test_all_stripes_together_are_the_convolution(
        self, kernel: int, stride: int, size: int
    ) -> None:
        conv, batch = conv_of(kernel, stride), images(size)
        broken = StripeConv(conv, torch.ones(6, kernel, kernel, dtype=torch.bool))
        torch.testing.assert_close(broken(batch), conv(batch), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    def test_what_is_left_computes_what_the_skeleton_does(
        self, kernel: int, stride: int, size: int, dtype: torch.dtype, close: float
    ) -> None:
        conv, batch = conv_of(kernel, stride).to(dtype), images(size).to(dtype)
        skeleton = wear(conv)
        mask = random_mask(conv)
        skeleton.factors.copy_(torch.randn_like(skeleton.factors) * mask)
        expected = conv(batch)
        merge(conv)
        got = StripeConv(conv, mask)(batch)
        torch.testing.assert_close(got, expected, atol=close, rtol=close)


def test_merging_keeps_the_output_and_leaves_a_plain_convolution() -> None:
    conv, batch = conv_of(3), images()
    kind, weight = type(conv), conv.weight
    wear(conv).factors.normal_()
    expected = conv(batch)
    merge(conv)
    assert type(conv) is kind
    assert conv.weight is weight  # the optimizer's parameter is still the network's
    assert [*conv.state_dict()] == ["weight"]
    torch.testing.assert_close(conv(batch), expected, atol=1e-6, rtol=1e-6)


def test_gradients_pass_the_skeleton_as_derived() -> None:
    conv, batch = conv_of(3), images()
    skeleton = wear(conv)
    skeleton.factors.normal_()
    skeleton.factors[2, 1, 1] = 0.0
    with torch.enable_grad():
        effective = conv.weight.detach().requires_grad_()
        F.conv2d(batch, effective, padding=1).square().sum().backward()  # type: ignore[no-untyped-call]
        conv(batch).square().sum().backward()
    assert effective.grad is not None
    bare, factors = bare_weight(conv), skeleton.factors
    torch.testing.assert_close(factors.grad, (bare * effective.grad).sum(dim=1))
    torch.testing.assert_close(bare.grad, factors[:, None] * effective.grad)
    assert bare.grad is not None
    assert not bare.grad[2, :, 1, 1].any()


def test_thresholding_costs_no_more_than_the_bound() -> None:
    conv, batch = conv_of(3), images()
    skeleton = wear(conv)
    skeleton.factors.uniform_(-1.0, 1.0)
    expected = conv(batch)
    dropped = skeleton.factors.abs() <= 0.3
    norms = bare_weight(conv).abs().sum(dim=1)
    bound = float((skeleton.factors.abs() * norms)[dropped].sum() * batch.abs().max())
    merge(conv)
    error = (StripeConv(conv, ~dropped)(batch) - expected).abs().max()
    assert 0.0 < float(error) <= bound


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("stride", [1, 2])
def test_macs_are_inputs_times_stripes_times_positions(share: float, stride: int) -> None:
    conv = conv_of(3, stride)
    mask = random_mask(conv, share)
    network = nn.Sequential(StripeConv(conv, mask))
    positions = (8 // stride) ** 2
    cost = count_cost(network, (4, 8, 8))
    assert cost == (4 * int(mask.sum()) * positions, 4 * int(mask.sum()))
    assert cost.macs == counted_by_torch(network, (4, 8, 8))
    if share == 1.0:
        assert cost == count_cost(nn.Sequential(conv), (4, 8, 8))


def test_one_tap_is_filter_pruning() -> None:
    conv, batch = conv_of(1), images()
    mask = random_mask(conv)
    broken = StripeConv(conv, mask)
    kept = mask.flatten().nonzero().flatten()
    assert len(broken.index) / mask.numel() == len(kept) / conv.out_channels
    torch.testing.assert_close(broken(batch)[:, kept], F.conv2d(batch, conv.weight[kept]))
    torch.testing.assert_close(broken(batch), masked(conv, mask)(batch))


def test_breaking_twice_gives_the_same_and_it_is_saved_exactly(tmp_path: Path) -> None:
    conv, batch = conv_of(3), images()
    mask = random_mask(conv)
    first = StripeConv(conv, mask)
    again = StripeConv(masked(conv, mask), mask)
    state = first.state_dict()
    assert [*state] == ["weight", "index"]
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())
    save_file(state, tmp_path / "broken.safetensors")
    other = StripeConv(conv_of(3), mask)
    other.load_state_dict(load_file(tmp_path / "broken.safetensors"))
    assert torch.equal(other(batch), first(batch))


def test_odd_kernels_paddings_dilations_and_biases_are_kept() -> None:
    conv = nn.Conv2d(4, 6, (1, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2))
    mask = random_mask(conv)
    broken = StripeConv(conv, mask)
    batch = images()
    torch.testing.assert_close(broken(batch), masked(conv, mask)(batch), atol=1e-5, rtol=1e-5)


def test_it_is_exported_with_a_free_batch_size() -> None:
    broken = StripeConv(conv_of(3, 2), random_mask(conv_of(3, 2))).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(broken, (images(count=2),), dynamic_shapes=({0: batch},))
    more = images(count=7)
    torch.testing.assert_close(program.module()(more), broken(more))


def test_what_is_left_learns() -> None:
    conv = conv_of(3)
    broken = StripeConv(conv, random_mask(conv))
    with torch.enable_grad():
        broken(images()).square().mean().backward()
    assert broken.weight.grad is not None
    assert broken.weight.grad.flatten(1).any(dim=1).all()


def test_a_frozen_weight_stays_frozen() -> None:
    conv = conv_of(3).requires_grad_(False)
    assert not StripeConv(conv, random_mask(conv)).weight.requires_grad
