import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor, nn

from methods import CostTarget, LayerPolicy, MethodError, Ratios, find_layout, shrink
from methods.criteria.allocation import meet_target
from methods.criteria.filter_norm import FilterNorm
from methods.provable.method import Provable, ProvableSampling, _Draws, complexities, draw
from methods.provable.sensitivity import Rule, sample_size, sensitivities
from methods.structure.cost import CostModel, Counts, Term
from methods.structure.layout import Group, Layout
from methods.structure.surgery import masked
from methods.testing import (
    CLASSES,
    EXAMPLES,
    INPUT_SHAPE,
    Example,
    PruningMethodContract,
    TinySession,
)
from tests.methods.helpers import logits, norm_of, same_ratio
from tests.methods.test_digits import accuracy_after, trained  # noqa: F401  (a fixture)

AS_PUBLISHED = Rule(kernel="max", patches="max", sample=None, negligible=0.0)
HALF = CostTarget(axis="macs", reduction=0.5)
READ = {name: example for name, example in EXAMPLES.items() if example.policy.kind != "scatter"}


def measured(
    network: nn.Module, layout: Layout, images: Tensor, **changes: object
) -> dict[str, Tensor]:
    rule = Rule(**{**{f: getattr(AS_PUBLISHED, f) for f in Rule.__slots__}, **changes})
    return sensitivities(network, layout, [images], rule, torch.Generator().manual_seed(0))


