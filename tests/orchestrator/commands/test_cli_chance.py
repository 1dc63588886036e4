"""A checkpoint that knows nothing is refused before anything is spent."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from orchestrator.commands.doctor import _dense
from orchestrator.errors import SpecError
from orchestrator.sweep import Sweep
from tests.orchestrator.command_line import call, write_spec
from workers.models import build_model
from workers.settings import ModelSettings


@pytest.fixture
def untrained(tmp_path: Path) -> str:
    torch.manual_seed(0)
    network = build_model(ModelSettings(name="digits_net"), 10, 1)
    torch.save(network.state_dict(), tmp_path / "untrained.pt")
    return str(tmp_path / "untrained.pt")


def test_run_refuses_it_and_writes_nothing(tmp_path: Path, untrained: str) -> None:
    spec = write_spec(tmp_path, checkpoint=untrained, baseline={})
    result = call("run", spec, "--store", tmp_path / "store")
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert ": checkpoint: The dense network gets" in said
    assert "set baseline.allow_chance: true" in said
    assert not (tmp_path / "store").exists()


def test_doctor_refuses_it_unless_it_is_adapted_or_allowed(tmp_path: Path, untrained: str) -> None:
    def looked(baseline: Mapping[str, object]) -> str:
        sweep = Sweep.from_file(write_spec(tmp_path, checkpoint=untrained, baseline=baseline))
        return _dense(sweep, sweep.survey())

    with pytest.raises(SpecError, match="cannot be told from chance"):
        looked({})
    for baseline in ({"allow_chance": True}, {"epochs": 3}):
        assert "validation images right, where the most frequent class" in looked(baseline)


def test_allow_chance_is_true_or_false(tmp_path: Path) -> None:
    result = call("run", write_spec(tmp_path, baseline={"allow_chance": "maybe"}), "--dry-run")
    assert result.exit_code == 2
    assert "allow_chance is 'maybe'; say true or false" in " ".join(result.stderr.split())
