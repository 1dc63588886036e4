import copy
import inspect
from dataclasses import replace
from itertools import pairwise
from statistics import mean
from typing import ClassVar, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import CostTarget, LayerPolicy, Layout, MethodError, create, find_layout, shrink
from methods.hooks import Hooks, Step
from methods.scop import knockoffs as knockoffs_module
from methods.scop.knockoffs import make_knockoff, pca_gaussian, permuted, white_noise
from methods.scop.method import Scop, TwoStreams
from methods.testing import (
    CLASSES,
    EXAMPLES,
    INPUT_SHAPE,
    Example,
    PruningMethodContract,
    TinySession,
)
from tests.methods.helpers import logits, norm_of, same_ratio
from tests.methods.test_digits import (  # noqa: F401  (a fixture)
    RATIO,
    TRAINING,
    DigitsSession,
    digits,
    trained,
)

SHORT = {"share": 0.25}  # one of the tiny session's four epochs, four steps


def drawing() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def itself(images: Tensor) -> Tensor:
    """A control that differs in nothing."""
    return images


def streams_of(
    name: str, knockoff: knockoffs_module.Knockoff, *, start: float = 0.5, joint: bool = False
) -> TwoStreams:
    network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
    return TwoStreams(network, layout, knockoff, start=start, joint=joint)


class Watched(TinySession):
    """Keeps what statistics hold."""

    def statistics(self, network, key, compute):  # type: ignore[no-untyped-def]
        self.found = compute()
        return self.found


def learned(
    method: Scop, name: str = "plain", **changes: object
) -> tuple[Layout, dict[str, Tensor]]:
    layout = EXAMPLES[name].layout()
    session = Watched(layout, classes=CLASSES, **changes)  # type: ignore[arg-type]
    method.scores(EXAMPLES[name].network(), session)
    return layout, session.found


class TestKnockoffs:
    images = torch.randn(6, 3, 8, 8, generator=drawing())

    def test_a_permutation_gives_every_image_another(self) -> None:
        generator = drawing()
        seen = set()
        for _ in range(20):
            found = permuted(self.images, generator)
            order = [int((self.images == image).flatten(1).all(1).nonzero()) for image in found]
            assert sorted(order) == list(range(6))
            assert all(place != image for place, image in enumerate(order))
            seen.add(tuple(order))
        assert len(seen) > 1

    def test_a_single_image_is_its_own_control(self) -> None:
        assert torch.equal(permuted(self.images[:1], drawing()), self.images[:1])

    def test_gaussian_draws_have_the_mean_and_covariance_of_the_sample(self) -> None:
        mixing = torch.randn(12, 12, generator=drawing())
        sample = (torch.randn(400, 12, generator=drawing()) @ mixing + 3.0).reshape(400, 3, 2, 2)
        drawn = pca_gaussian(torch.zeros(6000, 3, 2, 2), sample, drawing())
        known, found = sample.flatten(1), drawn.flatten(1)
        torch.testing.assert_close(found.mean(0), known.mean(0), rtol=0.05, atol=0.15)
        scale = float(known.T.cov().abs().max())
        torch.testing.assert_close(found.T.cov(), known.T.cov(), rtol=0.1, atol=0.06 * scale)

    def test_noise_has_the_mean_and_variance_of_each_colour(self) -> None:
        images = self.images * torch.tensor([0.1, 1.0, 5.0]).reshape(1, 3, 1, 1) + 2.0
        noise = white_noise(images, drawing())
        spread, mean = torch.std_mean(images, dim=(0, 2, 3))
        assert noise.mean((0, 2, 3)).sub(mean).abs().div(spread).max() < 0.2
        assert noise.std((0, 2, 3)).div(spread).sub(1.0).abs().max() < 0.2

    @pytest.mark.parametrize("name", ["permutation", "pca_gaussian", "white_noise"])
    def test_one_seed_gives_the_same_controls_and_the_next_batch_others(self, name: str) -> None:
        one, other = (make_knockoff(name, lambda: self.images, drawing()) for _ in range(2))  # type: ignore[arg-type]
        first = one(self.images)
        assert first.shape == self.images.shape
        assert torch.equal(first, other(self.images))
        assert any(not torch.equal(first, one(self.images)) for _ in range(5))

    def test_no_construction_could_see_a_label(self) -> None:
        for function in (permuted, white_noise):
            assert list(inspect.signature(function).parameters) == ["images", "generator"]
        assert list(inspect.signature(pca_gaussian).parameters) == ["images", "sample", "generator"]
        hints = get_type_hints(make_knockoff)
        assert hints["return"] == knockoffs_module.Knockoff
        assert knockoffs_module.Knockoff.__args__ == (Tensor, Tensor)  # type: ignore[attr-defined]

    def test_only_the_gaussian_asks_for_training_images(self) -> None:
        def none() -> Tensor:
            raise AssertionError("asked")

        make_knockoff("permutation", none, drawing())
        make_knockoff("white_noise", none, drawing())
        with pytest.raises(AssertionError, match="asked"):
            make_knockoff("pca_gaussian", none, drawing())


