"""Arms whose method chooses its own ratios: nothing is searched, and trials get the target."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import nn

from methods import CostTarget, LayerPolicy, MethodError, PruningMethod, Ratios, Session, create
from methods.criteria.filter_norm import FilterNorm
from methods.testing import CLASSES, EXAMPLES, TinySession
from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.prunable import PrunableNetwork
from orchestrator.agenda.queue import Wanted
from orchestrator.agenda.survey import Survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.specification.spec import SweepSpec
from search_spaces import RatioSpace, SpaceSettings
from tracking.comparison.missing import missing_from
from tracking.places import target_label
from workers.data import describe
from workers.settings import DataSettings

HALF = CostTarget(axis="macs", reduction=0.5)


@dataclass(frozen=True, kw_only=True)
class HalfOfAll(FilterNorm):
    """Takes half of every group, whatever the target."""

    allocates: ClassVar[bool] = True

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Return one half for every group."""
        return dict.fromkeys(session.layout.widths, 0.5)


class TestMethod:
    example = EXAMPLES["plain"]

    def kept(self, method: PruningMethod, ratios: Ratios, target: CostTarget | None) -> set[float]:
        layout = self.example.layout()
        session = TinySession(layout, classes=CLASSES, target=target)
        plan = method.select(self.example.network(), ratios, session)
        return set(plan.ratios.values())

    def test_it_is_asked_where_a_trial_has_a_target_and_no_ratios(self) -> None:
        assert self.kept(HalfOfAll(), {}, HALF) == {0.5}

    def test_ratios_go_before_its_own(self) -> None:
        quarter = dict.fromkeys(self.example.layout().widths, 0.25)
        assert max(self.kept(HalfOfAll(), quarter, HALF)) == 0.25

    def test_without_a_target_nothing_is_pruned(self) -> None:
        assert self.kept(HalfOfAll(), {}, None) == {0.0}

    def test_a_method_that_has_none_says_so(self) -> None:
        with pytest.raises(MethodError, match="'scop' does not choose ratios by itself"):
            self.kept(create("scop"), {}, HALF)


def specification(**changes: Any) -> SweepSpec:
    base: dict[str, Any] = {
        "name": "x",
        "model": "digits_net",
        "arms": ["l1", {"method": "provable", "allocation": "method"}],
        "targets": {"macs_reduction": [0.5], "params_reduction": [0.3]},
        "search": {"trials": 3},
        "seeds": [1, 2],
    }
    return SweepSpec.model_validate({**base, **changes})


@pytest.fixture(scope="module")
def surveyed() -> Survey:
    example = EXAMPLES["plain"]
    layout = example.layout()
    assert layout.policy == LayerPolicy(protect_stem=False)
    return Survey(
        data=describe(DataSettings(train_images=200, test_images=60)),
        filters=PrunableNetwork(layout=layout, space=RatioSpace(layout.groups, SpaceSettings())),
        weights=example.network().state_dict(),
    )


class TestSweep:
    def test_such_an_arm_is_named_after_it(self) -> None:
        assert [arm.name for arm in specification().arms] == ["l1", "provable-allocated"]

    def test_it_begins_with_its_fresh_seeds_without_ratios(self, surveyed: Survey) -> None:
        agenda = Agenda(specification(), surveyed, "a machine")
        agenda.begin([], [])
        mine = [w for w in agenda.next(1000) if w.place.arm == "provable-allocated"]
        assert [(w.place.role, w.place.target, w.place.index) for w in mine] == [
            ("confirm", target, seed) for target in ("macs-50%", "params-30%") for seed in (1, 2)
        ]
        for wanted in mine:
            target = wanted.trial.target
            assert target is not None
            assert target_label(target.axis, target.reduction) == wanted.place.target
            assert wanted.trial.ratios == {}
        assert len({wanted.trial.uid for wanted in mine}) == 4

    def test_the_others_are_searched_as_before(self, surveyed: Survey) -> None:
        agenda = Agenda(specification(), surveyed, "a machine")
        agenda.begin([], [])
        searched: list[Wanted] = [w for w in agenda.next(1000) if w.place.role == "search"]
        assert {w.place.arm for w in searched} == {"l1"}
        assert all(w.trial.ratios.keys() == surveyed.filters.layout.widths.keys() for w in searched)

    def test_it_is_counted_without_a_search(self) -> None:
        cells = [c for c in trial_matrix(specification()).cells if c.arm == "provable-allocated"]
        assert {(c.role, c.trials, c.target) for c in cells if c.target == "macs-50%"} == {
            ("confirm", 2, "macs-50%"),
            ("latency", 1, "macs-50%"),
        }

    def test_its_search_is_not_missed(self) -> None:
        lines = missing_from(specification().model_dump(mode="json"), [])
        assert "search of l1 at macs-50%: not begun" in lines
        assert "fresh-seed runs of provable-allocated at macs-50%: not begun" in lines
        assert not any("search of provable-allocated" in line for line in lines)