def entering(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    """Return what ``layer`` is given, ``[N, C, H, W]``."""
    kept: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(
        lambda _module, inputs: kept.append(inputs[0])
    )
    logits(network, images)
    handle.remove()
    return kept[0]


def by_hand(
    conv: nn.Conv2d, inputs: Tensor, over_kernel: Callable[[Tensor], Tensor] = lambda g: g.amax(2)
) -> Tensor:
    """Return equation 2 for a convolution whose inputs have no negative activations, ``[C]``."""
    edge = conv.kernel_size[0] // 2
    patches = F.unfold(inputs, conv.kernel_size, padding=edge, stride=conv.stride)
    patches = patches.reshape(len(inputs), conv.in_channels, (2 * edge + 1) ** 2, -1)
    best = torch.zeros(conv.in_channels)
    for sign in (1.0, -1.0):
        for filter_ in (sign * conv.weight.detach()).clamp(min=0.0).flatten(2):  # [C, k]
            terms = filter_[None, :, :, None] * patches
            total = terms.sum(dim=(1, 2), keepdim=True)
            parts = torch.where(total > 1.19e-7, terms / total, 0.0)
            best = torch.maximum(best, over_kernel(parts).amax(dim=(0, 2)))
    return best


class TestSensitivity:
    example = EXAMPLES["plain"]

    def images(self, count: int = 6) -> Tensor:
        return TinySession(self.example.layout(), classes=CLASSES).images[:count]

    def test_of_a_convolution_is_the_papers_equation(self) -> None:
        network, layout = self.example.network(), self.example.layout()
        group = layout.groups[0]
        reader = network.get_submodule(group.inputs[0].layer)
        assert isinstance(reader, nn.Conv2d)
        inputs = entering(network, group.inputs[0].layer, self.images())
        found = measured(network, layout, self.images())[group.name]
        torch.testing.assert_close(found, by_hand(reader, inputs))
        summed = measured(network, layout, self.images(), kernel="sum")[group.name]
        torch.testing.assert_close(summed, by_hand(reader, inputs, lambda g: g.sum(2)))
        assert (summed >= found - 1e-6).all()

    def test_of_a_linear_layer_is_the_papers_equation(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
        )
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        inputs = entering(network, "4", self.images())
        weight = network.get_parameter("4.weight").detach()
        expected = torch.zeros(5)
        for signed in (weight.clamp(min=0), (-weight).clamp(min=0)):
            terms = signed * inputs[:, None]  # [N, O, C]
            parts = terms / terms.sum(dim=2, keepdim=True)
            expected = torch.maximum(expected, parts.nan_to_num(0.0).amax(dim=(0, 1)))
        torch.testing.assert_close(measured(network, layout, self.images())["0"], expected)

    @pytest.mark.parametrize("name", READ)
    @pytest.mark.parametrize(("kernel", "least"), [("max", 1 / 9), ("sum", 1.0)])
    def test_is_a_share_and_the_shares_of_what_one_layer_reads_add_up(
        self, name: str, kernel: str, least: float
    ) -> None:
        network, layout = READ[name].network(), READ[name].layout()
        found = measured(network, layout, self.images(), kernel=kernel)
        for group in layout.groups:
            assert (found[group.name] >= 0).all()
            assert (found[group.name] <= 1).all()
            alone = all(
                network.get_submodule(m.layer).weight.shape[1] == group.width  # type: ignore[index]
                for m in group.inputs
            )
            if alone:
                assert found[group.name].sum() >= least - 1e-5

    def test_negative_activations_are_held_against_their_own_kind(self) -> None:
        network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False))
        with torch.no_grad():
            network[0].weight[:] = torch.tensor([1.0, -1.0, -3.0]).reshape(3, 1, 1, 1)  # type: ignore[operator]
            network[1].weight[:] = 1.0  # type: ignore[operator]
        layout = find_layout(network, (1, 2, 2), LayerPolicy(protect_stem=False))
        found = measured(network, layout, torch.ones(1, 1, 2, 2))["0"]
        torch.testing.assert_close(found, torch.tensor([1.0, 0.25, 0.75]))

    def test_grows_with_the_images(self) -> None:
        network, layout = self.example.network(), self.example.layout()
        few, many = (measured(network, layout, self.images(n)) for n in (3, 9))
        assert all((few[name] <= many[name]).all() for name in few)
        assert any((few[name] < many[name]).any() for name in few)

    def test_does_not_depend_on_how_loud_the_filters_of_the_reader_are(self) -> None:
        network, layout = self.example.network(), self.example.layout()
        group = layout.groups[0]
        before = measured(network, layout, self.images())[group.name]
        with torch.no_grad():
            reader = network.get_parameter(f"{group.inputs[0].layer}.weight")
            reader.mul_(torch.linspace(0.5, 8.0, len(reader)).reshape(-1, 1, 1, 1))
        after = measured(network, layout, self.images())[group.name]
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)

    def test_does_not_depend_on_where_a_factor_stands(self) -> None:
        network, layout = self.example.network(), self.example.layout()
        group = layout.groups[0]
        before = measured(network, layout, self.images())[group.name]
        factors = torch.linspace(0.5, 4.0, group.width)
        with torch.no_grad():
            norm = norm_of(network, group)
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            network.get_parameter(f"{group.inputs[0].layer}.weight").div_(
                factors.reshape(1, -1, 1, 1)
            )
        after = measured(network, layout, self.images())[group.name]
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("name", READ)
    def test_a_dead_filter_has_none_goes_first_and_nobody_notices(self, name: str) -> None:
        network, layout = READ[name].network(), READ[name].layout()
        for group in layout.groups:
            for norm in group.norms:
                with torch.no_grad():
                    network.get_parameter(f"{norm}.weight")[2] = 0.0
                    network.get_parameter(f"{norm}.bias")[2] = 0.0
            for member in group.outputs[1:]:  # depthwise convolutions and what follows them
                for parameter in network.get_submodule(member.layer).parameters(recurse=False):
                    with torch.no_grad():
                        parameter[list(member.channels[2])] = 0.0
        found = measured(network, layout, self.images())
        if name != "residual_stream":  # there an unpruned shortcut would have to be dead as well
            assert all(found[group.name][2] == 0.0 for group in layout.groups)
        gone = {g.name: tuple(torch.nonzero(found[g.name] == 0).flatten()) for g in layout.groups}
        plan = Provable(images=6).select(
            network,
            {g.name: max(0, len(gone[g.name])) / g.width for g in layout.groups},
            TinySession(layout, classes=CLASSES),
        )
        for group in layout.groups:
            assert set(plan.dropped(group.name)) <= set(map(int, gone[group.name]))
        images = TinySession(layout, classes=CLASSES).images[:6]
        expected = logits(network, images)
        torch.testing.assert_close(
            logits(masked(network, plan, layout), images), expected, rtol=0.0, atol=1e-5
        )

    def test_tiny_sums_have_no_parts(self) -> None:
        network, layout = self.example.network(), self.example.layout()
        group = layout.groups[0]
        with torch.no_grad():
            network.get_parameter(f"{group.inputs[0].layer}.weight").mul_(1e-12)
        assert (measured(network, layout, self.images())[group.name] == 0).all()

    def test_negligible_patches_can_be_left_out(self) -> None:
        network, layout = self.example.network(), self.example.layout()
        all_, loud = (
            measured(network, layout, self.images(), negligible=share) for share in (0.0, 0.9)
        )
        assert all((loud[name] <= all_[name]).all() for name in all_)
        assert any((loud[name] < all_[name]).any() for name in all_)

    def test_a_sample_of_patches_sees_less_and_the_mean_is_smaller(self) -> None:
        network, layout = self.example.network(), self.example.layout()
        full = measured(network, layout, self.images())
        for changes in ({"sample": 4}, {"patches": "mean"}):
            found = measured(network, layout, self.images(), **changes)
            assert all((found[name] <= full[name] + 1e-6).all() for name in full)
            assert any((found[name] < full[name]).any() for name in full)

    def test_outputs_taken_a_few_at_a_time_give_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network, layout = self.example.network(), self.example.layout()
        whole = measured(network, layout, self.images())
        monkeypatch.setattr("methods.provable.sensitivity._CHUNK", 1)
        split = measured(network, layout, self.images())
        assert all(torch.equal(whole[name], split[name]) for name in whole)


