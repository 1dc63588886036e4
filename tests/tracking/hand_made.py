"""A sweep written by hand into a real ledger, for tests whose numbers can be checked on paper."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.comparison.searches import Importance
from tracking.ledger.ledger import Ledger
from tracking.places import Place, Role
from tracking.records import SweepState, TrialState

DENSE = {"macs": 1_000_000, "params": 20_000}
WIDTHS = {"stage1.0.conv1": 16, "stage2.0.conv1": 32}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"torch": "2.15.0", "ray": "2.60.0"},
    "commit": "0123abc",
    "dirty": False,
    "device": "cpu",
    "device_name": "Test CPU",
    "threads": 1,
}


def specification(
    *arms: str,
    macs: Sequence[float] = (0.5,),
    params: Sequence[float] = (),
    seeds: Sequence[int] = (1, 2, 3),
    controls: Mapping[str, bool] | None = None,
    trials: int = 2,
) -> dict[str, Any]:
    """Write a specification as a sweep stores it; no target at all searches the front."""
    every = {"dense": True, "random": True, "uniform_l1": True, "scratch": True}
    targets = {"macs_reduction": list(macs), "params_reduction": list(params)}
    return {
        "model": {"name": "digits_net"},
        "data": {"name": "digits"},
        "arms": [{"name": name, "method": name} for name in arms],
        "targets": targets if macs or params else None,
        "search": {"trials": trials, "tolerance": 0.01},
        "seeds": list(seeds),
        "controls": every if controls is None else {**dict.fromkeys(every, False), **controls},
    }


def result(
    test: float | None, val: float = 90.0, macs: int = 500_000, **more: Any
) -> dict[str, Any]:
    """Write what a trial brings back; its network has half the MACs unless told otherwise."""
    params = more.pop("params", 12_000)
    kept = more.pop("kept", {"stage1.0.conv1": 8, "stage2.0.conv1": 16})
    return {
        "val_accuracy": val,
        "val_accuracy_best": val,
        "val_accuracy_before": val / 2,
        "test_accuracy": test,
        "macs": macs,
        "params": params,
        "base_macs": DENSE["macs"],
        "base_params": DENSE["params"],
        "macs_reduction": 1 - macs / DENSE["macs"],
        "params_reduction": 1 - params / DENSE["params"],
        "masked_difference": 1e-6,
        "epochs_select": 0,
        "epochs_recover": 10,
        "samples_seen": 1000,
        "seconds_statistics": 0.0,
        "statistics_computed": 0,
        "seconds_total": 20.0,
        "weights": "w-trial",
        "kept": kept,
        "plan": {
            "format": 1,
            "policy": "inside_blocks",
            "widths": WIDTHS,
            "kept": {group: list(range(n)) for group, n in kept.items()},
        },
        "base_weights": "w-dense",
        "data_hash": "d-1",
        "recipe_hash": "r-1",
        "policy_hash": "p-1",
        "environment": ENVIRONMENT,
        **more,
    }


class HandMadeSweep:
    """Writes entries and what became of them."""

    def __init__(self, folder: Path, spec: dict[str, Any], name: str = "by-hand") -> None:
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.db")
        self.name = name
        self.ledger.create_sweep(name, spec, "spec-hash")
        self.writer = self.ledger.take_over(name, "test")
        self._content = itertools.count()

    def add(
        self,
        role: str,
        arm: str = "",
        target: str = "macs-50%",
        index: int = 0,
        *,
        state: TrialState = TrialState.COMPLETED,
        cause: str = "DivergedError: The training loss stopped being finite.",
        spec: Mapping[str, Any] | None = None,
        uid: str | None = None,
        **result_of: Any,
    ) -> None:
        """Add one entry and take its trial to ``state``; ``result_of`` goes to `result`."""
        place = Place(Role(role), arm, target, index)
        trial_spec = {"recipe": {"epochs": 10}, "ratios": {}, **(spec or {})}
        content = uid or f"uid-{next(self._content)}"
        _, trial = self.writer.want(place, content, trial_spec)
        if state is TrialState.PENDING or trial.state.is_final:
            return
        attempt = self.writer.start(trial.id, "node", 1)
        if state is TrialState.COMPLETED:
            self.writer.complete(trial.id, attempt, result(**result_of))
        elif state is TrialState.STOPPED:
            self.writer.stop(trial.id, attempt, None, "not promising")
        elif state is TrialState.FAILED:
            self.writer.fail(trial.id, attempt, f"Traceback\n{cause}", cause)

    def baseline(self, test: float = 92.0, **more: Any) -> None:
        """Add the dense baseline."""
        given = {"macs": DENSE["macs"], "params": DENSE["params"], "weights": "w-dense"}
        own = {**given, "base_weights": None, "plan": None, **more}
        self.add("baseline", target="", test=test, **own)

    def seeds(
        self,
        role: str,
        arm: str,
        tests: Sequence[float | None],
        *,
        target: str = "macs-50%",
        **more: Any,
    ) -> None:
        """Add one completed run per accuracy, with seeds 1, 2, 3 ..."""
        for seed, test in enumerate(tests, start=1):
            self.add(role, arm, target, seed, test=test, **more)

    def compare(
        self, state: SweepState = SweepState.COMPLETED, importance: Importance | None = None
    ) -> Comparison:
        """Set the sweep's state and compare."""
        self.writer.set_state(state)
        return compare(self.ledger, self.ledger.sweep(self.name), importance=importance)
