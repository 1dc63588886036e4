import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from methods import Schedule, SettingsError, create, removed_count, shrink
from methods.hooks import Hooks, Step
from methods.schedule import SoftMasks
from methods.structure.layout import Layout
from methods.structure.surgery import filter_parameters, soften_filters
from methods.testing import CLASSES, EXAMPLES, TinySession
from tests.methods.helpers import logits, norm_of, same_ratio

#: t: hardness, softness, share kept at ratio 0.4, over 100 epochs; from a released training log.
GOLDEN = {
    0: (0.029701, 1.0, 1.0),
    1: (0.058808, 0.8912509, 0.9580100),
    4: (0.142625, 0.6309573, 0.8566852),
    9: (0.271, 0.3548134, 0.7474269),
    19: (0.488, 0.1122018, 0.6486327),
    49: (0.875, 0.00354813, 0.6017458),
    79: (0.992, 1.12202e-4, 0.6000627),
}

SOFT = Schedule(selection=1.0, hardness="none")
ASYMPTOTIC = Schedule(selection=1.0, hardness="none", share="cubic")
SOFTER = Schedule(selection=1.0, hardness="none", softness=1.0)
GRADUALLY_HARD = Schedule(selection=1.0, hardness="cubic", share="exponential", softness=1.0)
ITERATIVE = Schedule.create({"name": "iterative", "selection": 1.0})
LEARNING = {
    "soft": SOFT,
    "asymptotic": ASYMPTOTIC,
    "softer": SOFTER,
    "gradually_hard": GRADUALLY_HARD,
    "iterative": ITERATIVE,
}


@pytest.mark.parametrize("t", list(GOLDEN))
def test_the_curves_follow_the_published_log(t: int) -> None:
    hardness, softness, kept = GOLDEN[t]
    assert GRADUALLY_HARD.hard_share(t, 100) == pytest.approx(hardness, abs=1e-6)
    assert GRADUALLY_HARD.soft_factor(t, 100) == pytest.approx(softness, rel=1e-5)
    assert 1 - 0.4 * GRADUALLY_HARD.selected_share(t, 100) == pytest.approx(kept, abs=1e-7)


def test_the_exponential_share_passes_its_knee_and_the_cubic_starts_slowly() -> None:
    assert 0.3 * GRADUALLY_HARD.selected_share(25, 200) == pytest.approx(0.225)
    assert 0.3 * GRADUALLY_HARD.selected_share(100, 200) == pytest.approx(0.298828, abs=1e-6)
    assert 0.3 * ASYMPTOTIC.selected_share(0, 200) == pytest.approx(0.0044775, abs=1e-7)
    assert 0.3 * ASYMPTOTIC.selected_share(100, 200) == pytest.approx(0.263614, abs=1e-6)
    assert 0.3 * ASYMPTOTIC.selected_share(199, 200) == 0.3


schedules = st.builds(
    Schedule,
    share=st.sampled_from(["constant", "exponential", "cubic", "stairs"]),
    rounds=st.integers(1, 10),
    knee=st.floats(0.01, 0.9),
    softness=st.just(0.0) | st.floats(0.02, 1.0),
    softness_end=st.floats(1e-9, 1e-2),
    hardness=st.sampled_from(["none", "all", "cubic", "step"]),
    harden_at=st.floats(0.0, 1.0),
)


@given(schedule=schedules, epochs=st.integers(1, 60))
def test_curves_stay_in_range_move_one_way_and_end_with_everything_gone(
    schedule: Schedule, epochs: int
) -> None:
    times = range(-1, epochs)
    shares = [schedule.selected_share(t, epochs) for t in times]
    hard = [schedule.hard_share(t, epochs) for t in times]
    soft = [schedule.soft_factor(t, epochs) for t in times]
    assert all(0.0 <= value <= 1.0 for value in (*shares, *hard, *soft))
    assert shares == sorted(shares)
    assert hard == sorted(hard)
    assert soft == sorted(soft, reverse=True)
    assert shares[-1] == 1.0
    assert soft[-1] == 0.0


@pytest.mark.parametrize(
    ("rounds", "epochs", "thirds"),
    [(3, 3, [1, 2, 3, 3]), (3, 6, [1, 1, 2, 2, 3, 3, 3]), (1, 2, [3, 3, 3])],
)
def test_stairs_train_on_every_step(rounds: int, epochs: int, thirds: list[int]) -> None:
    schedule = Schedule(share="stairs", rounds=rounds)
    shares = [schedule.selected_share(t, epochs) for t in range(-1, epochs)]
    assert shares == [pytest.approx(third / 3) for third in thirds]


def test_step_hardness_jumps_once() -> None:
    schedule = Schedule(hardness="step", harden_at=0.5)
    assert [schedule.hard_share(t, 4) for t in range(4)] == [0.0, 0.0, 1.0, 1.0]