class TestSampleSize:
    def test_is_the_papers_for_the_residual_network_of_20_layers(self) -> None:
        def conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)

        widths = [3] + [16] * 7 + [32] * 6 + [64] * 6
        strides = [1 + (a not in (3, b)) for a, b in pairwise(widths)]
        layers = [conv(a, b, s) for (a, b), s in zip(pairwise(widths), strides, strict=True)]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        assert sample_size(network, (3, 32, 32)) == 183

    def test_is_what_the_method_asks_the_session_for(self) -> None:
        asked: list[int] = []

        class Asked(TinySession):
            def batches(self, images: int, batch_size: int = 128):  # type: ignore[no-untyped-def]
                asked.append(images)
                return super().batches(images, batch_size)

        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        for method in (Provable(), Provable(images=5)):
            method.scores(network, Asked(layout, classes=CLASSES))
        assert asked == [sample_size(network, INPUT_SHAPE), 5]


def of_paper(
    network: nn.Module,
    layout: Layout,
    found: dict[str, Tensor],
    target: CostTarget,
    factors: tuple[float, float],
) -> dict[str, int]:
    """Allocate by the paper's own equations 4 and 5: one error, found by root finding."""
    K, C = factors
    logs = complexities(network, layout)

    def kept(log_error: float) -> dict[str, int]:
        error = math.exp(log_error)
        counts = {}
        for group in layout.groups:
            s = found[group.name].double()
            draws = math.ceil(
                K * (6 + 2 * error) * 2 * C * float(s.sum()) * logs[group.name] / error**2
            )
            expected = float((1 - (1 - s / s.sum()) ** draws).sum())
            counts[group.name] = min(group.width, max(1, math.ceil(expected - 1e-9)))
        return counts

    def gap(log_error: float) -> float:
        counts = np.array(list(kept(log_error).values()))
        model = layout.cost
        return model.cost(target.axis, counts) - model.dense(target.axis) * (1 - target.reduction)

    return kept(float(brentq(gap, math.log(1e-3), math.log(1e9))))


