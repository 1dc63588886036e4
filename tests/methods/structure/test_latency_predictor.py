import json
import time
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch

from methods import CostTarget, MethodError
from methods.structure.latency_predictor import (
    LatencyPredictor,
    PredictorSettings,
    Samples,
    fit_predictor,
    sample_widths,
)
from methods.testing import CLASSES, EXAMPLES, PruningMethodContract, TinySession
from methods.testing.tiny_session import TinySession as Tiny
from methods.weight_gates.method import WeightGates

WIDTHS = (64, 64, 64, 128, 128, 128, 256, 256)
GROUPS = tuple(f"group{i}" for i in range(len(WIDTHS)))
KEY: Mapping[str, str] = {"device": "a staircase"}


def drawn(samples: int = 300, widths: tuple[int, ...] = WIDTHS) -> Samples:
    return sample_widths(widths, samples, torch.Generator().manual_seed(0))


def staircase_ms(samples: Samples) -> list[float]:
    """Time in tiles of 32 channels, of a layer and of the one before it, and 2 % noise."""
    kept = samples.kept
    before = np.concatenate([np.full((len(kept), 1), 32), kept[:, :-1]], axis=1)
    tiles = np.ceil(kept / 32) * np.ceil(before / 32)
    noise = np.random.default_rng(0).standard_normal(len(kept))
    times: list[float] = ((0.5 + 0.05 * tiles.sum(axis=1)) * (1 + 0.02 * noise)).tolist()
    return times


@pytest.fixture(scope="module")
def fitted() -> LatencyPredictor:
    samples = drawn()
    return fit_predictor(
        samples,
        staircase_ms(samples),
        key=KEY,
        groups=GROUPS,
        widths=WIDTHS,
        drift=0.01,
        clock=time.perf_counter,
    )


class TestSamples:
    def test_the_dense_network_and_the_uniform_widths_are_among_them(self) -> None:
        samples = drawn()
        assert samples.kept[0].tolist() == list(WIDTHS)
        shares = samples.kept[:10, -1] / 256
        assert shares.tolist() == pytest.approx([1 - i / 10 for i in range(10)], abs=0.01)
        assert samples.drawn.count("uniform") == 10

    def test_half_of_the_others_have_widths_that_go_together(self) -> None:
        samples = drawn(600)
        assert len(samples.kept) == 600
        assert samples.drawn.count("correlated") == pytest.approx(295, abs=15)
        spread = {}
        for how in ("correlated", "independent"):
            mine = np.array([name == how for name in samples.drawn])
            spread[how] = (samples.kept[mine] / np.array(WIDTHS)).mean(axis=1).std()
        assert spread["correlated"] > 1.8 * spread["independent"]

    def test_every_group_keeps_a_tenth_and_no_configuration_comes_twice(self) -> None:
        samples = drawn()
        assert (samples.kept >= np.round(np.array(WIDTHS) * 0.1)).all()
        assert (samples.kept <= np.array(WIDTHS)).all()
        assert len({tuple(row) for row in samples.kept.tolist()}) == 300

    def test_a_network_with_few_widths_gives_as_many_as_it_has(self) -> None:
        samples = drawn(100, (4, 3))
        assert len({tuple(row) for row in samples.kept.tolist()}) == len(samples.kept) <= 12

    def test_one_seed_draws_the_same(self) -> None:
        assert np.array_equal(drawn().kept, drawn().kept)


