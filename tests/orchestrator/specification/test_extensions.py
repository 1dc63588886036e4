"""What is asked of a sweep beyond what it has, once and again."""

import json
import re

import pytest

from orchestrator.errors import SpecError
from orchestrator.specification.as_typed import read_arm, read_target
from orchestrator.specification.changes import forbidden_changes
from orchestrator.specification.extensions import Extension
from orchestrator.specification.spec import SweepSpec
from orchestrator.sweep import Sweep
from tests.orchestrator.sweeps import BASE
from tracking.matrix import matrix_of
from tracking.places import Role

TWO_MORE = Extension(trials="+2", seeds=(4,))


def sweep() -> Sweep:
    return Sweep({**BASE, "search": {"trials": 3}})


def counts(spec: SweepSpec) -> tuple[int, tuple[int, ...]]:
    return spec.search.trials, spec.seeds


def test_an_open_request_made_again_adds_nothing() -> None:
    once = sweep().with_extension(TWO_MORE)
    assert counts(once.spec) == (5, (1, 2, 4))
    again = once.with_extension(TWO_MORE, Extension.read(TWO_MORE.to_json()))
    assert again.spec == once.spec


def test_another_request_and_one_after_it_was_fulfilled_add() -> None:
    once = sweep().with_extension(TWO_MORE)
    assert counts(once.with_extension(Extension(trials="+1"), TWO_MORE).spec) == (6, (1, 2, 4))
    assert counts(once.with_extension(TWO_MORE).spec) == (7, (1, 2, 4))


def test_an_absolute_count_and_seeds_may_be_asked_at_any_time() -> None:
    request = Extension(trials="8", seeds=(4, 2, 4))
    once = sweep().with_extension(request)
    assert counts(once.spec) == (8, (1, 2, 4))
    assert once.with_extension(request).spec == once.spec


def test_some_arms_and_controls_get_more_seeds_than_the_rest() -> None:
    request = Extension(seeds=(2, 7, 8), arms=("l1", "dense"))
    spec = sweep().with_extension(request).spec
    assert spec.more_seeds == {"l1": (7, 8), "dense": (7, 8)}
    assert forbidden_changes(sweep().spec, spec, extend=True) == []
    assert forbidden_changes(spec, sweep().spec, extend=True)
    indices = {
        cell.arm: cell.indices
        for cell in matrix_of(spec.model_dump(mode="json")).cells
        if cell.role in {Role.CONFIRM, Role.CONTROL}
    }
    assert indices == {
        "l1": (1, 2, 7, 8),
        "dense": (1, 2, 7, 8),
        **dict.fromkeys(("geometric_median", "random", "uniform_l1", "scratch"), (1, 2)),
    }
    for_all = Sweep(spec).with_extension(Extension(seeds=(7,))).spec
    reruns = matrix_of(for_all.model_dump(mode="json")).of(Role.CONFIRM)
    assert [cell.indices for cell in reruns] == [(1, 2, 7, 8), (1, 2, 7)]


def test_seeds_of_none_leave_the_name_of_the_content_as_it_was() -> None:
    assert "more_seeds" not in sweep().spec.content


@pytest.mark.parametrize(
    ("arms", "seeds", "problem"),
    [(("l3",), (7,), "no arm or control"), (("l1",), (0,), "the seed of the search")],
)
def test_what_cannot_be_is_refused(
    arms: tuple[str, ...], seeds: tuple[int, ...], problem: str
) -> None:
    with pytest.raises(SpecError, match=problem):
        sweep().with_extension(Extension(seeds=seeds, arms=arms))


def with_arm(of: Sweep, *arms: str) -> Sweep:
    return of.with_extension(Extension(new_arms=tuple(map(read_arm, arms))))


def with_target(of: Sweep, *targets: str) -> Sweep:
    return of.with_extension(Extension(new_targets=tuple(map(read_target, targets))))


