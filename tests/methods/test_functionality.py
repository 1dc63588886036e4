import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from methods import MethodError, PruningPlan, create, masked_difference, shrink
from methods.criteria.contribution import contributions
from methods.criteria.filter_norm import FilterNorm
from methods.criteria.random_filters import RandomPruning
from methods.functionality.activation_maximisation import Ascent, draw_start, maximise, responses
from methods.functionality.compensation import regressions
from methods.functionality.filter_clusters import cluster_filters, redundant_filters, share_out
from methods.functionality.method import Functionality, whole_share
from methods.structure.layout import Group, LayerPolicy, Layout, find_layout
from methods.testing import (
    CLASSES,
    EXAMPLES,
    INPUT_SHAPE,
    Example,
    PruningMethodContract,
    TinySession,
    permute_filters,
)
from tests.methods.helpers import logits, norm_of, same_ratio
from tests.methods.test_digits import accuracy_after, trained  # noqa: F401 (a fixture)

QUICK = Functionality(am_steps=3, images=32)
ASCENT = Ascent(steps=20, step_size=1.0, decay=1e-3, noise=0.1, batch_size=128)
GROUPINGS = ["am_pixels", "am_response", "weights_kmeans", "none"]
CONTRIBUTIONS = ["grad", "taylor", "l1", "random"]


def copy_filter(network: nn.Module, group: Group, source: int, targets: Sequence[int]) -> None:
    """Make filters of ``group`` do what filter ``source`` does, in every layer that emits them."""
    for member in group.outputs:
        layer = network.get_submodule(member.layer)
        for value in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if value.dim():
                for target in targets:
                    value.data[list(member.channels[target])] = value.data[
                        list(member.channels[source])
                    ]


def select(
    method: Functionality, network: nn.Module, layout: Layout, ratios: dict[str, float]
) -> PruningPlan:
    return method.select(network, ratios, TinySession(layout, classes=CLASSES))


class TestFunctionality(PruningMethodContract):
    method = QUICK

    def test_the_network_sees_training_images_only(self, example: Example) -> None:
        """Besides these it sees the images of the ascents, one per filter, producer and step."""
        network, layout = example.network(), example.layout()
        session = self.session(layout)
        known = {image.numpy().tobytes() for image in session.images}
        other: list[Tensor] = []

        def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            other.extend(i for i in inputs[0].detach() if i.numpy().tobytes() not in known)

        handle = network.register_forward_pre_hook(look)
        self.method.select(network, same_ratio(layout, 0.5), session)
        handle.remove()
        ascents = sum(group.width * len(group.producers) for group in layout.groups)
        assert len(other) == ascents * QUICK.am_steps
        assert session.images_charged == self.method.images_made(layout) == len(other)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_only_ascents_make_images_of_their_own(grouping: Any) -> None:
    layout = EXAMPLES["plain"].layout()
    session = TinySession(layout, classes=CLASSES)
    method = replace(QUICK, grouping=grouping)
    method.select(EXAMPLES["plain"].network(), same_ratio(layout, 0.5), session)
    filters = sum(layout.widths.values())
    assert session.images_charged == method.images_made(layout)
    assert method.images_made(layout) == (3 * filters if grouping.startswith("am") else 0)


def test_what_ascents_take_is_said_before_they_begin(caplog: pytest.LogCaptureFixture) -> None:
    layout = EXAMPLES["plain"].layout()
    with caplog.at_level("INFO", logger="methods"):
        QUICK.select(
            EXAMPLES["plain"].network(),
            same_ratio(layout, 0.5),
            TinySession(layout, classes=CLASSES),
        )
    assert f"passes {QUICK.images_made(layout)} images forward and back" in caplog.text


class TestClusteredWeights(PruningMethodContract):
    method = Functionality(grouping="weights_kmeans", contribution="taylor", images=32)


