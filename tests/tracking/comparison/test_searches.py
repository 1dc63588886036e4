"""What tables say of a search: its cost, its gain over uniform ratios, and its guide."""

from pathlib import Path

import pytest

from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.comparison.comparison import Row
from tracking.report.report import to_markdown


def row_of(sweep: HandMadeSweep) -> Row:
    (table,) = sweep.compare().tables
    return next(row for row in table.rows if row.name == "l1")


def judged(folder: Path, trained: dict[int, float]) -> HandMadeSweep:
    """Five proposals at 40, 50, 60, 70 and 80 % untrained; some of them trained, by rank."""
    sweep = HandMadeSweep(folder, specification("l1", trials=5, controls={}))
    sweep.baseline()
    for number in range(5):
        spec = {"kind": "proxy", "ratios": {"conv": number / 10}}
        val = 40.0 + 10 * number
        sweep.add("search", "l1", index=number, test=None, val=val, spec=spec, seconds_total=1.0)
    for rank, (number, val) in enumerate(trained.items()):
        spec = {"kind": "prune", "ratios": {"conv": number / 10}}
        sweep.add("finalist", "l1", index=rank, test=None, val=val, spec=spec)
    sweep.seeds("confirm", "l1", [90.0, 90.5, 91.0])
    return sweep


def test_finalists_are_held_against_uniform_ratios_trained_alike(tmp_path: Path) -> None:
    check = row_of(judged(tmp_path, {0: 88.0, 4: 91.0, 3: 90.0})).uniform
    assert check is not None
    assert (check.uniform, check.best, check.gain, check.best_index) == (88.0, 91.0, 3.0, 1)
    assert check.beaten


def test_the_guide_is_worth_its_rank_correlation(tmp_path: Path) -> None:
    check = row_of(judged(tmp_path, {0: 88.0, 4: 90.5, 3: 91.0})).proxy
    assert check is not None
    assert check.untrained == (40.0, 80.0, 70.0)
    assert check.trained == (88.0, 90.5, 91.0)
    assert check.rank_correlation == pytest.approx(0.5)


def test_two_finalists_have_no_rank_correlation(tmp_path: Path) -> None:
    check = row_of(judged(tmp_path, {0: 88.0, 4: 91.0})).proxy
    assert check is not None
    assert (check.finalists, check.rank_correlation) == (2, None)


def test_a_guide_that_misleads_is_told(tmp_path: Path) -> None:
    text = to_markdown(judged(tmp_path, {0: 92.0, 4: 88.0, 3: 89.0}).compare())
    assert "l1 -1.00 (n=3)" in text
    assert "no guide among the finalists of l1" in text


def test_proposals_and_the_training_of_finalists_are_charged(tmp_path: Path) -> None:
    search = row_of(judged(tmp_path, {0: 88.0, 4: 91.0, 3: 90.0})).search
    assert search is not None
    assert (search.proposals, search.trials) == (5, 8)
    assert search.seconds == pytest.approx(5 * 1.0 + 3 * 20.0)


def test_untrained_proposals_alone_are_not_held_against_uniform_ratios(tmp_path: Path) -> None:
    row = row_of(judged(tmp_path, {}))
    assert row.uniform is None
    assert row.proxy is None
