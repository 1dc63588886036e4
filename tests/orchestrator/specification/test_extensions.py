"""What is asked of a sweep beyond what it has, once and again."""

import pytest

from orchestrator.errors import SpecError
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