class TestTwoStreams:
    images = TinySession(EXAMPLES["plain"].layout(), classes=CLASSES).images[:10]
    labels = TinySession(EXAMPLES["plain"].layout(), classes=CLASSES).labels[:10]

    @staticmethod
    def turned(images: Tensor) -> Tensor:
        return images.roll(3, dims=0)

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_at_1_it_is_the_dense_network_whatever_the_control(self, name: str) -> None:
        expected = logits(EXAMPLES[name].network(), self.images)
        streams = streams_of(name, lambda images: torch.randn_like(images), start=1.0)
        assert torch.equal(streams(self.images).detach(), expected)

    def test_at_0_a_chain_gives_the_output_of_the_control(self) -> None:
        expected = logits(EXAMPLES["plain"].network(), self.turned(self.images))
        streams = streams_of("plain", self.turned, start=0.0)
        assert torch.equal(streams(self.images).detach(), expected)

    def test_at_0_the_untouched_stem_and_shortcuts_of_a_residual_network_stay_real(self) -> None:
        expected = logits(EXAMPLES["residual_pad"].network(), self.turned(self.images))
        streams = streams_of("residual_pad", self.turned, start=0.0)
        assert not torch.allclose(streams(self.images).detach(), expected, atol=1e-2)

    @pytest.mark.parametrize("joint", [False, True])
    def test_without_gradients_nothing_is_mixed(self, joint: bool) -> None:
        expected = logits(EXAMPLES["plain"].network(), self.images)
        streams = streams_of("plain", self.turned, joint=joint)
        streams(self.images)
        assert torch.equal(logits(streams, self.images), expected)

    def test_the_real_stream_is_mixed_before_the_norm_and_the_control_never(self) -> None:
        streams = streams_of("plain", self.turned)
        with torch.no_grad():
            for factor in streams.factors:
                factor.uniform_(0.0, 1.0, generator=drawing())
        found = streams(self.images)
        dense = EXAMPLES["plain"].network().eval()
        assert isinstance(dense, nn.Sequential)
        mixed, control = self.images, self.turned(self.images)
        factors = iter(streams.factors)
        for layer in dense:
            mixed, control = layer(mixed), layer(control)
            if isinstance(layer, nn.Conv2d):
                beta = next(factors).reshape(1, -1, 1, 1)
                mixed = beta * mixed + (1 - beta) * control
        torch.testing.assert_close(found, mixed)
        assert next(factors, None) is None

    def test_the_gradient_is_that_of_equation_5(self) -> None:
        streams = streams_of("plain", self.turned, start=0.6)
        seen: dict[str, Tensor] = {}

        def keep(module: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.requires_grad:  # the stream that is mixed
                output.retain_grad()
                seen["u"] = output

        conv = streams.network.get_submodule(EXAMPLES["plain"].layout().groups[0].name)
        conv.register_forward_hook(keep)
        F.cross_entropy(streams(self.images), self.labels).backward()  # type: ignore[no-untyped-call]
        assert isinstance(conv, nn.Conv2d)
        with torch.no_grad():
            real = F.conv2d(self.images, conv.weight, conv.bias, padding=1)
            control = F.conv2d(self.turned(self.images), conv.weight, conv.bias, padding=1)
        upstream = seen["u"].grad
        assert upstream is not None
        expected = (upstream * (real - control)).sum(dim=(0, 2, 3))
        gradient = streams.factors[0].grad
        assert gradient is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("joint", [False, True])
    def test_equal_images_give_no_gradient(self, joint: bool) -> None:
        streams = streams_of("residual_stream", itself, joint=joint)
        F.cross_entropy(streams(self.images), self.labels).backward()  # type: ignore[no-untyped-call]
        assert all(
            factor.grad is not None and (factor.grad == 0).all() for factor in streams.factors
        )

    def test_joint_statistics_are_of_both_streams_and_leave_the_running_ones(self) -> None:
        streams = streams_of("plain", self.turned, start=0.5, joint=True)
        before = copy.deepcopy(dict(streams.named_buffers()))
        found = streams(self.images)
        both = torch.cat([self.images, self.turned(self.images)])
        dense = EXAMPLES["plain"].network().train()
        assert isinstance(dense, nn.Sequential)
        flow = both
        for layer in dense:
            flow = layer(flow)
            if isinstance(layer, nn.Conv2d):
                real, control = flow.chunk(2)
                flow = torch.cat([0.5 * real + 0.5 * control, control])
        torch.testing.assert_close(found, flow[:10])
        assert all(torch.equal(b, before[n]) for n, b in streams.named_buffers())

    def test_what_follows_may_work_in_place(self) -> None:
        def chain(in_place: bool) -> nn.Module:
            torch.manual_seed(0)
            return nn.Sequential(
                nn.Conv2d(3, 6, 3),
                nn.ReLU(inplace=in_place),
                nn.Conv2d(6, 5, 3),
                nn.ReLU(inplace=in_place),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(5, CLASSES),
            )

        outputs = []
        for in_place in (False, True):
            network = chain(in_place)
            layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
            streams = TwoStreams(network, layout, self.turned, start=0.3, joint=False)
            outputs.append(streams(self.images).detach())
        assert torch.equal(*outputs)


class TestLearning:
    @pytest.mark.parametrize("batch_norm", ["frozen", "joint"])
    def test_without_a_difference_every_score_is_0(
        self, batch_norm: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("methods.scop.method.make_knockoff", lambda *_: itself)
        layout, found = learned(Scop(batch_norm=batch_norm, **SHORT), "residual_pad")  # type: ignore[arg-type]
        for group in layout.groups:
            assert (found[f"factor/{group.name}"] == 0.5).all()
            assert (found[f"score/{group.name}"] == 0.0).all()

    @pytest.mark.parametrize("batch_norm", ["frozen", "joint"])
    def test_the_network_is_the_same_to_the_bit(self, batch_norm: str) -> None:
        network, layout = EXAMPLES["residual_pad"].network(), EXAMPLES["residual_pad"].layout()
        before = copy.deepcopy(network)
        session = TinySession(layout, classes=CLASSES)
        Scop(batch_norm=batch_norm, **SHORT).select(network, same_ratio(layout, 0.5), session)  # type: ignore[arg-type]
        assert session.epochs_trained == 1
        assert network.state_dict().keys() == before.state_dict().keys()
        for name, value in before.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), name
        assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
        assert all(p.requires_grad and p.grad is None for p in network.parameters())

    @pytest.mark.parametrize("rate", [0.004, 0.3])
    def test_factors_and_scores_keep_their_bounds(self, rate: float) -> None:
        layout, found = learned(Scop(share=1.0, learning_rate=rate, saturation=1.0))
        network = EXAMPLES["plain"].network()
        for group in layout.groups:
            factor, score = found[f"factor/{group.name}"], found[f"score/{group.name}"]
            assert ((factor >= 0) & (factor <= 1)).all()
            scale = norm_of(network, group).weight.detach().abs()
            torch.testing.assert_close(score, scale * (2 * factor - 1))
            assert (score.abs() <= scale).all()
        shares = [float(found[f"share/at {end}"]) for end in (0, 1)]
        factors = torch.cat([found[f"factor/{group.name}"] for group in layout.groups])
        assert shares == pytest.approx([float((factors == end).float().mean()) for end in (0, 1)])
        assert (sum(shares) > 0) == (rate == 0.3)

    def test_factors_are_within_their_bounds_after_each_step(self) -> None:
        seen: list[Tensor] = []

        class Looking(TinySession):
            def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
                def look(step: Step) -> bool | None:
                    assert isinstance(network.factors, nn.ParameterList)
                    seen.append(torch.cat([f.detach().clone() for f in network.factors]))
                    return hooks.after_step(step) if hooks.after_step else None

                super().train_with(network, epochs, replace(hooks, after_step=look))

        layout = EXAMPLES["plain"].layout()
        session = Looking(layout, classes=CLASSES)
        Scop(share=1.0, learning_rate=0.3, saturation=1.0).scores(
            EXAMPLES["plain"].network(), session
        )
        assert len(seen) == 4 * session.epochs_trained
        assert all(factors.min() >= 0.0 and factors.max() <= 1.0 for factors in seen)
        assert all((factors == 0.0).any() or (factors == 1.0).any() for factors in seen[2:])

    def test_a_filter_nobody_reads_keeps_score_0_and_the_others_move(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, CLASSES),
        )
        with torch.no_grad():
            network.get_parameter("2.weight")[:, ::2] = 0.0
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        scores = Scop(**SHORT).scores(network, TinySession(layout, classes=CLASSES))["0"]  # type: ignore[arg-type]
        assert (scores[::2] == 0.0).all()
        assert (scores[1::2] != 0.0).all()

    def test_a_filter_that_tells_the_classes_apart_beats_its_control(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, CLASSES + 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(CLASSES + 4, CLASSES)
        )
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        session = TinySession(layout, classes=CLASSES, epochs=8)
        with torch.no_grad():
            means = torch.stack(
                [session.images[session.labels == c].mean(0) for c in range(CLASSES)]
            )
            conv, linear = network.get_parameter("0.weight"), network.get_parameter("3.weight")
            conv[:CLASSES] = means / means.flatten(1).norm(dim=1).square().reshape(-1, 1, 1, 1)
            linear.fill_(0.0)
            linear[:, :CLASSES] = 3.0 * torch.eye(CLASSES)
            linear[:, CLASSES:] = 0.3 * torch.randn(CLASSES, 4)  # of random filters: noise
        scores = Scop(share=0.5, learning_rate=0.02).scores(network, session)["0"]
        assert scores[:CLASSES].min() > 0.2
        assert scores[:CLASSES].min() > scores[CLASSES:].max()

    def test_filters_without_a_norm_are_ranked_by_the_factor_alone(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, CLASSES),
        )
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        session = Watched(layout, classes=CLASSES)
        Scop(**SHORT).scores(network, session)  # type: ignore[arg-type]
        torch.testing.assert_close(session.found["score/0"], 2 * session.found["factor/0"] - 1)

    def test_it_starts_where_it_is_told(self) -> None:
        layout, found = learned(Scop(start=0.9, learning_rate=1e-6, **SHORT))  # type: ignore[arg-type]
        for group in layout.groups:
            torch.testing.assert_close(
                found[f"factor/{group.name}"], torch.full((group.width,), 0.9), atol=1e-4, rtol=0.0
            )

    @pytest.mark.parametrize(
        ("settings", "epochs"), [({"share": 0.01}, 1), ({"share": 0.5}, 4), ({"share": 1.0}, 8)]
    )
    def test_its_share_of_the_epochs_is_charged(
        self, settings: dict[str, float], epochs: int
    ) -> None:
        layout = EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES, epochs=8)
        Scop(**settings).select(EXAMPLES["plain"].network(), same_ratio(layout, 0.5), session)  # type: ignore[arg-type]
        assert session.epochs_trained == epochs

    def test_it_ends_after_its_steps(self) -> None:
        session_steps = []
        for steps in (2, 3):
            layout, found = learned(Scop(share=1.0, steps=steps, learning_rate=0.01))
            farthest = max(
                float((found[f"factor/{g.name}"] - 0.5).abs().max()) for g in layout.groups
            )
            session_steps.append(farthest / 0.01)
        assert session_steps[0] < 2.6 < session_steps[1] < 3.9  # a step of Adam is about the rate

    def test_it_ends_when_most_factors_have_come_to_an_end(self) -> None:
        layout = EXAMPLES["plain"].layout()
        spent = []
        for saturation in (0.3, 1.0):
            session = TinySession(layout, classes=CLASSES, epochs=10)
            method = Scop(share=1.0, learning_rate=0.2, saturation=saturation)
            method.scores(EXAMPLES["plain"].network(), session)
            spent.append(session.epochs_trained)
        assert spent[0] < spent[1] == 10

    def test_a_trial_without_epochs_is_told_so(self) -> None:
        layout = EXAMPLES["plain"].layout()
        session = TinySession(layout, classes=CLASSES, epochs=0)
        with pytest.raises(MethodError, match=r"learns for an epoch at least, .* Raise recipe"):
            Scop().select(EXAMPLES["plain"].network(), same_ratio(layout, 0.5), session)

    def test_a_schedule_that_trains_goes_by_the_same_table(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        plans = []
        for schedule in ("one_shot", "iterative"):
            session = TinySession(layout, classes=CLASSES, epochs=5, schedule=schedule)
            twin = copy.deepcopy(network)
            plans.append(Scop(share=0.2).select(twin, same_ratio(layout, 0.5), session))
            assert session.epochs_trained == {"one_shot": 1, "iterative": 3}[schedule]
        assert plans[0] == plans[1]

    def test_it_is_the_dense_network_that_decides_not_the_ratio(self) -> None:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        dropped = []
        for ratio in (0.25, 0.5, 0.75):
            session = TinySession(layout, classes=CLASSES)
            plan = Scop(**SHORT).select(copy.deepcopy(network), same_ratio(layout, ratio), session)  # type: ignore[arg-type]
            dropped.append({(g, i) for g in plan.kept for i in plan.dropped(g)})
        assert all(less < more for less, more in pairwise(dropped))

    def test_without_ratios_it_has_none_of_its_own(self) -> None:
        layout = EXAMPLES["plain"].layout()
        target = CostTarget(axis="macs", reduction=0.5)
        session = TinySession(layout, classes=CLASSES, target=target)
        with pytest.raises(MethodError, match="does not choose ratios by itself"):
            Scop().select(EXAMPLES["plain"].network(), {}, session)

    def test_joint_statistics_without_a_batch_norm_are_refused_at_the_door(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
        )
        layout = find_layout(network, INPUT_SHAPE, LayerPolicy(protect_stem=False))
        Scop().check(network, layout)
        with pytest.raises(MethodError, match="Sequential has no batch norm"):
            Scop(batch_norm="joint").check(network, layout)


class TestScop(PruningMethodContract):
    method = Scop(share=0.25)


class TestAtTheEndsOfBranches(PruningMethodContract):
    """What the authors prune: the last convolution of a block too."""

    method = Scop(share=0.25)
    scores_follow_filters = False  # filters that trade places there are added to other channels
    examples: ClassVar = {
        "residual_pad": Example(
            build=EXAMPLES["residual_pad"].build, policy=LayerPolicy(kind="scatter")
        )
    }


class TestJoint(PruningMethodContract):
    method = Scop(share=0.25, batch_norm="joint")
    examples: ClassVar = {name: EXAMPLES[name] for name in ("plain", "residual_stream")}


class TestGaussianControls(PruningMethodContract):
    method = Scop(share=0.25, knockoff="pca_gaussian", images=32)
    examples: ClassVar = {name: EXAMPLES[name] for name in ("plain", "inverted_residual")}

    def test_the_network_sees_training_images_only(self, example: Example) -> None:
        """And controls, which are made of them: here it is the training images that are real."""
        network, layout = example.network(), example.layout()
        session = self.session(layout)
        known = {image.numpy().tobytes() for image in session.images}
        seen: list[bool] = []
        network.register_forward_pre_hook(
            lambda _module, inputs: seen.append(
                all(image.detach().numpy().tobytes() in known for image in inputs[0])
            )
        )
        self.select(network, layout, 0.5)
        assert seen == [False, True] * 4  # the controls of a batch, then the batch


class TestNoiseControls(TestGaussianControls):
    method = Scop(share=0.25, knockoff="white_noise")
    examples: ClassVar = {"plain": EXAMPLES["plain"]}


@pytest.mark.slow
def test_it_beats_chance_on_real_images(
    trained: list[tuple[nn.Module, Layout]],  # noqa: F811
) -> None:
    images, labels = digits()
    found: dict[str, list[float]] = {"scop": [], "random": []}
    for seed, (network, layout) in enumerate(trained):
        for name, draw in [("scop", 0), *(("random", draw) for draw in range(5))]:
            small = copy.deepcopy(network)
            session = DigitsSession(layout, seed=seed + 100 * draw, epochs=1)
            shrink(small, create(name).select(small, same_ratio(layout, RATIO), session), layout)
            right = logits(small, images[TRAINING:]).argmax(dim=1) == labels[TRAINING:]
            found[name].append(float(right.float().mean()))
    assert mean(found["scop"]) > mean(found["random"]) + 0.05
