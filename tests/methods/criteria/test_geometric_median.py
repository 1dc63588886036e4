from dataclasses import replace

import pytest
import torch
from torch import nn

from methods import SettingsError, create
from methods.criteria.geometric_median import GeometricMedian
from methods.hooks import Hooks, Step
from methods.testing import CLASSES, EXAMPLES, PruningMethodContract, TinySession
from tests.methods.helpers import filters, same_ratio


def weights(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


def lowest(method: GeometricMedian, weight: torch.Tensor, count: int) -> set[int]:
    return set(method.score(filters(weight)).argsort()[:count].tolist())


class TestGeometricMedian(PruningMethodContract):
    method = GeometricMedian()

    def test_it_sums_distances_to_all_filters(self) -> None:
        weight = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]).reshape(3, 2, 1, 1)
        assert GeometricMedian().score(filters(weight)).tolist() == [15.0, 10.0, 15.0]

    def test_adding_one_vector_to_all_filters_changes_nothing(self) -> None:
        weight = weights(8)
        moved = weight + torch.randn(4, 3, 3)
        torch.testing.assert_close(*(GeometricMedian().score(filters(w)) for w in (weight, moved)))

    def test_an_orthogonal_map_changes_nothing(self) -> None:
        weight = weights(8)
        turn = torch.linalg.qr(torch.randn(36, 36)).Q
        turned = (weight.flatten(1) @ turn).reshape(weight.shape)
        torch.testing.assert_close(*(GeometricMedian().score(filters(w)) for w in (weight, turned)))

    def test_two_filters_tie_and_so_do_duplicates(self) -> None:
        two = GeometricMedian().score(filters(weights(2)))
        assert two[0] == two[1]
        weight = weights(64)  # as many as make cdist want a matrix product
        weight[7] = weight[40]
        scores = GeometricMedian().score(filters(weight))
        assert scores[7] == scores[40]

    def test_its_alias_fixes_nothing(self) -> None:
        assert create("fpgm") == GeometricMedian()

    def test_a_norm_share_beyond_1_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="norm_share"):
            create("fpgm", {"norm_share": 1.5})

    @pytest.mark.parametrize("name", ["plain", "residual_stream"])
    def test_with_frozen_gradients_the_mask_never_changes(self, name: str) -> None:
        layout = EXAMPLES[name].layout()
        first = GeometricMedian().select(
            EXAMPLES[name].network(), same_ratio(layout, 0.5), TinySession(layout, classes=CLASSES)
        )
        masks: list[dict[str, list[int]]] = []

        class Watched(TinySession):
            def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
                def look(step: Step) -> bool | None:
                    ends = hooks.after_step(step) if hooks.after_step else None
                    masks.append({g.name: zero_filters(network, g.name) for g in layout.groups})
                    return ends

                super().train_with(network, epochs, replace(hooks, after_step=look))

        network = EXAMPLES[name].network()
        session = Watched(layout, classes=CLASSES, epochs=5, schedule="hfp")
        plan = GeometricMedian().select(network, same_ratio(layout, 0.5), session)
        assert len(masks) == 4 * session.epochs_trained > 0
        assert all(mask == masks[0] for mask in masks)
        assert masks[0] == {name: first.dropped(name) for name in layout.widths}
        assert plan == first


def zero_filters(network: nn.Module, conv: str) -> list[int]:
    """Return the filters of a convolution whose weights are all zero."""
    norms = network.get_parameter(f"{conv}.weight").detach().flatten(1).norm(dim=1)
    found: list[int] = (norms == 0.0).nonzero().flatten().tolist()
    return found


class TestMix(PruningMethodContract):
    method = GeometricMedian(norm_share=0.25)

    @pytest.mark.parametrize("count", [1, 4, 7, 12, 20, 31])
    def test_the_norm_takes_its_share_and_distance_the_rest(self, count: int) -> None:
        weight = weights(32) * torch.linspace(0.5, 1.5, 32).reshape(32, 1, 1, 1)
        norms, distances = weight.flatten(1).norm(dim=1), self.distances(weight)
        by_norm = norms.argsort()[: count // 4].tolist()
        rest = [i for i in distances.argsort().tolist() if i not in by_norm]
        assert lowest(self.method, weight, count) == {*by_norm, *rest[: count - count // 4]}

    @pytest.mark.parametrize("seed", range(5))
    def test_each_filter_has_a_place_of_its_own(self, seed: int) -> None:
        for share in (0.1, 0.33, 0.5, 1.0):
            scores = GeometricMedian(norm_share=share).score(filters(weights(17, seed)))
            assert sorted(scores.tolist()) == list(range(17))

    def test_the_norm_alone_ranks_at_share_1(self) -> None:
        weight = weights(16)
        order = GeometricMedian(norm_share=1.0).score(filters(weight)).argsort()
        assert order.tolist() == weight.flatten(1).norm(dim=1).argsort().tolist()

    def distances(self, weight: torch.Tensor) -> torch.Tensor:
        return GeometricMedian(norm_share=0.0).score(filters(weight))
