"""What searches say of each group's ratio, in the comparison and on the page."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.comparison.comparison import Comparison
from tracking.report.by_group import SLICED_GROUPS, SLICED_SEARCHES
from tracking.report.report import to_html, to_json

GROUPS = 8


def even(ratios: Mapping[str, Sequence[float]], values: Sequence[float]) -> dict[str, float]:
    """Say that every group matters, later ones more."""
    assert {len(found) for found in ratios.values()} == {len(values)}
    whole = len(ratios) * (len(ratios) + 1) / 2
    return {group: place / whole for place, group in enumerate(ratios, start=1)}


def searched(folder: Path, proposals: int, arms: Sequence[str] = ("l1",)) -> Comparison:
    sweep = HandMadeSweep(folder, specification(*arms, trials=proposals, controls={}))
    sweep.baseline()
    for arm in arms:
        for number in range(proposals):
            ratios = {f"conv{n}": ((7 * number + n) % 13) / 13 for n in range(GROUPS)}
            spec = {"kind": "proxy", "ratios": ratios}
            sweep.add("search", arm, index=number, test=None, val=50.0 + number % 7, spec=spec)
        sweep.seeds("confirm", arm, [90.0, 90.5, 91.0])
    return sweep.compare(importance=even)


def test_every_proposal_that_came_back_is_counted(tmp_path: Path) -> None:
    (search,) = searched(tmp_path, 20).searches
    assert (search.arm, search.target, len(search.accuracies)) == ("l1", "macs-50%", 20)
    assert search.ratios["conv1"][2] == pytest.approx(2 / 13)


def test_few_proposals_say_nothing(tmp_path: Path) -> None:
    compared = searched(tmp_path, 19)
    assert compared.searches == ()
    assert "What mattered in the searches" not in to_html(compared)


def test_json_has_the_importances_without_the_single_proposals(tmp_path: Path) -> None:
    (told,) = json.loads(to_json(searched(tmp_path, 20)))["searches"]
    assert told.keys() == {"arm", "target", "proposals", "importance"}
    assert sum(told["importance"].values()) == pytest.approx(1.0)


def test_the_page_shows_importance_and_the_slices_of_what_matters_most(tmp_path: Path) -> None:
    page = to_html(searched(tmp_path, 25))
    assert "What mattered in the searches" in page
    (heat,) = re.findall(r'data-heat="(\[\[[^"]*)"[^>]*data-unit="of the importance"', page)
    assert json.loads(heat) == [[round(100 * n / 36) for n in range(1, GROUPS + 1)]]
    shown = [group for group in range(GROUPS) if f"l1, conv{group}: best at" in page]
    assert shown == list(range(GROUPS - SLICED_GROUPS, GROUPS))


def test_many_searches_have_importances_and_a_hint_in_place_of_slices(tmp_path: Path) -> None:
    arms = [f"arm{number}" for number in range(SLICED_SEARCHES + 1)]
    page = to_html(searched(tmp_path, 20, arms))
    assert "Accuracy along each ratio" not in page
    assert "writes all of them for optuna-dashboard" in page
