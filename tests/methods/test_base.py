from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from methods import (
    Filters,
    LayerPolicy,
    MethodError,
    PruningMethod,
    SettingsError,
    UnknownMethodError,
    aliases_of,
    available,
    base,
    create,
    find_layout,
    prune_lowest,
    register,
)
from methods.criteria.filter_norm import FilterNorm
from methods.criteria.geometric_median import GeometricMedian
from methods.testing import CLASSES, EXAMPLES, INPUT_SHAPE, TinySession
from tests.methods.helpers import same_ratio


@dataclass(frozen=True, kw_only=True)
class SmallestIndexFirst(PruningMethod):
    """A control that would find a wrong order."""

    name: ClassVar[str] = "smallest_index_first"
    source: ClassVar[str] = "a control"
    offset: Annotated[float, Field(ge=0.0)] = 0.0

    def score(self, filters: Filters) -> Tensor:
        return torch.arange(len(filters.weight)) + self.offset


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the table of methods as it was."""
    monkeypatch.setattr(base, "_TABLE", dict(base._TABLE))


def test_our_methods_are_registered_under_their_names() -> None:
    ours = {"bn_scale", "filter_norm", "geometric_median", "random", "taylor"}
    assert ours <= available().keys()
    assert all(kind.name == name for name, kind in available().items())


def test_every_method_says_where_it_is_published_and_what_it_does() -> None:
    for kind in available().values():
        assert kind.source
        assert kind.__doc__


def test_aliases_are_listed_with_the_method_they_stand_for() -> None:
    assert aliases_of(FilterNorm) == {"l1": {"p": 1.0}, "l2": {"p": 2.0}}
    assert aliases_of(GeometricMedian) == {"fpgm": {}}
    assert not {"l1", "l2", "fpgm"} & available().keys()


def test_a_setting_overrides_what_an_alias_fixes() -> None:
    assert create("l2", {"p": 1.5}) == FilterNorm(p=1.5)


def test_a_registered_method_is_created_by_its_name_and_its_aliases() -> None:
    register(aliases={"from_two": {"offset": 2.0}})(SmallestIndexFirst)
    assert create("smallest_index_first") == SmallestIndexFirst()
    assert create("from_two") == SmallestIndexFirst(offset=2.0)


def test_a_module_may_be_loaded_twice() -> None:
    register()(SmallestIndexFirst)
    again: type[PruningMethod] = type(
        SmallestIndexFirst.__name__, SmallestIndexFirst.__bases__, dict(SmallestIndexFirst.__dict__)
    )
    register()(again)
    assert available()["smallest_index_first"] is again


@pytest.mark.parametrize("taken", ["filter_norm", "l1", "fpgm"])
def test_a_name_has_one_owner(taken: str) -> None:
    with pytest.raises(MethodError, match=f"'{taken}' belongs to methods"):
        register(aliases={taken: {}})(SmallestIndexFirst)
    assert "smallest_index_first" not in available()  # refused whole


@pytest.mark.parametrize(
    ("name", "hint"), [("geometric_media", "geometric_median"), ("fpgn", "fpgm")]
)
def test_an_unknown_method_is_named_with_what_was_meant(name: str, hint: str) -> None:
    with pytest.raises(UnknownMethodError, match=f"'{name}'; did you mean '{hint}'"):
        create(name)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("l1", {"q": 1}, "l1: setting 'q' is unknown; known are: largest_first, p"),
        ("filter_norm", {"p": 0}, "'p' is 0"),
        ("filter_norm", {"p": "one"}, "'p' is 'one'"),
        ("random", {"seed": 1}, "it takes none"),
        ("taylor", {"images": 0}, "'images' is 0"),
        ("bn_scale", {"sparsity": -1}, "'sparsity' is -1"),
    ],
)
def test_an_impossible_setting_is_named(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        create(name, settings)


def test_the_lowest_scores_go_and_ties_go_in_order() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    plan = SmallestIndexFirst().select(
        network, same_ratio(layout, 0.25), TinySession(layout, classes=CLASSES)
    )
    assert all(plan.dropped(g.name) == list(range(g.width // 4)) for g in layout.groups)
    ties = {group.name: torch.zeros(group.width) for group in layout.groups}
    assert prune_lowest(SmallestIndexFirst(), layout, ties, same_ratio(layout, 0.25)) == plan


def test_a_group_without_a_ratio_keeps_all() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    first = layout.groups[0]
    plan = SmallestIndexFirst().select(
        network, {first.name: 0.5}, TinySession(layout, classes=CLASSES)
    )
    removed = {name: len(plan.dropped(name)) for name in plan.kept}
    assert removed == {g.name: 4 if g is first else 0 for g in layout.groups}


def test_removed_filters_are_nested_in_the_ratio() -> None:
    network, layout = EXAMPLES["bottleneck"].network(), EXAMPLES["bottleneck"].layout()
    for name in ("l1", "fpgm", "random", "bn_scale", "taylor"):
        plans = [
            create(name).select(
                network, same_ratio(layout, ratio), TinySession(layout, classes=CLASSES)
            )
            for ratio in (0.2, 0.5, 0.8)
        ]
        for group in layout.groups:
            few, more, most = (set(plan.dropped(group.name)) for plan in plans)
            assert few < more < most


@pytest.mark.parametrize(
    "scores", [None, torch.zeros(3), torch.zeros(8, 1), torch.full((8,), torch.nan)]
)
def test_scores_that_do_not_fit_are_refused(scores: Tensor | None) -> None:
    layout = EXAMPLES["plain"].layout()
    found = {group.name: torch.zeros(group.width) for group in layout.groups}
    if scores is None:
        del found["0"]
    else:
        found["0"] = scores
    with pytest.raises(MethodError, match="must give 8 finite scores for '0'"):
        prune_lowest(SmallestIndexFirst(), layout, found, {})


def test_a_method_that_overrides_nothing_says_so() -> None:
    network, layout = EXAMPLES["plain"].network(), EXAMPLES["plain"].layout()
    with pytest.raises(MethodError, match="PruningMethod overrides neither"):
        PruningMethod().select(network, {}, TinySession(layout, classes=CLASSES))


def test_a_group_with_several_producers_takes_their_mean() -> None:
    network, layout = EXAMPLES["residual_stream"].network(), EXAMPLES["residual_stream"].layout()
    group = next(g for g in layout.groups if len(g.producers) == 3)
    scores = FilterNorm().scores(network, TinySession(layout, classes=CLASSES))[group.name]
    norms = [
        network.get_parameter(f"{p}.weight").detach().abs().sum(dim=(1, 2, 3))
        for p in group.producers
    ]
    torch.testing.assert_close(scores, torch.stack(norms).mean(dim=0))


def test_a_batch_norm_without_parameters_has_neither_scale_nor_shift() -> None:
    network = EXAMPLES["plain"].network()
    assert isinstance(network, nn.Sequential)
    network[4] = nn.BatchNorm2d(12, affine=False)
    layout = find_layout(network, INPUT_SHAPE, LayerPolicy())
    session = TinySession(layout, classes=CLASSES)
    (view,) = base.views(network, layout.groups[0], session)
    assert (view.scale, view.shift) == (None, None)
    create("l1").select(network, same_ratio(layout, 0.5), session)