def test_an_arm_is_added_once_however_it_is_typed() -> None:
    mine = "{name: mine, method: filter_norm, settings: {p: 2.0}}"
    once = with_arm(sweep(), "taylor", mine)
    assert [arm.name for arm in once.spec.arms] == ["l1", "geometric_median", "taylor", "mine"]
    assert once.spec.arms[3].settings == {"p": 2.0}
    assert with_arm(once, "{method: taylor}", mine).spec == once.spec
    assert forbidden_changes(sweep().spec, once.spec, extend=True) == []
    assert forbidden_changes(sweep().spec, once.spec) == [
        'arms.taylor: not set -> {"method": "taylor", "settings": {}, "schedule": {"name": '
        '"one_shot"}, "allocation": "search"}',
        'arms.mine: not set -> {"method": "filter_norm", "settings": {"p": 2.0}, "schedule": '
        '{"name": "one_shot"}, "allocation": "search"}',
    ]


def test_targets_are_added_once_however_they_are_typed() -> None:
    once = with_target(sweep(), "macs-70%", "params_reduction=0.333", "drop-0.5")
    assert once.spec.targets is not None
    assert once.spec.targets.labels == ("macs-50%", "macs-70%", "params-33.3%", "drop-0.5")
    again = with_target(once, "macs_reduction=0.7", "params-33.3%", "accuracy_drop=0.5")
    assert again.spec == once.spec
    assert forbidden_changes(sweep().spec, once.spec, extend=True) == []
    assert forbidden_changes(once.spec, sweep().spec, extend=True)


def test_an_arm_and_its_seeds_can_be_asked_for_at_once() -> None:
    request = Extension(new_arms=(read_arm("taylor"),), seeds=(7,), arms=("taylor",))
    spec = sweep().with_extension(request).spec
    assert spec.more_seeds == {"taylor": (7,)}
    assert Extension.read(request.to_json()) == request


def test_a_request_of_arms_and_targets_survives_the_ledger() -> None:
    request = Extension(
        trials="+2",
        new_arms=(read_arm("{method: l1, schedule: {name: iterative, rounds: 3}}"),),
        new_targets=(read_target("macs-70%"),),
    )
    stored = json.loads(json.dumps(request.to_json()))
    assert Extension.read(stored) == request
    once = sweep().with_extension(request)
    assert once.with_extension(request, Extension.read(stored)).spec == once.spec


@pytest.mark.parametrize(
    ("arm", "problem"),
    [
        ("l3", "--arm: method: There is no pruning method 'l3'"),
        ("{method: l1, name: geometric_median}", "another arm 'geometric_median'; give this one"),
        ("{method: filter_norm, settings: {p: -1}}", "--arm: settings.p"),
        ("{method: l1, naem: x}", "--arm: naem: unknown key; did you mean 'name'?"),
        ("[l1]", "--arm: names no method"),
        ("{method: l1", "is not YAML"),
        ("", "--arm: names no method"),
    ],
)
def test_an_arm_that_cannot_be_is_refused(arm: str, problem: str) -> None:
    with pytest.raises(SpecError, match=re.escape(problem)):
        with_arm(sweep(), arm)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("70%", "--target: '70%' is no target; write macs-70% or macs_reduction=0.7"),
        ("macs_reduction=much", "is no target"),
        ("flops_reduction=0.5", "there are macs_reduction, params_reduction, latency_reduction"),
        ("macs-100%", "--target: macs_reduction.0: is 1.0; must be below 1.0"),
        ("macs_reduction=70", "it is a share below 1: write 0.7 for 70"),
        ("drop--1", "is no target"),
    ],
)
def test_a_target_that_cannot_be_is_refused(target: str, problem: str) -> None:
    with pytest.raises(SpecError, match=re.escape(problem)):
        with_target(sweep(), target)


def test_a_front_takes_no_target() -> None:
    front = Sweep({**BASE, "targets": None})
    with pytest.raises(SpecError, match="searches the whole front"):
        with_target(front, "macs-70%")


def test_a_new_first_target_is_refused_where_the_learning_rate_was_chosen_at_the_first() -> None:
    fields = {**BASE, "targets": {"params_reduction": [0.5]}, "baseline": {"learning_rate": 0.1}}
    tuned = Sweep({**fields, "recipe": {"epochs": 2, "learning_rate": "auto"}})
    assert with_target(tuned, "params-70%").spec.targets
    with pytest.raises(SpecError, match="macs-70% would be the first"):
        with_target(tuned, "macs-70%")