class WatchedSession(TinySession):
    """Notes what is zero and what the optimizer remembers while it trains."""

    def __init__(self, layout: Layout, schedule: Schedule, *, epochs: int = 6) -> None:
        super().__init__(layout, classes=CLASSES, epochs=epochs)
        self.schedule = schedule
        self.after_steps: list[dict[str, set[int]]] = []  #: Zero filters by group, each step.
        self.after_epochs: list[dict[str, set[int]]] = []
        self.momenta: list[float] = []  #: Momentum of zero filters, each epoch.

    def train_with(self, network: nn.Module, epochs: int, hooks: Hooks) -> None:
        def watch_step(step: Step) -> bool | None:
            result = hooks.after_step(step) if hooks.after_step else None
            self.after_steps.append(zero_filters(network, self.layout))
            return result

        def watch_epoch(network: nn.Module, optimizer: optim.Optimizer, epoch: int) -> None:
            if hooks.after_epoch:
                hooks.after_epoch(network, optimizer, epoch)
            zero = zero_filters(network, self.layout)
            self.after_epochs.append(zero)
            self.momenta.append(
                max(
                    float(
                        part.by_row(optimizer.state[part.parameter]["momentum_buffer"])[
                            part.rows[list(zero[g.name])]
                        ]
                        .abs()
                        .sum()
                    )
                    for g in self.layout.groups
                    for part in filter_parameters(network, g)
                )
            )

        super().train_with(
            network, epochs, replace(hooks, after_step=watch_step, after_epoch=watch_epoch)
        )


def zero_filters(network: nn.Module, layout: Layout) -> dict[str, set[int]]:
    """Return the filters that emit nothing, whose every parameter is exactly zero."""
    found = {}
    for group in layout.groups:
        zero = torch.ones(group.width, dtype=torch.bool)
        for part in filter_parameters(network, group):
            values = part.by_row(part.parameter.detach())[part.rows]
            zero &= (values == 0.0).flatten(1).all(dim=1)
        found[group.name] = set(zero.nonzero().flatten().tolist())
    return found


def run(
    schedule: Schedule, *, name: str = "plain", ratio: float = 0.5, method: str = "l2"
) -> tuple[nn.Module, Any, WatchedSession]:
    """Let a schedule choose on an example; return the trained network, the plan, the session."""
    network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
    session = WatchedSession(layout, schedule)
    plan = create(method).select(network, same_ratio(layout, ratio), session)
    return network, plan, session


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_one_shot_trains_nothing() -> None:
    network, _, session = run(Schedule.create("one_shot"))
    assert session.epochs_trained == 0
    assert same_weights(network, EXAMPLES["plain"].network())


def test_selection_takes_its_share_of_the_budget() -> None:
    _, _, session = run(Schedule.create("iterative"))
    assert (session.epochs_trained, session.epochs_left) == (3, 3)


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_iterative_removes_a_third_at_a_time_and_never_takes_one_back(name: str) -> None:
    _, plan, session = run(ITERATIVE, name=name)
    for group in session.layout.groups:
        counts = [len(zero[group.name]) for zero in session.after_epochs]
        thirds = [1, 2, 2, 3, 3, 3]  # of 6 epochs, after each
        assert counts == [math.floor(group.width * 0.5 * third / 3 + 1e-6) for third in thirds]
        sets = [zero[group.name] for zero in session.after_steps]
        assert all(early <= late for early, late in itertools.pairwise(sets))
        assert sets[-1] <= set(plan.dropped(group.name))