class TestMerging(PruningMethodContract):
    method = Functionality(grouping="weights_kmeans", merge=True, merge_fit=0.0, images=32)

    def test_the_network_is_left_as_found_unless_trained(self, example: Example) -> None:
        """Merging changes the weights that read removed filters, and nothing else."""
        network, layout = example.network(), example.layout()
        before = copy.deepcopy(network)
        self.method.select(network, same_ratio(layout, 0.5), self.session(layout))
        readers = {f"{member.layer}.weight" for g in layout.groups for member in g.inputs}
        changed = {
            name
            for name, value in before.state_dict().items()
            if not torch.equal(network.state_dict()[name], value)
        }
        assert changed
        assert changed <= readers
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class TestAblations:
    @pytest.mark.parametrize("name", list(EXAMPLES))
    def test_no_groups_and_norms_are_the_norm_baseline(self, name: str) -> None:
        method = Functionality(grouping="none", contribution="l1")
        network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
        for ratio in (0.0, 0.1, 0.3, 0.5, 0.75, 0.99):
            expected = FilterNorm(p=1).select(
                network, same_ratio(layout, ratio), TinySession(layout, classes=CLASSES)
            )
            assert select(method, network, layout, same_ratio(layout, ratio)) == expected

    def test_no_groups_and_norms_are_the_norm_baseline_under_a_schedule(self) -> None:
        method = Functionality(grouping="none", contribution="l1")
        layout = EXAMPLES["plain"].layout()
        plans, networks = [], []
        for each in (method, FilterNorm(p=1)):
            network = EXAMPLES["plain"].network()
            session = TinySession(layout, classes=CLASSES, schedule="iterative")
            plans.append(each.select(network, same_ratio(layout, 0.5), session))
            networks.append(network)
        assert plans[0] == plans[1]
        images = TinySession(layout, classes=CLASSES).images
        assert torch.equal(logits(networks[0], images), logits(networks[1], images))

    def test_no_groups_and_chance_are_the_random_baseline(self) -> None:
        network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()
        ratios = same_ratio(layout, 0.5)
        expected = RandomPruning().select(network, ratios, TinySession(layout, classes=CLASSES))
        method = Functionality(grouping="none", contribution="random")
        assert select(method, network, layout, ratios) == expected

    @pytest.mark.parametrize(
        ("grouping", "contribution"), list(itertools.product(GROUPINGS, CONTRIBUTIONS))
    )
    def test_every_grouping_goes_with_every_contribution(
        self, grouping: str, contribution: str
    ) -> None:
        settings = {"grouping": grouping, "contribution": contribution, "am_steps": 2, "images": 16}
        network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()
        plan = create("functionality", settings).select(
            network, same_ratio(layout, 0.5), TinySession(layout, classes=CLASSES)
        )
        assert {name: len(kept) for name, kept in plan.kept.items()} == {
            group.name: group.width - group.width // 2 for group in layout.groups
        }
        assert masked_difference(network, plan, layout, torch.randn(4, *INPUT_SHAPE)) < 1e-5

    def test_as_many_clusters_as_filters_are_plain_ranking(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        plain, singles = replace(QUICK, grouping="none"), replace(QUICK, kappa=1.0)
        for ratio in (0.2, 0.6, 0.9):
            ratios = same_ratio(layout, ratio)
            assert select(singles, network, layout, ratios) == select(
                plain, network, layout, ratios
            )

    def test_clustering_changes_the_choice(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        ratios = same_ratio(layout, 0.5)
        plans = [
            select(replace(QUICK, grouping=grouping), network, layout, ratios).kept
            for grouping in ("am_pixels", "weights_kmeans", "none")
        ]
        assert plans[0] != plans[2]
        assert plans[1] != plans[2]
        assert plans[0] != plans[1]


class TestActivationMaximisation:
    @pytest.mark.parametrize("name", list(EXAMPLES))
    def test_the_objective_rises(self, name: str) -> None:
        network, layout = EXAMPLES[name].network().eval(), EXAMPLES[name].layout()
        start = draw_start(TinySession(layout, classes=CLASSES), 0.1, 64)
        risen, filters = 0, 0
        for group in layout.groups:
            for layer in group.norms:
                assert layer
                images = maximise(network, layer, range(group.width), start, ASCENT)
                with torch.no_grad():
                    first = responses(network, layer, start.image[None])[0]
                    last = responses(network, layer, images).diagonal()
                risen += int((last > first).sum())
                filters += group.width
        assert risen >= 0.95 * filters

    def test_a_batch_of_filters_is_as_good_as_one_by_one(self) -> None:
        network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()
        start = draw_start(TinySession(layout, classes=CLASSES), 0.1, 64)
        layer = layout.groups[-1].norms[0] or ""
        together = maximise(network, layer, range(8), start, ASCENT)
        for batch_size in (1, 3):
            apart = replace(ASCENT, batch_size=batch_size)
            torch.testing.assert_close(
                maximise(network, layer, range(8), start, apart), together, rtol=0, atol=1e-5
            )
        torch.testing.assert_close(
            maximise(network, layer, range(5, 6), start, ASCENT), together[5:6], rtol=0, atol=1e-5
        )

    def test_pixels_keep_to_the_range_of_the_training_images(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES)
        session.images[:, 0].clamp_(-0.1, 0.2)
        start = draw_start(session, 0.1, 64)
        found = maximise(network, "1", range(8), start, replace(ASCENT, step_size=20.0))
        for channel in range(3):
            images = session.images[:, channel]
            assert found[:, channel].min() == images.min()
            assert found[:, channel].max() == images.max()

    def test_a_filter_scaled_together_with_its_norm_has_the_same_image(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        start = draw_start(TinySession(layout, classes=CLASSES), 0.1, 64)
        before = maximise(network, "4", range(12), start, ASCENT)
        norm, conv = norm_of(network, layout.groups[1]), network.get_submodule("3")
        assert isinstance(conv, nn.Conv2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            conv.weight[2] *= 3.0
            norm.running_mean[2] *= 3.0
            norm.running_var[2] *= 9.0
        after = maximise(network, "4", range(12), start, ASCENT)
        torch.testing.assert_close(after, before, rtol=0, atol=1e-3)

    def test_the_network_runs_no_further_than_the_layer(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        ran = []
        network.get_submodule("6").register_forward_hook(lambda *_: ran.append(6))
        start = draw_start(TinySession(layout, classes=CLASSES), 0.1, 64)
        maximise(network, "4", range(2), start, ASCENT)
        assert not ran

    def test_a_layer_that_never_runs_is_named(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 3))
        network.add_module("unused", nn.Sequential())
        network[0].spare = nn.Conv2d(3, 4, 3)
        with pytest.raises(MethodError, match=r"without its layer '0\.spare'"):
            responses(network, "0.spare", torch.zeros(1, *INPUT_SHAPE))

    def test_it_works_without_a_batch_norm(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(216, CLASSES)
        )
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        assert layout.groups[0].norms == (None,)
        plan = select(QUICK, network, layout, {"0": 0.5})
        assert len(plan.kept["0"]) == 3


class TestContribution:
    @pytest.mark.parametrize("kind", ["grad", "taylor"])
    def test_it_is_the_formula_image_by_image(self, kind: Any) -> None:
        network, layout = EXAMPLES["plain"].network().eval(), EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES)
        got = contributions(network, layout, session.batches(8, 3), kind)
        first = nn.Sequential(*list(network.children())[:5])  # up to the second batch norm
        rest = nn.Sequential(*list(network.children())[5:])
        total = torch.zeros(12)
        for image, label in zip(session.images[:8], session.labels[:8], strict=True):
            emitted = first(image[None]).detach().requires_grad_()
            loss = nn.functional.cross_entropy(rest(emitted), label[None])
            (slope,) = torch.autograd.grad(loss, emitted)
            if kind == "grad":
                total += slope.abs().sum(dim=(0, 2, 3))
            else:
                total += (slope * emitted.detach()).sum(dim=(0, 2, 3)).abs()
        torch.testing.assert_close(got["3"], total / 8, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("kind", ["grad", "taylor"])
    def test_a_filter_nobody_reads_contributes_nothing(self, kind: Any) -> None:
        for example in EXAMPLES.values():
            network, layout = example.network(), example.layout()
            group = layout.groups[-1]
            for member in group.inputs:
                weight = network.get_submodule(member.layer).weight
                assert isinstance(weight, Tensor)
                weight.data[:, list(member.channels[1])] = 0.0
            session = TinySession(layout, classes=CLASSES)
            found = contributions(network, layout, session.batches(16), kind)[group.name]
            assert found[1] == 0.0
            assert found.max() > 0.0

    def test_layers_that_overwrite_their_input_do_not_disturb_it(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES)
        for kind in ("grad", "taylor"):
            expected = contributions(network, layout, session.batches(16), kind)
            changed = copy.deepcopy(network)
            for module in changed.modules():
                if isinstance(module, nn.ReLU):
                    module.inplace = True
            got = contributions(changed, layout, session.batches(16), kind)
            assert all(torch.equal(got[name], value) for name, value in expected.items())

    def test_it_needs_no_parameter_that_learns(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES)
        expected = QUICK.scores(network, session)
        got = QUICK.scores(network.requires_grad_(False), session)
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value)


class TestClusters:
    def test_points_that_lie_together_share_a_cluster(self) -> None:
        centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 9.0]])
        points = centres[[0, 1, 2, 0, 1, 2, 0]] + 0.1 * torch.randn(
            7, 2, generator=torch.Generator().manual_seed(0)
        )
        labels = cluster_filters(points, 3, seed=0)
        assert _partition(labels) == {(0, 3, 6), (1, 4), (2, 5)}

    @pytest.mark.parametrize("seed", range(5))
    def test_points_that_change_places_keep_their_clusters(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(20, 6, generator=generator)  # nothing to find: chance decides
        order = torch.randperm(20, generator=generator)
        before, after = (cluster_filters(p, 5, seed) for p in (points, points[order]))
        assert list(after) == [before[i] for i in order]

    def test_equal_points_are_fewer_clusters(self) -> None:
        points = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
        assert _partition(cluster_filters(points, 3, seed=0)) == {(0, 1, 2), (3,)}

    def test_as_many_clusters_as_points_are_singles(self) -> None:
        assert len(set(cluster_filters(torch.zeros(4, 2), 4, seed=0))) == 4


def _partition(labels: Sequence[int]) -> set[tuple[int, ...]]:
    return {tuple(i for i, v in enumerate(labels) if v == label) for label in set(labels)}


class TestQuotas:
    def test_the_largest_remainders_get_the_rest(self) -> None:
        # 4 of 7 spare: 4 * (4, 2, 1, 0) / 7 = 2.29, 1.14, 0.57, 0
        assert share_out(4, [4, 2, 1, 0]) == [2, 1, 1, 0]

    def test_a_choice_by_hand(self) -> None:
        clusters = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
        scores = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 0.3, 0.1, 0.2, 9.0, 8.0, 0.0])
        assert set(redundant_filters(clusters, scores, 4)) == {1, 3, 6, 9}
        # all that can be spared is 7; then whole clusters by their last filter: 3, then 1
        assert set(redundant_filters(clusters, scores, 7)) == {1, 3, 4, 2, 6, 7, 9}
        assert redundant_filters(clusters, scores, 9)[7:] == [10, 5]

    def test_filters_of_lowest_score_come_first(self) -> None:
        clusters, scores = [0, 0, 0, 1, 1, 1], torch.tensor([6.0, 3.0, 4.0, 1.0, 5.0, 2.0])
        assert redundant_filters(clusters, scores, 4) == [3, 5, 1, 2]

    def test_hard_filters_go_first_whatever_their_cluster(self) -> None:
        clusters = [0, 0, 1, 1, 1, 1]
        scores = torch.tensor([-math.inf, -math.inf, 4.0, 3.0, 2.0, 1.0])
        assert redundant_filters(clusters, scores, 3) == [0, 1, 5]

    @given(
        clusters=st.lists(st.integers(0, 5), min_size=1, max_size=30),
        hard=st.integers(0, 3),
        data=st.data(),
    )
    def test_it_removes_the_count_and_spares_every_cluster(
        self, clusters: list[int], hard: int, data: st.DataObject
    ) -> None:
        width = len(clusters)
        scores = torch.tensor(data.draw(st.permutations(range(width))), dtype=torch.float32)
        count = data.draw(st.integers(0, width - 1))
        gone = redundant_filters(clusters, scores, count)
        assert len(gone) == len(set(gone)) == count
        left = [i for i in range(width) if i not in gone]
        if count <= width - len(set(clusters)):
            assert {clusters[i] for i in left} == set(clusters)
        for cluster in {clusters[i] for i in left}:
            inside = [i for i in range(width) if clusters[i] == cluster]
            removed = [i for i in inside if i in gone]
            assert not removed or max(scores[removed]) < min(
                scores[i] for i in inside if i not in gone
            )
        hard_ones = gone[: min(hard, count)]
        scores[hard_ones] = -math.inf
        again = redundant_filters(clusters, scores, count)
        assert len(set(again)) == count
        assert set(hard_ones) <= set(again)

    @given(count=st.integers(0, 100), spare=st.lists(st.integers(0, 20), min_size=1, max_size=12))
    def test_quotas_are_proportional_to_within_one(self, count: int, spare: list[int]) -> None:
        quotas, total = share_out(count, spare), sum(spare)
        assert sum(quotas) == min(count, total)
        for quota, n in zip(quotas, spare, strict=True):
            assert 0 <= quota <= n
            if count <= total and total:
                assert abs(quota - count * n / total) < 1

    @pytest.mark.parametrize("count", range(12))
    def test_equal_clusters_lose_alike(self, count: int) -> None:
        quotas = share_out(count, [3, 3, 3, 3])
        assert max(quotas) - min(quotas) <= 1

    def test_the_share_of_whole_clusters_is_what_could_not_be_spared(self) -> None:
        plan = PruningPlan(
            policy="inside_blocks", widths={"a": 6, "b": 4}, kept={"a": (0,), "b": (0, 1, 2)}
        )
        clusters = {"a": (0, 0, 0, 1, 1, 2), "b": (0, 0, 0, 1)}  # a spares 3 of the 5 removed
        assert whole_share(plan, clusters) == pytest.approx(2 / 6)

    def test_the_share_of_whole_clusters_is_noted(self) -> None:
        network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()
        session = TinySession(layout, classes=CLASSES)
        replace(QUICK, kappa=1.0).select(network, same_ratio(layout, 0.5), session)
        assert session.notes["whole_cluster_share"] == 1.0


