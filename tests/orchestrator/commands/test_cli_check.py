"""A method of the user's is asked for the contract by one command."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from methods.testing import EXAMPLES, PruningMethodContract
from methods.testing.rules import RULES
from tests.orchestrator.command_line import call

MINE = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from methods import Filters, PruningMethod


@dataclass(frozen=True, kw_only=True)
class WeightSpread(PruningMethod):
    name: ClassVar[str] = "weight_spread"
    power: float = 1.0

    def score(self, filters: Filters):
        return filters.weight.flatten(1).std(dim=1).pow(self.power)


class Unseeded(WeightSpread):
    def score(self, filters):
        return torch.rand(len(filters.weight))


class Drawn(WeightSpread):
    def score(self, filters):
        return torch.rand(len(filters.weight), generator=filters.generator)


class ByPlace(WeightSpread):
    def score(self, filters):
        return torch.arange(len(filters.weight), dtype=torch.float32)


class Raising(WeightSpread):
    def score(self, filters):
        return filters.nothing


class Hooked(WeightSpread):
    def scores(self, network, session):
        network.register_forward_hook(lambda *_: None)
        return super().scores(network, session)


class Choosy(WeightSpread):
    def check(self, network, layout):
        from methods.errors import MethodError

        raise MethodError("nothing is good enough.")


@dataclass(frozen=True, kw_only=True)
class NeedsSetting(WeightSpread):
    least: float


class Other:
    pass
"""


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_check.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine_to_check", raising=False)
    few = {name: EXAMPLES[name] for name in ("plain", "inverted_residual")}
    monkeypatch.setattr("methods.testing.rules.EXAMPLES", few)


def asked(name: str) -> tuple[int, dict[str, dict[str, Any]]]:
    result = call("check", f"mine_to_check.py:{name}", "--json")
    return result.exit_code, {r["rule"]: r for r in json.loads(result.stdout)["rules"]}


def broken(name: str) -> dict[str, dict[str, Any]]:
    code, found = asked(name)
    assert code == 1
    return {rule: answer for rule, answer in found.items() if answer["state"] == "broken"}


def test_every_rule_of_the_contract_is_asked_and_has_advice() -> None:
    assert list(RULES) == [n for n in vars(PruningMethodContract) if n.startswith("test_")]


def test_a_method_that_keeps_every_rule_ends_with_0() -> None:
    code, found = asked("WeightSpread")
    assert code == 0
    assert {answer["state"] for answer in found.values()} == {"kept"}


def test_a_choice_that_no_seed_decides_is_told_with_what_to_do() -> None:
    result = call("check", "mine_to_check.py:Unseeded")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("BROKEN"))
    assert lines[at] == "BROKEN    one seed gives one choice (on plain, inverted_residual)"
    assert lines[at + 1].lstrip().startswith("Draw from `filters.generator`")
    assert lines[-1] == "mine_to_check.py:Unseeded: 10 rules kept, 1 broken, 1 not asked."


def test_a_method_that_draws_from_its_seed_need_not_follow_the_filters() -> None:
    code, found = asked("Drawn")
    assert code == 0
    assert found["reordered filters have reordered scores"]["state"] == "not asked"


def test_scores_by_place_are_found_out() -> None:
    assert list(broken("ByPlace")) == ["reordered filters have reordered scores"]


def test_a_hook_that_stays_is_found_out() -> None:
    assert list(broken("Hooked")) == ["the network is left as found unless trained"]


def test_what_the_method_raises_is_told_with_its_place() -> None:
    why = {answer["why"] for answer in broken("Raising").values()}
    line = MINE.splitlines().index("        return filters.nothing") + 1
    assert why == {
        f"AttributeError: 'Filters' object has no attribute 'nothing' (mine_to_check.py:{line})"
    }


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nowhere.py:Mine", "there is no file 'nowhere.py'"),
        ("mine_to_check.py:Nope", "mine_to_check.py has no 'Nope'"),
        ("mine_to_check.py:Other", "must be a class made of PruningMethod"),
        ("mine_to_check.py:NeedsSetting", "setting 'least'"),
        ("mine_to_check.py:Choosy", "nothing is good enough"),
        ("no.such.package:Mine", "cannot be imported"),
        ("l1", "write mine.py:Name"),
    ],
)
def test_what_cannot_be_had_ends_with_2(reference: str, says: str) -> None:
    result = call("check", reference)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