class TestPredictor:
    def test_it_predicts_networks_it_has_not_seen(self, fitted: LatencyPredictor) -> None:
        report = fitted.report
        assert report.correlated.r2 > 0.8
        assert report.correlated.spearman > 0.9
        assert report.independent.r2 > 0.5  # better than the mean
        assert report.full_width_error < 0.1
        assert report.samples == 300
        assert 25 <= report.correlated.samples <= 33

    def test_wider_is_slower(self, fitted: LatencyPredictor) -> None:
        shares = torch.tensor([[0.2], [0.4], [0.6], [0.8], [1.0]])
        kept = (shares * torch.tensor(WIDTHS)).round()
        predicted = fitted.latency_ms(kept).tolist()
        assert predicted == sorted(predicted)
        assert [at.share for at in fitted.report.uniform] == pytest.approx(
            [i / 10 for i in range(1, 11)], abs=0.02
        )

    def test_its_gradient_is_the_finite_difference(self, fitted: LatencyPredictor) -> None:
        kept = (torch.tensor(WIDTHS).double() * 0.61).requires_grad_()
        fitted.latency_ms(kept).backward()  # type: ignore[no-untyped-call]
        assert kept.grad is not None
        for i, gradient in enumerate(kept.grad.tolist()):
            step = torch.zeros(len(WIDTHS)).double()
            step[i] = 1e-5
            change = fitted.latency_ms(kept.detach() + step) - fitted.latency_ms(
                kept.detach() - step
            )
            assert gradient == pytest.approx(float(change) / 2e-5, rel=1e-3, abs=1e-7)

    def test_it_is_rebuilt_from_tensors_and_json(self, fitted: LatencyPredictor) -> None:
        facts = json.loads(json.dumps(fitted.facts()))
        again = LatencyPredictor.rebuild(fitted.tensors(), facts)
        assert again.report == fitted.report
        assert again.dense_ms == fitted.dense_ms
        assert not any(parameter.requires_grad for parameter in again.network.parameters())

    def test_the_same_measurements_give_the_same_predictor(self, fitted: LatencyPredictor) -> None:
        samples = drawn()
        again = fit_predictor(
            samples,
            staircase_ms(samples),
            key=KEY,
            groups=GROUPS,
            widths=WIDTHS,
            drift=0.01,
            clock=time.perf_counter,
        )
        assert again.dense_ms == fitted.dense_ms


@cache
def predictor_for(name: str) -> LatencyPredictor:
    """A predictor of times that only the first group's width decides."""
    layout = EXAMPLES[name].layout()
    samples = sample_widths(layout.cost.widths, 60, torch.Generator().manual_seed(0))
    times = 1.0 + samples.kept[:, 0] / layout.cost.widths[0] * 9.0
    return fit_predictor(
        samples,
        times.tolist(),
        key=KEY,
        groups=layout.cost.groups,
        widths=layout.cost.widths,
        drift=0.0,
        clock=time.perf_counter,
    )


class TestGatesWithLatency(PruningMethodContract):
    method = WeightGates(cost="latency")
    examples = {"residual_pad": EXAMPLES["residual_pad"]}  # noqa: RUF012

    def session(self, layout, *, seed=0):  # type: ignore[no-untyped-def]
        return TinySession(
            layout, classes=CLASSES, seed=seed, latency=predictor_for("residual_pad")
        )

    def test_it_says_how_the_predictor_is_made(self) -> None:
        method = WeightGates(cost="latency", samples=50, batch_size=4)
        assert method.predictor == PredictorSettings(samples=50, batch_size=4)
        assert WeightGates().predictor is None


def test_the_layer_that_takes_the_time_is_pruned_most() -> None:
    kept = {}
    for cost in ("macs", "latency"):
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        session = Tiny(
            layout,
            classes=CLASSES,
            epochs=12,
            target=CostTarget(axis="macs", reduction=0.3),
            latency=predictor_for("plain"),
        )
        method = WeightGates(cost=cost, share=0.5, alpha=10.0)
        plan = method.select(network, {}, session)
        first, *others = layout.cost.groups
        kept[cost] = 1.0 - plan.ratios[first]
        if cost == "latency":
            assert kept[cost] < min(1.0 - plan.ratios[name] for name in others)
            assert 1.0 < session.notes["predicted_latency_ms"] < 10.0
            assert session.notes["predicted_dense_latency_ms"] == pytest.approx(10.0, rel=0.1)
    assert kept["latency"] < kept["macs"]


def test_without_a_predictor_it_is_refused_before_training() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    session = Tiny(layout, classes=CLASSES, target=CostTarget(axis="macs", reduction=0.5))
    with pytest.raises(MethodError, match="needs a latency predictor"):
        WeightGates(cost="latency").select(network, {}, session)
    assert session.epochs_trained == 0