class TestAllocation:
    def ratios(self, name: str, target: CostTarget, method: Provable | None = None) -> Ratios:
        network, layout = READ[name].network(), READ[name].layout()
        session = TinySession(layout, classes=CLASSES, target=target)
        return (method or Provable(images=8)).allocate(network, target, session)

    @pytest.mark.parametrize("name", READ)
    @pytest.mark.parametrize("axis", ["macs", "params"])
    @pytest.mark.parametrize("reduction", [0.05, 0.3, 0.5])
    def test_it_costs_what_was_asked_for(self, name: str, axis: str, reduction: float) -> None:
        layout = READ[name].layout()
        model = layout.cost
        target = CostTarget(axis=axis, reduction=reduction)  # type: ignore[arg-type]
        try:
            ratios = self.ratios(name, target)
        except MethodError:
            assert model.cost(target.axis, np.ones(len(model.groups), dtype=np.int64)) > (
                model.dense(target.axis) * (1 - reduction)
            )
            return
        kept = np.array([round(g.width * (1 - ratios[g.name])) for g in layout.groups])
        gap = abs(model.cost(target.axis, kept) / model.dense(target.axis) - (1 - reduction))
        widths = np.array(model.widths)
        one = [
            1 - model.cost(target.axis, widths - row) / model.dense(target.axis)
            for row in np.eye(len(widths), dtype=np.int64)
        ]
        assert gap <= max(0.01, max(one) / 2)

    @pytest.mark.parametrize("factors", [(3.0, 3.0), (1.0, 10.0)])
    def test_it_is_the_papers_whatever_its_constants(self, factors: tuple[float, float]) -> None:
        network, layout = READ["plain"].network(), READ["plain"].layout()
        session = TinySession(layout, classes=CLASSES)
        method = Provable(images=8)
        found = dict(method.scores(network, session))
        expected = of_paper(network, layout, found, HALF, factors)
        ratios = method.allocate(network, HALF, session)
        for group in layout.groups:
            kept = group.width * (1 - ratios[group.name])
            assert abs(kept - expected[group.name]) <= 1.01  # a root within a step, and repair

    def test_a_larger_target_never_keeps_more(self) -> None:
        layout = READ["plain"].layout()
        counts = [
            [
                g.width * (1 - self.ratios("plain", CostTarget(axis="macs", reduction=r))[g.name])
                for g in layout.groups
            ]
            for r in (0.1, 0.3, 0.5, 0.7, 0.9)
        ]
        for more, less in pairwise(counts):
            assert all(a >= b - 1.01 for a, b in zip(more, less, strict=True))
            assert sum(more) > sum(less)

    @given(
        sensitivity=st.lists(st.just(0.0) | st.floats(1e-6, 1.0), min_size=1, max_size=40),
        complexity=st.floats(1.0, 100.0),
    )
    def test_more_draws_never_keep_fewer_and_never_a_filter_of_sensitivity_0(
        self, sensitivity: list[float], complexity: float
    ) -> None:
        draws = _Draws.of(torch.tensor(sensitivity), complexity)
        counts = [draws.expected(10.0**power) for power in range(-30, 31, 3)]
        assert counts == sorted(counts)
        assert counts[0] >= 1
        assert counts[-1] == max(1, sum(s > 0.0 for s in sensitivity))

    def test_equal_sensitivities_give_nearly_equal_ratios(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "methods.provable.method.sensitivities",
            lambda _network, layout, *_: {
                g.name: torch.full((g.width,), 0.3) for g in layout.groups
            },
        )
        network = nn.Sequential(
            nn.Conv2d(3, 64, 3),
            nn.Conv2d(64, 96, 3),
            nn.Conv2d(96, 128, 3),
            nn.Flatten(),
            nn.Linear(128 * 4, CLASSES),
        )
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        session = TinySession(layout, classes=CLASSES, target=HALF)
        ratios = Provable().allocate(network, HALF, session)
        assert max(ratios.values()) - min(ratios.values()) < 0.08

    def test_filters_of_sensitivity_0_come_back_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def half_dead(_network: nn.Module, layout: Layout, *_: object) -> dict[str, Tensor]:
            return {g.name: (torch.arange(g.width) % 2).float() for g in layout.groups}

        monkeypatch.setattr("methods.provable.method.sensitivities", half_dead)
        layout = READ["plain"].layout()
        strict = self.ratios("plain", CostTarget(axis="macs", reduction=0.9))
        assert all(
            r * g.width >= g.width // 2 for g, r in zip(layout.groups, strict.values(), strict=True)
        )
        mild = self.ratios("plain", CostTarget(axis="macs", reduction=0.02))
        assert all(
            r * g.width < g.width // 2 for g, r in zip(layout.groups, mild.values(), strict=True)
        )

    def test_more_than_one_filter_per_group_leaves_is_refused(self) -> None:
        with pytest.raises(
            MethodError, match=r"removes 99.9% of the macs, and one filter per group"
        ):
            self.ratios("residual_pad", CostTarget(axis="macs", reduction=0.999))

    def test_it_is_asked_for_where_a_trial_names_a_target_only(self) -> None:
        network, layout = READ["plain"].network(), READ["plain"].layout()
        method = Provable(images=8)
        plan = method.select(network, {}, TinySession(layout, classes=CLASSES, target=HALF))
        assert plan.ratios == pytest.approx(self.ratios("plain", HALF))
        assert len({round(ratio, 2) for ratio in plan.ratios.values()}) > 1  # not uniform

    def test_it_never_touches_protected_layers(self) -> None:
        network, layout = READ["residual_pad"].network(), READ["residual_pad"].layout()
        plan = Provable(images=8).select(
            network, {}, TinySession(layout, classes=CLASSES, target=HALF)
        )
        stem = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
        before = stem.weight.detach().clone()
        shrink(network, plan, layout)
        assert torch.equal(stem.weight, before)


