"""A stop between two steps of a driver, where nothing runs yet, leaves the sweep in order, too."""

from pathlib import Path
from typing import Any, NoReturn

import pytest

import orchestrator.sweep
from orchestrator.sweep import Sweep
from tests.orchestrator.sweeps import BASE
from tracking import SweepState
from tracking.ledger.lease import Lease
from tracking.ledger.ledger import Ledger


def stop(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("place", "step"),
    [(orchestrator.sweep, "OwnedSweep"), (orchestrator.sweep, "Outages"), (Lease, "kept")],
)
def test_it_is_interrupted_from_the_moment_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object, step: str
) -> None:
    monkeypatch.setattr(orchestrator.sweep, "connect", lambda *_: None)  # no step needs Ray yet
    monkeypatch.setattr(place, step, stop)
    fields: dict[str, Any] = {**BASE, "tracking": {"store": str(tmp_path), "mlflow": "off"}}
    sweep = Sweep(fields)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    with Ledger.open(sweep.spec.tracking.ledger_url, create=False) as ledger:
        assert ledger.sweep(sweep.spec.name).state is SweepState.INTERRUPTED