class TestSelection:
    @pytest.mark.parametrize("grouping", GROUPINGS)
    def test_reordered_filters_give_a_reordered_choice(self, grouping: Any) -> None:
        method = Functionality(  # norms, because gradients of dead filters are equal: none
            grouping=grouping, contribution="l1", am_steps=10, images=32
        )
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        ratios = same_ratio(layout, 0.4)
        before = select(method, network, layout, ratios)
        group = layout.groups[2]
        order = torch.randperm(group.width, generator=torch.Generator().manual_seed(1))
        permute_filters(network, group, order)
        after = select(method, network, layout, ratios)
        assert {int(order[i]) for i in after.kept[group.name]} == set(before.kept[group.name])
        for other in set(layout.widths) - {group.name}:
            assert after.kept[other] == before.kept[other]

    @pytest.mark.parametrize("grouping", ["am_pixels", "am_response", "weights_kmeans"])
    @pytest.mark.parametrize("name", ["plain", "inverted_residual", "residual_stream"])
    def test_of_copies_one_stays_and_nothing_else_goes(self, name: str, grouping: Any) -> None:
        network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
        group = layout.groups[-1]
        copies = [1, 3, 4, 6]
        copy_filter(network, group, 1, copies[1:])
        kappa = (group.width - len(copies) + 1) / group.width
        method = Functionality(grouping=grouping, kappa=kappa, am_steps=10, images=32)
        ratios = {**same_ratio(layout, 0.0), group.name: 3 / group.width}
        gone = select(method, network, layout, ratios).dropped(group.name)
        assert len(gone) == 3
        assert set(gone) < set(copies)

    def test_copies_have_distance_0(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        copy_filter(network, layout.groups[1], 2, [7])
        for grouping in ("am_pixels", "am_response", "weights_kmeans"):
            method = replace(QUICK, grouping=grouping)
            found = method.signatures(network, TinySession(layout, classes=CLASSES))["3"]
            distances = torch.cdist(found[2:3], found)[0]
            assert distances[7] < 1e-5
            distances[[2, 7]] = math.inf
            assert distances.min() > 1e-2

    def test_long_signatures_are_shortened_without_changing_distances(self) -> None:
        network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()
        session = TinySession(layout, classes=CLASSES)
        start = draw_start(session, 0.1, 32)
        group = layout.groups[0]
        ascent = replace(ASCENT, steps=QUICK.am_steps)
        images = maximise(network, group.norms[0] or "", range(8), start, ascent).flatten(1)
        images = images - images.mean(dim=1, keepdim=True)
        images = images / images.norm(dim=1, keepdim=True)
        found = QUICK.signatures(network, session)[group.name]
        assert found.shape == (8, 8)
        torch.testing.assert_close(
            torch.cdist(found, found), torch.cdist(images, images), rtol=1e-3, atol=1e-3
        )

    def test_statistics_are_the_same_for_all_ratios_and_keyed_by_what_they_depend_on(self) -> None:
        network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()

        class Remembering(TinySession):
            """Shares statistics as a trial does: by key."""

            def statistics(self, _network: nn.Module, key: str, compute: Any) -> Any:
                if key not in known:
                    known[key] = compute()
                return known[key]

        known: dict[str, Any] = {}
        session = Remembering(layout, classes=CLASSES)
        for ratio in (0.2, 0.5):
            QUICK.select(network, same_ratio(layout, ratio), session)
        replace(QUICK, kappa=0.5).select(network, same_ratio(layout, 0.5), session)
        assert len(known) == 2
        for change in ({"am_steps": 4}, {"contribution": "taylor"}, {"grouping": "am_response"}):
            before = len(known)
            replace(QUICK, **change).select(network, same_ratio(layout, 0.5), session)
            assert len(known) == before + 1, change

    def test_seeds_differ_in_start_image_and_clusters(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        one, other = (
            QUICK.signatures(network, TinySession(layout, classes=CLASSES, seed=seed))["3"]
            for seed in (0, 1)
        )
        assert not torch.allclose(one, other)

    def test_clusters_come_from_the_network_before_any_pruning(self) -> None:
        layout = EXAMPLES["bottleneck"].layout()
        network = EXAMPLES["bottleneck"].network()
        asked: list[tuple[str, int]] = []

        class Noting(TinySession):
            """Notes which statistics are asked for, and how many epochs were trained by then."""

            def statistics(self, network: nn.Module, key: str, compute: Any) -> Any:
                asked.append((key.split()[1], self.epochs_trained))
                return super().statistics(network, key, compute)

        session = Noting(layout, classes=CLASSES, schedule="iterative")
        plan = QUICK.select(network, same_ratio(layout, 0.5), session)
        assert [epochs for what, epochs in asked if what == "signatures"] == [0]
        turns = [epochs for what, epochs in asked if what == "contributions"]  # within epochs, too
        assert sorted(set(turns)) == [0, 1, 2]
        assert turns == sorted(turns)
        assert {len(kept) for kept in plan.kept.values()} == {4}
        for group in layout.groups:  # what the schedule made hard is what goes
            scales = norm_of(network, group).weight
            assert (scales == 0).nonzero().flatten().tolist() == plan.dropped(group.name)

    def test_choosing_by_scores_alone_is_refused(self) -> None:
        group = EXAMPLES["plain"].layout().groups[0]
        with pytest.raises(MethodError, match="needs clusters"):
            QUICK.choose(group, torch.zeros(8), 2)


class TestMergingOfCopies:
    @pytest.mark.parametrize("name", list(EXAMPLES))
    def test_a_merged_copy_is_not_missed(self, name: str) -> None:
        network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
        group = layout.groups[-1]
        norm_of(network, group).bias.data[1] = 1.0  # so that it does emit something
        copy_filter(network, group, 1, [5])
        method = Functionality(am_steps=10, images=32, kappa=1 - 1 / group.width, merge=True)
        ratios = {**same_ratio(layout, 0.0), group.name: 1 / group.width}
        images = torch.randn(16, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2))
        before = logits(network, images)
        plain = copy.deepcopy(network)
        plan = select(method, network, layout, ratios)
        assert plan.dropped(group.name) in ([1], [5])
        shrink(network, plan, layout)
        shrink(plain, plan, layout)
        assert (logits(network, images) - before).abs().max() < 1e-5
        assert (logits(plain, images) - before).abs().max() > 1e-3

    def test_a_filter_unlike_its_cluster_is_not_merged(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        before = copy.deepcopy(network.state_dict())
        method = replace(QUICK, merge=True, merge_fit=0.999)
        select(method, network, layout, same_ratio(layout, 0.5))
        assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())

    def test_a_multiple_is_explained_and_noise_is_not(self) -> None:
        generator = torch.Generator().manual_seed(0)
        first, second = torch.rand(2, 1000, generator=generator, dtype=torch.float64)
        rows = torch.stack([first, 2.5 * first, second, torch.ones(1000), torch.ones(1000)])
        slopes, fits = regressions(rows @ rows.T)
        assert slopes[1][0] == pytest.approx(2.5)
        assert fits[1][0] == pytest.approx(1.0)
        assert fits[2][0] < 0.1
        assert fits[3] == [0.0] * 4  # never changes

    def test_merging_helps_without_training(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        for group in layout.groups:  # near copies
            copy_filter(network, group, 0, [2, 4])
            conv = network.get_submodule(group.name)
            assert isinstance(conv, nn.Conv2d)
            conv.weight.data[2] *= 1.1
        images = torch.randn(32, *INPUT_SHAPE, generator=torch.Generator().manual_seed(3))
        expected = logits(network, images)
        errors = []
        for merge in (False, True):
            twin = copy.deepcopy(network)
            method = replace(QUICK, merge=merge, kappa=0.8)
            shrink(twin, select(method, twin, layout, same_ratio(layout, 0.2)), layout)
            errors.append(float((logits(twin, images) - expected).norm()))
        assert errors[1] < 0.5 * errors[0]

    def test_readers_that_compute_their_weight_are_refused(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        parametrizations.weight_norm(network.get_submodule("3"))
        QUICK.check(network, layout)
        with pytest.raises(MethodError, match=r"'3' is ParametrizedConv2d.*protect '0'"):
            replace(QUICK, merge=True).check(network, layout)

    def test_filters_that_are_added_to_a_stream_are_not_merged(self) -> None:
        network = EXAMPLES["residual_projection"].network()
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(kind="scatter"))
        QUICK.check(network, layout)
        ratios = same_ratio(layout, 0.5)
        plan = select(QUICK, network, layout, ratios)
        assert {len(plan.kept[name]) for name in layout.widths} == {6}
        with pytest.raises(MethodError, match="is added to a stream"):
            replace(QUICK, merge=True).check(network, layout)

    def test_schedules_that_train_are_refused(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES, schedule="iterative")
        with pytest.raises(MethodError, match="'iterative' trains"):
            replace(QUICK, merge=True).select(network, same_ratio(layout, 0.5), session)
        assert session.epochs_trained == 0


@pytest.mark.slow
def test_on_trained_networks_it_beats_chance_and_merging_helps(
    trained: list[tuple[nn.Module, Layout]],  # noqa: F811 (the fixture)
) -> None:
    chance = accuracy_after(trained, "random", {}, draws=3)
    settings = {"images": 512, "kappa": 0.125}
    deleted = accuracy_after(trained, "functionality", settings)
    merged = accuracy_after(trained, "functionality", {**settings, "merge": True, "merge_fit": 0.3})
    assert deleted > chance + 0.05
    assert merged > deleted + 0.05