class TestMeetingATarget:
    @staticmethod
    def model(widths: dict[str, int]) -> CostModel:
        terms = [
            Term(macs_unit=1, params_unit=1, out_by_group={name: 1}, in_by_group={})
            for name in widths
        ]
        return CostModel(widths, terms)

    def test_groups_that_change_at_once_come_back_one_by_one(self) -> None:
        model = self.model({"a": 100, "b": 100})

        def counts(scale: float) -> Counts:
            return np.array([100, 100] if scale > 1 else [10, 10], dtype=np.int64)

        ratios = meet_target(model, CostTarget(axis="macs", reduction=0.25), counts)
        assert ratios == pytest.approx({"a": 0.25, "b": 0.25})

    def test_what_counts_never_keeps_is_kept_when_the_target_leaves_room(self) -> None:
        model = self.model({"a": 100, "b": 100})
        ratios = meet_target(
            model, CostTarget(axis="macs", reduction=0.1), lambda _: np.array([50, 50])
        )
        assert ratios == pytest.approx({"a": 0.1, "b": 0.1})

    def test_what_counts_never_removes_is_removed_when_the_target_asks(self) -> None:
        model = self.model({"a": 100, "b": 100})
        ratios = meet_target(
            model, CostTarget(axis="macs", reduction=0.9), lambda _: np.array([50, 50])
        )
        assert ratios == pytest.approx({"a": 0.9, "b": 0.9})


class TestProvable(PruningMethodContract):
    method = Provable(images=12)
    examples = READ

    def test_two_runs_agree_to_the_bit(self) -> None:
        network, layout = READ["plain"].network(), READ["plain"].layout()
        one, other = (self.scores(network, layout) for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_ranked_by_l1_only_the_allocation_is_its_own(self) -> None:
        network, layout = READ["plain"].network(), READ["plain"].layout()
        session = TinySession(layout, classes=CLASSES, target=HALF)
        own, l1 = (
            Provable(images=8, ranking=r).select(network, {}, session)
            for r in ("sensitivity", "l1")
        )
        assert own.ratios == l1.ratios
        assert own.kept != l1.kept
        assert l1 == FilterNorm(p=1.0).select(network, l1.ratios, session)

    def test_its_allocation_and_its_ranking_can_be_had_apart(self) -> None:
        network, layout = READ["plain"].network(), READ["plain"].layout()
        session = TinySession(layout, classes=CLASSES, target=HALF)
        uniform = Provable(images=8).select(network, same_ratio(layout, 0.5), session)
        assert set(uniform.ratios.values()) == {0.5}

    def test_it_is_asked_under_its_short_name_too(self) -> None:
        from methods import create

        assert create("pfp", {"images": 3}) == Provable(images=3)

    @pytest.mark.skipif("scatter" not in str(LayerPolicy.__doc__), reason="no such policy")
    def test_filters_nobody_reads_alone_are_refused_at_the_door(self) -> None:
        network = EXAMPLES["residual_projection"].network()
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(kind="scatter"))
        with pytest.raises(MethodError, match="none reads them alone"):
            Provable().check(network, layout)


class TestRankedByL1(PruningMethodContract):
    method = Provable(images=4, ranking="l1")
    examples: ClassVar = {"plain": READ["plain"]}


class TestOtherReductions(PruningMethodContract):
    method = Provable(images=12, kernel="sum", patches="mean", negligible=0.1)
    examples: ClassVar = {name: READ[name] for name in ("plain", "inverted_residual")}


