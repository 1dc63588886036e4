"""Small sweeps to try the loop on: specifications, a ledger, drivers, and what runs must share."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.stopper import Stopper
from orchestrator.agenda.survey import Survey, survey
from orchestrator.loop.backend import Backend, InlineBackend
from orchestrator.loop.driver import Driver
from orchestrator.loop.watcher import Ended
from orchestrator.specification.loading import parse_spec
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.simulation import simulate
from tracking.comparison.compare import compare
from tracking.errors import UnknownSweepError
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import MAX_LOSSES, SweepWriter
from tracking.places import Place
from tracking.records import AttemptRecord, EntryRecord, Loss, SweepState, TrialRecord
from workers.settings import TrialSpec

BASE: Mapping[str, Any] = {
    "name": "sweep",
    "model": "digits_net",
    "data": {"name": "digits", "train_images": 200, "test_images": 100},
    "arms": ["l1", "geometric_median"],
    "targets": {"macs_reduction": [0.5]},
    "search": {"trials": 3, "window": 2},
    "recipe": {"epochs": 2},
    "baseline": {"epochs": 3},
    "seeds": [1, 2],
}
OFF = {"dense": False, "random": False, "uniform_l1": False, "scratch": False}
DEVICE = "a machine"


def specification(**changes: Any) -> SweepSpec:
    """Return the small sweep with top-level keys changed; its proposals are trained by default."""
    fields = {**BASE, **changes}
    return parse_spec({**fields, "search": {"proxy": False, **fields["search"]}})


@cache
def surveyed() -> Survey:
    """Return what every such sweep stands on."""
    return survey(specification())


class KilledError(BaseException):
    """The driver is killed here: nothing may catch this."""


@dataclass
class Fuse:
    """Kills a driver at its n-th step; a step is the moment before or after a transaction."""

    steps: int
    burned: int = 0

    def burn(self) -> None:
        self.burned += 1
        if self.burned == self.steps:
            raise KilledError


class FusedWriter(SweepWriter):
    """A writer whose driver dies before or after one of its transactions."""

    def __init__(self, ledger: Ledger, writer: SweepWriter, fuse: Fuse) -> None:
        super().__init__(
            ledger.database,
            sweep_id=writer.sweep_id,
            name=writer.name,
            epoch=writer.epoch,
            lease=writer.lease,
            max_losses=MAX_LOSSES,
        )
        self._fuse = fuse

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._fuse.burn()
        with super().transaction():
            yield
        self._fuse.burn()


@dataclass
class Log:
    """A watcher that remembers."""

    trials: list[Ended] = field(default_factory=list)
    losses: list[int] = field(default_factory=list)
    arms: dict[str, str] = field(default_factory=dict)  #: Those given up, with the cause.
    on_tick: Callable[[], None] = lambda: None

    def started(self, trial_id: int, place: Place, spec: TrialSpec, worker: str) -> None:
        pass

    def reported(self, trial_id: int, step: int) -> None:
        pass

    def ended(self, trial: Ended) -> None:
        self.trials.append(trial)

    def lost(self, trial_id: int, loss: Loss, reason: str) -> None:
        self.losses.append(trial_id)

    def given_up(self, arm: str, cause: str) -> None:
        self.arms[arm] = cause

    def waits(self, reason: str) -> None:
        """Nothing is waited for here."""

    def tick(self, running: int, waiting: int) -> None:
        self.on_tick()


@dataclass(frozen=True)
class Driven:
    """What one driver did."""

    over: bool
    agenda: Agenda
    log: Log


class Bench:
    """One sweep in a ledger in a folder, and drivers for it."""

    def __init__(self, folder: Path, name: str = "sweep") -> None:
        self.name = name
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.db")

    def drive(
        self,
        spec: SweepSpec,
        backend: Backend | None = None,
        *,
        retry: bool = False,
        fuse: Fuse | None = None,
        stop_when: Callable[[Log], bool] | None = None,
        hung_after_s: float = math.inf,
        device: str = DEVICE,
        on: Survey | None = None,
    ) -> Driven:
        """Run a sweep, or go on with it, by a driver of its own; on the small survey if None."""
        spec = spec.model_copy(update={"name": self.name})
        stored = spec.model_dump(mode="json")
        try:
            self.ledger.sweep(spec.name)
        except UnknownSweepError:
            self.ledger.create_sweep(spec.name, stored, spec.spec_hash)
        writer = self.ledger.take_over(spec.name, "test", by_force=True)
        writer.amend_spec(stored, spec.spec_hash)
        if retry:
            writer.retry_failed()
        if fuse is not None:
            writer = FusedWriter(self.ledger, writer, fuse)
        log, agenda = Log(), Agenda(spec, on or surveyed(), device)
        stopper = Stopper(spec)
        stopper.restore(self.ledger, writer.sweep_id)
        driver = Driver(
            agenda,
            backend or InlineBackend(simulate),
            self.ledger,
            writer,
            log,
            stopper=stopper,
            hung_after_s=hung_after_s,
        )
        if stop_when is not None:
            log.on_tick = lambda: driver.stop() if stop_when(log) else None
        over = driver.run()
        writer.set_state(SweepState.COMPLETED if over else SweepState.INTERRUPTED)
        return Driven(over=over, agenda=agenda, log=log)

    def entries(self, **where: Any) -> list[EntryRecord]:
        """Return the entries with these fields, in the order they were wanted."""
        found = self.ledger.entries(self.ledger.sweep(self.name).id)
        return [
            e for e in found if all(getattr(e.place, key) == value for key, value in where.items())
        ]

    def trials(self) -> list[TrialRecord]:
        """Return all trials, in the order they were first wanted."""
        return self.ledger.trials(self.ledger.sweep(self.name).id)

    def attempts(self) -> list[AttemptRecord]:
        """Return all attempts, by trial and number."""
        return self.ledger.attempts(self.ledger.sweep(self.name).id)

    def trial(self, entry: EntryRecord) -> TrialRecord:
        """Return the trial an entry points at."""
        return self.ledger.trial(entry.trial_id)

    def trials_of(self, **where: Any) -> list[TrialRecord]:
        """Return the trial of each entry with these fields."""
        return [self.trial(entry) for entry in self.entries(**where)]

    def content(self) -> dict[str, Any]:
        """Return all that two runs of one sweep must share, whatever befell them."""
        trials = {trial.id: trial for trial in self.trials()}
        return {
            "entries": {str(e.place): (trials[e.trial_id].uid, e.proposal) for e in self.entries()},
            "trials": {
                trial.uid: (trial.state, trial.spec, trial.result) for trial in trials.values()
            },
            "curves": {
                trial.uid: [(m.step, m.key, m.value) for m in self.ledger.metrics(trial.id)]
                for trial in trials.values()
            },
            "table": self.table(),
        }

    def table(self) -> dict[str, Any]:
        """Return the comparison as JSON, without its date."""
        comparison = compare(self.ledger, self.ledger.sweep(self.name))
        return timeless(comparison.to_json())


def timeless(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison, as JSON, without its date, its name and what surrounds it."""
    surroundings = {"name", "tracking", "resources"}
    spec = {key: value for key, value in comparison["spec"].items() if key not in surroundings}
    found: dict[str, Any] = json.loads(json.dumps({**comparison, "spec": spec}))
    del found["last_change"], found["sweep"]
    return found


def without_device(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out of :meth:`Bench.content` what differs between machines by design: latencies."""
    places = {k: v for k, v in content["entries"].items() if not k.startswith("latency/")}
    uids = {uid for uid, _ in places.values()}
    return {
        "entries": places,
        "trials": {uid: content["trials"][uid] for uid in uids},
        "curves": {uid: content["curves"][uid] for uid in uids},
        "table": content["table"],
    }
