import torch

from methods import create
from methods.criteria.filter_norm import FilterNorm
from methods.testing import PruningMethodContract
from tests.methods.helpers import filters


class TestFilterNorm(PruningMethodContract):
    method = FilterNorm()

    def test_it_sums_the_absolute_weights(self) -> None:
        weight = torch.tensor([[-3.0, 1.0], [0.5, 0.0]]).reshape(2, 2, 1, 1)
        assert FilterNorm(p=1).score(filters(weight)).tolist() == [4.0, 0.5]

    def test_p_2_is_the_euclidean_norm(self) -> None:
        weight = torch.tensor([[-3.0, 4.0], [0.5, 0.0]]).reshape(2, 2, 1, 1)
        assert FilterNorm(p=2).score(filters(weight)).tolist() == [5.0, 0.5]

    def test_doubling_a_filter_doubles_its_score(self) -> None:
        weight = torch.randn(3, 2, 3, 3)
        doubled = weight * torch.tensor([1.0, 2.0, 1.0]).reshape(3, 1, 1, 1)
        once, twice = (FilterNorm().score(filters(w)) for w in (weight, doubled))
        torch.testing.assert_close(twice, once * torch.tensor([1.0, 2.0, 1.0]))

    def test_its_aliases_fix_the_norm(self) -> None:
        assert create("l1") == FilterNorm(p=1.0)
        assert create("l2", {"largest_first": True}) == FilterNorm(p=2.0, largest_first=True)


class TestLargestFirst(PruningMethodContract):
    method = FilterNorm(largest_first=True)

    def test_it_prunes_the_largest_norm_first(self) -> None:
        weight = torch.tensor([3.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
        assert self.method.score(filters(weight)).argsort().tolist() == [0, 2, 1]