class SamplingContract(PruningMethodContract):
    examples: ClassVar = {name: READ[name] for name in ("plain", "bottleneck", "residual_stream")}

    def test_the_network_is_left_as_found_unless_trained(self, example: Example) -> None:
        """Only the weights of readers may change, by one factor per filter that stays."""
        network, layout = example.network(), example.layout()
        before = copy.deepcopy(network.state_dict())
        plan = self.select(network, layout, 0.5)
        readers = {f"{m.layer}.weight" for g in layout.groups for m in g.inputs}
        changed = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
        assert changed == readers
        for group, member in ((g, m) for g in layout.groups for m in g.inputs):
            factors = (
                network.get_parameter(f"{member.layer}.weight") / before[f"{member.layer}.weight"]
            )
            for index in range(group.width):
                column = factors[:, list(member.channels[index])]
                assert column.std() < 1e-5
                assert column.mean() >= 1 - 1e-6
                if index not in plan.kept[group.name]:
                    assert column.mean() == 1.0

    def test_the_layer_that_reads_them_gets_what_it_got_on_average(self) -> None:
        example = READ["plain"]
        network, layout = example.network(), example.layout()
        group = layout.groups[1]
        reader = group.inputs[0].layer
        session = TinySession(layout, classes=CLASSES)
        images = session.images[:4]
        conv = network.get_submodule(reader)
        inputs = entering(network, reader, images)
        ratios = {group.name: 0.5}
        with torch.no_grad():
            expected = conv(inputs)
            mean, one = torch.zeros_like(expected), 0.0
            for seed in range(200):
                twin = copy.deepcopy(network)
                plan = self.drawn(twin, layout, ratios, seed)
                thinned = inputs.clone()
                thinned[:, plan[group.name]] = 0.0
                output = twin.get_submodule(reader)(thinned)
                mean += output / 200
                one = max(one, float((output - expected).norm() / expected.norm()))
        assert one > 0.3
        assert (mean - expected).norm() / expected.norm() < one / 5

    def drawn(
        self, network: nn.Module, layout: Layout, ratios: Ratios, seed: int
    ) -> dict[str, list[int]]:
        found = self.table(layout)

        class Known(TinySession):
            def statistics(self, *_: object) -> dict[str, Tensor]:
                return found

        plan = self.method.select(network, ratios, Known(layout, classes=CLASSES, seed=seed))
        return {name: plan.dropped(name) for name in plan.kept}

    def table(self, layout: Layout) -> dict[str, Tensor]:
        if not hasattr(self, "_table"):
            network = READ["plain"].network()
            self._table = dict(self.method.scores(network, TinySession(layout, classes=CLASSES)))
        return self._table


class TestSampling(SamplingContract):
    method = ProvableSampling(images=12)

    def test_another_seed_draws_other_filters(self) -> None:
        network, layout = READ["plain"].network(), READ["plain"].layout()
        draws = [
            self.drawn(copy.deepcopy(network), layout, same_ratio(layout, 0.5), seed)
            for seed in range(4)
        ]
        assert any(one != other for one, other in pairwise(draws))

    def test_a_dead_filter_is_never_drawn_while_others_are_left(self) -> None:
        network, layout = READ["plain"].network(), READ["plain"].layout()
        norm = norm_of(network, layout.groups[0])
        with torch.no_grad():
            norm.weight[3] = norm.bias[3] = 0.0
        for ratio in (0.13, 0.5):
            for seed in range(5):
                assert (
                    3 not in self.select(copy.deepcopy(network), layout, ratio, seed=seed).kept["0"]
                )


class TestDerandomised(SamplingContract):
    method = ProvableSampling(images=12, certain=True)


def test_as_many_are_drawn_as_chances_add_up_to_each_by_its_own() -> None:
    chances = np.array([1.0, 0.9, 0.5, 0.3, 0.2, 0.1, 0.0])
    counts = np.zeros(len(chances))
    for seed in range(2000):
        drawn = draw(chances, torch.Generator().manual_seed(seed))
        assert len(set(drawn)) == 3
        counts[list(drawn)] += 1
    assert counts[0] == 2000
    assert counts[6] == 0
    assert np.abs(counts / 2000 - chances).max() < 0.04


def test_groups_say_their_largest_reader() -> None:
    network, layout = READ["residual_stream"].network(), READ["residual_stream"].layout()
    logs = complexities(network, layout)
    group: Group = next(g for g in layout.groups if len(g.inputs) > 1)
    assert logs[group.name] == pytest.approx(math.log(8 * (4 * 4 + 1) * 9 / 1e-16))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"kernel": "sum", "patches": "mean"}])
def test_it_beats_chance_on_real_images(
    trained: list[tuple[nn.Module, Layout]],  # noqa: F811
    settings: dict[str, str],
) -> None:
    chance = accuracy_after(trained, "random", {}, draws=5)
    assert accuracy_after(trained, "provable", settings) > chance + 0.05
