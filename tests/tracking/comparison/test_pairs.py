"""Two rows that were named beforehand: what is shown between them, and what they must share."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.orchestrator.command_line import call, facts
from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.answers import pack_answers
from tracking.comparison.compare import side_of
from tracking.comparison.pairs import Pair, PairError, Side, pairs_of


@pytest.fixture
def sweep(tmp_path: Path) -> HandMadeSweep:
    made = HandMadeSweep(tmp_path, specification("l1", "fpgm", "taylor", macs=(0.5, 0.7)))
    made.baseline()
    for target, macs in (("macs-50%", 500_000), ("macs-70%", 300_000)):
        made.seeds("confirm", "l1", [90.0, 90.2, 90.4], target=target, macs=macs)
        made.seeds("confirm", "fpgm", [80.0, 80.2, 80.4], target=target, macs=macs)
    made.seeds("confirm", "taylor", [89.5, 90.6, 91.4])
    made.seeds("control", "random", [70.0, 70.5, 71.0])
    return made


def pair(sweep: HandMadeSweep, first: str, second: str) -> Pair:
    comparison = sweep.compare()
    ours, theirs = (Side(comparison=comparison, arm=arm) for arm in (first, second))
    return pairs_of(ours, theirs, 0.5)[0]


def test_a_clear_difference_is_shown_with_its_interval(sweep: HandMadeSweep) -> None:
    found = pair(sweep, "l1", "fpgm")
    assert found.verdict == "first"
    assert found.test.difference == pytest.approx(10.0)
    assert found.test.low < 10.0 < found.test.high
    assert pair(sweep, "fpgm", "l1").verdict == "second"


def test_controls_can_be_asked_for(sweep: HandMadeSweep) -> None:
    assert pair(sweep, "random", "fpgm").verdict == "second"


def test_what_is_not_shown_says_how_many_seeds_would_show_it(sweep: HandMadeSweep) -> None:
    found = pair(sweep, "taylor", "l1")
    assert found.verdict == "undecided"
    assert found.reach is not None
    assert found.reach.seeds is not None
    assert found.reach.seeds > 3
    assert found.reach.smallest > abs(found.test.difference)


def test_only_targets_that_both_were_run_at_are_compared(sweep: HandMadeSweep) -> None:
    comparison = sweep.compare()
    found = pairs_of(
        Side(comparison=comparison, arm="taylor"), Side(comparison=comparison, arm="l1"), 0.5
    )
    assert [each.target for each in found] == ["macs-50%"]


def test_an_arm_against_itself_is_the_same(sweep: HandMadeSweep) -> None:
    assert pair(sweep, "l1", "l1").verdict == "same"


def test_an_unknown_arm_is_refused_with_those_there_are(sweep: HandMadeSweep) -> None:
    with pytest.raises(PairError, match=r"by-hand/l3 has no result\. There are: .*l1"):
        pair(sweep, "l3", "l1")


def test_sweeps_that_share_no_recipe_are_refused(sweep: HandMadeSweep, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = HandMadeSweep(tmp_path / "other", specification("l1"), name="other")
    other.baseline()
    other.seeds("confirm", "l1", [90.0, 90.2, 90.4], recipe_hash="r-2")
    ours = Side(comparison=sweep.compare(), arm="l1")
    theirs = Side(comparison=other.compare(), arm="l1")
    with pytest.raises(PairError, match="their recipe differ"):
        pairs_of(ours, theirs, 0.5)


class TestCommandLine:
    def test_it_says_a_sentence_a_target(self, sweep: HandMadeSweep, tmp_path: Path) -> None:
        sweep.compare()
        told = call("compare", "by-hand", "--between", "l1", "fpgm", "--store", tmp_path)
        assert told.exit_code == 0, told.stderr
        assert "by-hand/l1 is better than by-hand/fpgm" in " ".join(told.stdout.split())
        found = facts("compare", "by-hand", "--between", "taylor", "l1", "--store", tmp_path)
        assert "seeds each would show a difference" in found["targets"][0]["words"]

    def test_sweeps_of_one_ledger_can_be_named(self, sweep: HandMadeSweep, tmp_path: Path) -> None:
        sweep.compare()
        arms = ("by-hand/l1", "by-hand/fpgm")
        found = facts("compare", "by-hand", "--between", *arms, "--store", tmp_path)
        assert len(found["targets"]) == 2

    def test_an_unknown_arm_ends_with_two(self, sweep: HandMadeSweep, tmp_path: Path) -> None:
        sweep.compare()
        refused = call("compare", "by-hand", "--between", "l1", "gone", "--store", tmp_path)
        assert refused.exit_code == 2
        assert "There are:" in refused.stderr


def test_what_both_got_right_of_the_test_images_widens_the_interval(tmp_path: Path) -> None:
    made = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
    made.baseline()
    draw = np.random.default_rng(0)
    for name, right in (("l1", 0.8), ("fpgm", 0.7)):
        for seed in (1, 2, 3):
            answers = draw.random(200) < right
            kept: dict[str, Any] = {"test_correct": pack_answers(answers), "test_images": 200}
            made.add("confirm", name, index=seed, test=100 * float(answers.mean()), **kept)
    record = made.ledger.sweep(made.name)
    ours, theirs = (side_of(made.ledger, record, name) for name in ("l1", "fpgm"))
    found = pairs_of(ours, theirs, 0.5)[0].test
    alone = pairs_of(replace(ours, answers={}), theirs, 0.5)[0].test
    assert (found.images, alone.images) == (True, False)
    assert found.error > alone.error
