"""One sweep with and without a saboteur: the specification, the runs, and what is checked."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.checks import (
    Records,
    artifacts_whole,
    exactly_once,
    exits_explained,
    mirror_equals_ledger,
    tables_equal,
)
from benchmarks.chaos.disturbances import LedgerFile, disturbances
from benchmarks.chaos.saboteur import Sabotage, Saboteur, Strike, Victim
from benchmarks.chaos.world import LEDGER, Exit, Supervisor, World, publish
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.specification.loading import parse_spec
from tracking.artifacts import ArtifactStore
from tracking.errors import LedgerError
from tracking.ledger.ledger import Ledger
from tracking.records import TrialState

NAME = "chaos"
POLL_S = 0.5
PATIENCE_S = 3600.0
FIELDS: Mapping[str, Any] = {
    "name": NAME,
    "model": "digits_net",
    "data": {"name": "digits", "train_images": 300, "test_images": 200},
    "arms": [
        "l1",
        "geometric_median",
        {"name": "taylor-iterative", "method": "taylor", "schedule": {"name": "iterative"}},
        {"name": "sfp", "method": "l2", "schedule": "sfp"},
    ],
    "targets": {"macs_reduction": [0.3, 0.5, 0.7]},
    "search": {"trials": 2, "window": 2},
    "recipe": {"epochs": 3, "batch_size": 32, "learning_rate": 0.02},
    "baseline": {"epochs": 6, "learning_rate": 0.1},
    "seeds": [1, 2, 3],
    "recovery": {"checkpoint_epochs": 1},
}


def fields_for(trials: int) -> dict[str, Any]:
    """Return the specification whose searches are long enough for ``trials`` trials in all."""
    fields = {**FIELDS}
    while trial_matrix(parse_spec(fields)).trials < trials:
        search = fields["search"]
        fields["search"] = {**search, "trials": search["trials"] + 1}
    return fields


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRun:
    """A sweep that has been run to its end; its ledger is open, to be closed by the caller."""

    records: Records
    store: ArtifactStore
    exits: Sequence[Exit]  #: Of its drivers.
    strikes: Sequence[Strike]
    seconds: float  #: From the start of the first driver to the end of the last.


def run_sweep(
    world: World,
    folder: Path,
    fields: Mapping[str, Any],
    sabotage: Sabotage | None = None,
    patience_s: float = PATIENCE_S,
    *,
    in_file: bool = False,
) -> SweepRun:
    """Run the sweep in a ledger and a folder of its own, until a driver ends well.

    Its ledger is on PostgreSQL, or with ``in_file`` in a file that can be moved and removed.

    Raises:
        TimeoutError: None does.
    """
    folder.mkdir(parents=True)
    file = folder / "ledger" / "ledger.db"
    url = f"sqlite:///{file}" if in_file else world.postgres.new_database()
    tracking = {"store": str(folder / "store"), "mlflow": world.mlflow.url if sabotage else "off"}
    spec = folder / "sweep.yaml"
    spec.write_text(json.dumps({**fields, "tracking": tracking}))  # JSON is YAML
    supervisor = Supervisor(spec, world.machines.address, {LEDGER: url})
    begun = time.monotonic()

    def is_over() -> bool:
        if supervisor.is_alive() and time.monotonic() - begun > patience_s:
            raise TimeoutError(f"no driver has ended well within {patience_s:g} s; see {folder}")
        return not supervisor.is_alive()

    victims = _victims(world, supervisor)
    if in_file:
        ledger = LedgerFile(file, NAME, supervisor)
        victims["ledger"] = Victim(kill=ledger.move, replace=ledger.put_back)
        victims["deletion"] = Victim(kill=ledger.remove, replace=ledger.restore)
    saboteur = Saboteur(victims, sabotage) if sabotage else None
    progress = _Progress(url)
    supervisor.start()
    try:
        if saboteur is not None:
            saboteur.work(is_over, progress.completed)
        while not is_over():
            time.sleep(POLL_S)
    finally:
        supervisor.stop()
        progress.close()
    seconds = time.monotonic() - begun
    if sabotage:
        publish(NAME, url, folder, patience_s)
    return SweepRun(
        records=Records(ledger=Ledger.open(url, create=False), name=NAME),
        store=ArtifactStore(folder / "store" / "artifacts"),
        exits=supervisor.exits,
        strikes=saboteur.strikes if saboteur else (),
        seconds=seconds,
    )


def verdicts(outcome: SweepRun, quiet: Records, mlflow: str) -> dict[str, list[str]]:
    """Return, for everything that must hold, what is wrong with it."""
    return {
        "every trial has completed exactly once": exactly_once(outcome.records),
        "MLflow equals the ledger run for run": mirror_equals_ledger(outcome.records, mlflow),
        "no artifact is missing or torn, none is left over": artifacts_whole(
            outcome.records, outcome.store
        ),
        "results and tables equal those of the quiet run": tables_equal(outcome.records, quiet),
        "drivers that ended by themselves said why": exits_explained(outcome.exits),
    }


def _victims(world: World, supervisor: Supervisor) -> dict[str, Victim]:
    return {
        "worker": Victim(kill=world.machines.kill_worker),
        "machine": Victim(kill=world.machines.kill_machine, replace=world.machines.add),
        "driver": Victim(kill=lambda _: supervisor.kill_driver()),
        "mlflow": Victim(
            kill=lambda _: world.mlflow.kill(), replace=world.mlflow.start, takes_long=True
        ),
        "postgres": Victim(kill=world.kill_postgres, replace=world.postgres.start),
        **disturbances(supervisor, NAME, "l1", "macs-50%"),
    }


class _Progress:
    """Counts trials that have completed; the last count stands while the ledger is away."""

    def __init__(self, url: str) -> None:
        self._url, self._last = url, 0
        self._ledger: Ledger | None = None

    def completed(self) -> int:
        """Return how many have completed."""
        with suppress(LedgerError):
            self._ledger = self._ledger or Ledger.open(self._url, create=False)
            counts = self._ledger.counts(self._ledger.sweep(NAME).id)
            self._last = counts[TrialState.COMPLETED]
            return self._last
        if self._ledger is not None:
            self._ledger.database.reopen()  # its file may be another one by now
        return self._last

    def close(self) -> None:
        """Close the connections."""
        if self._ledger is not None:
            self._ledger.close()
