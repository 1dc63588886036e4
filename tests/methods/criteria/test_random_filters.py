import torch

from methods import create
from methods.criteria.filter_norm import FilterNorm
from methods.criteria.random_filters import RandomPruning
from methods.testing import EXAMPLES, PruningMethodContract, TinySession
from tests.methods.helpers import filters, same_ratio


class TestRandomPruning(PruningMethodContract):
    method = RandomPruning()
    scores_follow_filters = False

    def test_scores_lie_between_0_and_1(self) -> None:
        scores = RandomPruning().score(filters(torch.zeros(1000, 1, 1, 1)))
        assert 0.0 <= scores.min() < 0.05
        assert 0.95 < scores.max() < 1.0

    def test_seeds_differ_and_layers_differ(self) -> None:
        example = EXAMPLES["bottleneck"]
        network = example.network()
        layout = example.layout()
        first, second = (self.method.scores(network, self.session(layout, seed=s)) for s in (0, 1))
        one, other = layout.groups[0].name, layout.groups[1].name
        assert not torch.equal(first[one], second[one])
        assert not torch.equal(first[one], first[other])

    def test_it_removes_as_many_as_the_norm_does(self) -> None:
        example = EXAMPLES["bottleneck"]
        network = example.network()
        layout = example.layout()
        counts = [
            {name: len(kept) for name, kept in plan.kept.items()}
            for plan in (
                method.select(network, same_ratio(layout, 0.4), TinySession(layout, classes=4))
                for method in (RandomPruning(), FilterNorm())
            )
        ]
        assert counts[0] == counts[1]

    def test_the_global_generator_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        create("random").score(filters(torch.zeros(4, 1, 1, 1)))
        assert torch.equal(torch.get_rng_state(), before)