def test_the_first_third_is_gone_before_the_first_step() -> None:
    _, _, session = run(ITERATIVE)
    first = session.after_steps[0]
    assert all(len(first[g.name]) == g.width // 2 // 3 for g in session.layout.groups)


def test_hard_filters_stay_zero_and_are_forgotten_by_the_optimizer() -> None:
    _, _, session = run(Schedule(selection=1.0), method="fpgm")
    wanted = {g.name: g.width // 2 for g in session.layout.groups}
    for zero in session.after_steps:
        assert {name: len(found) for name, found in zero.items()} == wanted
    assert session.momenta == [0.0] * 6


@pytest.mark.parametrize("schedule", list(LEARNING))
@pytest.mark.parametrize("name", ["plain", "inverted_residual", "residual_stream"])
def test_in_the_end_what_the_plan_drops_is_zero_and_no_one_misses_it(
    name: str, schedule: str
) -> None:
    network, plan, session = run(LEARNING[schedule], name=name)
    assert zero_filters(network, session.layout) == {
        group: set(plan.dropped(group)) for group in plan.kept
    }
    assert all(
        len(plan.dropped(g.name)) == removed_count(g.name, g.width, 0.5)
        for g in session.layout.groups
    )
    before = logits(network, session.images)
    shrink(network, plan, session.layout)
    torch.testing.assert_close(logits(network, session.images), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "inverted_residual", "bottleneck"])
def test_soft_filters_grow_back_where_the_rectifier_lets_them(name: str) -> None:
    network, layout = EXAMPLES[name].network(), EXAMPLES[name].layout()
    for group in layout.groups:
        norm_of(network, group).bias.data.fill_(0.2)
        soften_filters(network, group, range(group.width // 2), 0.0)
        weight = network.get_parameter(f"{group.name}.weight")
        assert (weight[: group.width // 2] == 0.0).all()
    TinySession(layout, classes=CLASSES).train(network, 1)
    for group in layout.groups:
        weight = network.get_parameter(f"{group.name}.weight")
        assert (weight.flatten(1).norm(dim=1) > 0.0).all()


def test_a_soft_schedule_changes_its_mind_and_a_hard_one_does_not() -> None:
    def keeps_its_first_choice(schedule: Schedule) -> bool:
        network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
        session = WatchedSession(layout, schedule, epochs=8)
        method = create("l2")
        first = method.select(network, same_ratio(layout, 0.5), TinySession(layout, classes=4))
        return first == method.select(network, same_ratio(layout, 0.5), session)

    assert keeps_its_first_choice(Schedule(selection=1.0))
    assert not keeps_its_first_choice(SOFT)


def test_gradually_hard_filters_never_come_back() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    session = WatchedSession(layout, GRADUALLY_HARD, epochs=10)
    create("l2").select(network, same_ratio(layout, 0.5), session)
    for group in layout.groups:
        sets = [zero[group.name] for zero in session.after_steps]
        assert all(early <= late for early, late in itertools.pairwise(sets))
    assert any(session.after_steps[len(session.after_steps) // 2].values())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            Schedule(selection=1.0, hardness="step", harden_at=1.0), SOFT, id="never hard is soft"
        ),
        pytest.param(
            Schedule(selection=1.0, hardness="step", harden_at=0.0),
            Schedule(selection=1.0, hardness="all"),
            id="hard from the start is hard",
        ),
        pytest.param(
            Schedule(selection=1.0, hardness="all", softness=1.0),
            Schedule(selection=1.0, hardness="all", softness=0.0),
            id="hard filters have no softness",
        ),
    ],
)
def test_schedules_that_mean_the_same_train_the_same(one: Schedule, other: Schedule) -> None:
    first, plan, _ = run(one)
    second, same_plan, _ = run(other)
    assert plan == same_plan
    assert same_weights(first, second)


@pytest.mark.parametrize("schedule", list(LEARNING))
def test_at_ratio_0_a_schedule_is_plain_training(schedule: str) -> None:
    network, _, session = run(LEARNING[schedule], ratio=0.0)
    dense = EXAMPLES["plain"].network()
    TinySession(session.layout, classes=CLASSES, epochs=6).train(dense, 6)
    assert same_weights(network, dense)


def test_schedules_that_differ_train_differently() -> None:
    assert not same_weights(run(SOFT)[0], run(ITERATIVE)[0])


@pytest.mark.parametrize("method", ["l1", "fpgm", "random", "bn_scale", "taylor"])
def test_every_criterion_runs_iteratively(method: str) -> None:
    network, plan, session = run(ITERATIVE, name="bottleneck", method=method)
    assert zero_filters(network, session.layout) == {
        group: set(plan.dropped(group)) for group in plan.kept
    }


def test_a_largest_first_control_keeps_its_hard_filters() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    session = WatchedSession(layout, ITERATIVE)
    method = create("l1", {"largest_first": True})
    plan = method.select(network, same_ratio(layout, 0.5), session)
    assert all(
        zero <= set(plan.dropped(group))
        for step in session.after_steps
        for group, zero in step.items()
    )


def test_masked_gradients_alone_do_not_hold_a_filter() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    group = layout.groups[0]
    weight = network.get_parameter(f"{group.name}.weight")
    optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images = TinySession(layout, classes=CLASSES).images
    network(images).square().mean().backward()
    optimizer.step()  # fills the momentum
    masks = SoftMasks(network, layout.groups)
    masks.apply(group, [2], 1, 0.0)
    step = Step(
        network=network, optimizer=optimizer, epoch=0, progress=0.0, images=images, labels=images
    )
    masks.hold_gradients(step)
    assert weight.grad is not None
    assert (weight.grad[2] == 0.0).all()
    optimizer.step()
    assert (weight[2] != 0.0).any()  # the momentum moved it
    masks.hold_weights(step)
    masks.clear_momentum(optimizer)
    masks.hold_gradients(step)
    optimizer.step()
    assert (weight[2] == 0.0).all()


def test_settings_come_with_a_preset_s_name() -> None:
    assert Schedule.create({"name": "iterative", "rounds": 5}).rounds == 5
    assert Schedule.create("iterative").selection == 0.5
    assert Schedule.create() == Schedule.create("one_shot")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("iteratve", "did you mean 'iterative'"),
        ({"name": "iterative", "round": 3}, "'round' is unknown; did you mean 'rounds'"),
        ({"name": "iterative", "rounds": 0}, "'rounds' is 0"),
        ({"name": "iterative", "selection": 1.5}, "'selection' is 1.5"),
        ({"name": "iterative", "softness": 1e-6}, "softness_end must lie below it"),
    ],
)
def test_an_impossible_schedule_is_named(settings: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Schedule.create(settings)
