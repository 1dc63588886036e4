from pathlib import Path
from typing import Any

import pytest

from orchestrator.exporting import standing
from orchestrator.sweep import Sweep
from orchestrator.trial_choice import TrialChoiceError, choose_trial
from tests.orchestrator.command_line import call
from tests.orchestrator.sweeps import BASE
from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.errors import MissingLedgerError, UnknownSweepError
from workers import exchange


def sweep_at(store: Path) -> Sweep:
    fields: dict[str, Any] = {**BASE, "tracking": {"store": str(store), "mlflow": "off"}}
    return Sweep(fields)


def test_a_sweep_that_was_never_run_says_so_and_writes_nothing(tmp_path: Path) -> None:
    sweep = sweep_at(tmp_path / "store")
    assert "not been run" in sweep._repr_html_()
    with pytest.raises(MissingLedgerError):
        sweep.trials()
    assert not (tmp_path / "store").exists()


def test_a_sweep_the_ledger_does_not_know_is_told(tmp_path: Path) -> None:
    made = HandMadeSweep(tmp_path, specification("l1"), "another")
    made.ledger.close()
    assert "not been run" in sweep_at(tmp_path)._repr_html_()
    with pytest.raises(UnknownSweepError):
        sweep_at(tmp_path).compare()


def test_it_reads_what_is_in_the_ledger_now(tmp_path: Path) -> None:
    made = HandMadeSweep(tmp_path, specification("l1", seeds=[1, 2]), "sweep")
    made.baseline()
    sweep = sweep_at(tmp_path)
    assert len(sweep.trials()) == 1
    made.add("confirm", "l1", index=1, test=90.0)
    made.add("confirm", "l1", index=2, test=92.0)
    assert len(sweep.trials()) == 3
    assert sweep.compare().set_index("name").loc["l1", "accuracy"] == 91.0
    assert sweep.front()["on_front"].any()
    assert sweep.status()["completed"].sum() == 3
    assert sweep.ratios()["kept"].notna().all()
    assert sweep.curves().empty
    assert "91.00" in sweep._repr_html_()
    with pytest.raises(TrialChoiceError, match="no trial has completed"):
        sweep.export("best:l1:macs-90%", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made.ledger.close()


def test_the_card_says_arm_interval_and_what_it_was_compared_with(tmp_path: Path) -> None:
    made = HandMadeSweep(tmp_path, specification("l1", "fpgm", seeds=[1, 2]), "sweep")
    made.baseline()
    for arm, test in (("l1", 91.0), ("fpgm", 89.0)):
        for seed in (1, 2):
            made.add("confirm", arm, index=seed, test=test + seed)
    made.add("control", "random", index=1, test=80.0)
    record = made.ledger.sweep("sweep")
    trial = choose_trial(made.ledger, record, "best:l1:macs-50%")
    told = standing(made.ledger, record, trial)
    assert "confirm of **l1** at macs-50%" in told
    assert "92.50 ± 0.71 %, 95 % interval" in told
    assert "| fpgm | 90.50" in told
    assert "| random | 80.00" in told
    made.ledger.close()


def test_missing_packages_are_said_before_anything_is_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "find_spec", lambda name: None)
    made = HandMadeSweep(tmp_path, specification("l1"), "sweep")
    made.ledger.close()
    arguments = ("export", "sweep", "1", "--to", tmp_path / "out", "--onnx", "--store", tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "pip install 'prunesweep[onnx]'" in result.stderr
    assert not (tmp_path / "out").exists()
