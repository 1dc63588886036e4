"""Searches of a sweep as Optuna studies: what Optuna's own tools find there."""

from pathlib import Path

import optuna
import pytest

from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.command_line import call, facts
from tests.orchestrator.sweeps import OFF, Bench, specification

SEARCH = {"trials": 8, "window": 3, "proxy": True}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    bench = Bench(tmp_path)
    assert bench.drive(specification(arms=["l1"], search=SEARCH, controls=OFF)).over
    return tmp_path


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def test_every_proposal_is_there_with_its_ratios_and_value(store: Path) -> None:
    told = facts("study", "sweep", "--to", address(store), "--store", store)
    assert told["studies"] == [{"study": "sweep/l1/macs-50%", "proposals": 8, "added": 8}]
    study = optuna.load_study(study_name="sweep/l1/macs-50%", storage=address(store))
    assert [t.user_attrs["proposal"] for t in study.trials] == list(range(8))
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    first = study.trials[0]
    assert set(first.params.values()) == {0.5}
    assert set(first.user_attrs["ratios"]) == {"conv2", "conv3", "conv4"}
    assert first.user_attrs["kind"] == "proxy"
    assert study.best_value == max(trial.value or 0.0 for trial in study.trials)


def test_optuna_can_say_which_group_matters(store: Path) -> None:
    call("study", "sweep", "--to", address(store), "--store", store)
    study = optuna.load_study(study_name="sweep/l1/macs-50%", storage=address(store))
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == {"conv2", "conv3", "conv4"}


def test_called_again_it_adds_only_what_is_new(store: Path) -> None:
    call("study", "sweep", "--to", address(store), "--store", store)
    (told,) = facts("study", "sweep", "--to", address(store), "--store", store)["studies"]
    assert (told["proposals"], told["added"]) == (8, 0)


def test_trained_proposals_bring_their_epochs_and_stopped_ones_are_pruned(tmp_path: Path) -> None:
    stopping = {"rule": "asha", "min_epochs": 1, "reduction_factor": 2}
    spec = specification(
        arms=["l1"], recipe={"epochs": 4}, search={"trials": 10, "stopping": stopping}, controls=OFF
    )
    bench = Bench(tmp_path)
    assert bench.drive(spec, SeededBackend(slots=3)).over
    facts("study", "sweep", "--to", address(tmp_path), "--store", tmp_path)
    study = optuna.load_study(study_name="sweep/l1/macs-50%", storage=address(tmp_path))
    assert {len(trial.intermediate_values) > 0 for trial in study.trials} == {True}
    ended = {str(trial.state.name) for trial in study.trials}
    stored = {trial.state.value for trial in bench.trials_of(role="search")}
    assert ("PRUNED" in ended) == ("stopped" in stored)


def test_a_front_has_two_objectives(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.drive(specification(arms=["l1"], targets=None, search=SEARCH, controls=OFF)).over
    facts("study", "sweep", "--to", address(tmp_path), "--store", tmp_path)
    study = optuna.load_study(study_name="sweep/l1/front", storage=address(tmp_path))
    assert len(study.directions) == 2
    assert study.best_trials


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db", "mysql://h/db"])
def test_a_storage_that_cannot_be_used_is_one_message(store: Path, url: str) -> None:
    refused = call("study", "sweep", "--to", url, "--store", store)
    assert refused.exit_code == 2
    assert "cannot be written to this Optuna storage" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_study_of_somebody_else_is_left_alone(store: Path) -> None:
    other = optuna.create_study(study_name="sweep/l1/macs-50%", storage=address(store))
    other.add_trial(optuna.trial.create_trial(value=1.0))
    refused = call("study", "sweep", "--to", address(store), "--store", store)
    assert refused.exit_code == 2
    assert len(other.trials) == 1
