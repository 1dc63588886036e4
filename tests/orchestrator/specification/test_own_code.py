"""A sweep on the user's own files: their content is part of what it is."""

import sys
from pathlib import Path

import pytest

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.survey import survey
from orchestrator.errors import SpecError
from orchestrator.specification.changes import forbidden_changes
from orchestrator.specification.loading import parse_spec
from orchestrator.sweep import Sweep
from tests.orchestrator.sweeps import DEVICE, specification
from tracking.places import Role
from tracking.records import TrialState

NET = "from workers.models.digits_net import DigitsNet as build\n"
METHOD = "from methods.criteria.filter_norm import FilterNorm as Mine\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "net_of_sweep.py").write_text(NET)
    (tmp_path / "method_of_sweep.py").write_text(METHOD)
    return tmp_path


def sweep() -> Sweep:
    spec = specification(model="net_of_sweep.py:build", arms=["l1", "method_of_sweep.py:Mine"])
    return Sweep(spec)


def test_trials_carry_the_content_and_what_is_not_own_is_named_as_before(folder: Path) -> None:
    spec = sweep().spec
    agenda = Agenda(spec, survey(spec), DEVICE)
    agenda.begin([], [])
    (first,) = agenda.next(10)
    assert first.trial.model.code == spec.model.code is not None
    agenda.ended(first.place, first.trial.uid, TrialState.COMPLETED, {"weights": "w"})
    by_arm = {w.place.arm: w.trial for w in agenda.next(100) if w.place.role is Role.SEARCH}
    assert by_arm["Mine"].method == "method_of_sweep.py:Mine"
    assert by_arm["Mine"].method_code == spec.arms[1].code is not None
    assert "method_code" not in by_arm["l1"].model_dump(mode="json")
    assert "code" not in specification().model_dump(mode="json")["model"]


def test_a_sweep_is_not_gone_on_with_by_other_code(folder: Path) -> None:
    before = sweep().spec
    (folder / "net_of_sweep.py").write_text(f"{NET}# another\n")
    after = sweep().spec
    assert forbidden_changes(before, after) == [
        "model.code: your code is not what the sweep began with"
    ]
    stored = before.model_dump(mode="json")
    with pytest.raises(SpecError, match=r"model: .*the code is not what the sweep began with"):
        Sweep(stored).survey()


def test_a_sweep_that_began_before_content_was_looked_at_goes_on(folder: Path) -> None:
    spec = sweep().spec
    model = spec.model.model_copy(update={"code": None})
    arms = tuple(arm.model_copy(update={"code": None}) for arm in spec.arms)
    assert forbidden_changes(spec.model_copy(update={"model": model, "arms": arms}), spec) == []


def test_a_file_that_cannot_be_loaded_is_told_at_its_place(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"arms\.0\.method.*there is no file 'gone.py'"):
        parse_spec({"name": "x", "model": "digits_net", "arms": ["gone.py:Mine"]})
