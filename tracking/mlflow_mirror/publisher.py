"""Shows the ledger in MLflow: a mirror kept by one process beside the driver.

It is level-triggered: it shows the present state of whatever changed, with the ledger's own time
stamps, so it may be killed, lag or begin again, and nothing is there twice. An outage of MLflow
costs the sweep nothing. `tracking.mlflow_mirror.publisher_process` runs it beside a driver.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event

from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.errors import LedgerError, LedgerMovedError, TrackingError
from tracking.ledger.ledger import Ledger
from tracking.ledger.outbox import Outbox
from tracking.mlflow_mirror.client import (
    MirrorError,
    Mlflow,
    MlflowMissingError,
    MlflowRefusedError,
    MlflowUnavailableError,
    RunHandle,
)
from tracking.mlflow_mirror.former_ledgers import supersede_former
from tracking.mlflow_mirror.mirror import (
    SUPERSEDED,
    Point,
    RunImage,
    Status,
    attempt_run,
    experiment_name,
    no_longer,
    sweep_key,
    sweep_run,
)
from tracking.mlflow_mirror.verdicts import Verdicts, verdicts_of
from tracking.records import AttemptRecord, SweepRecord, TrialRecord

POLL_S = 1.0  #: Between looks at a ledger in which nothing changes.
PASS_S = 5.0  #: After which a pass through a backlog ends, to see whether to go on.
BATCH = 50  #: Trials read from the ledger at a time.
MAX_BACK_OFF_S = 60.0
GRACE_S = 60.0  #: For what is left when publishing is to end.
STALLED_S = 10.0  #: Without any success, by then.
TWIN_DELAY_S = 30.0  #: By then a server has carried out the call it was too slow to answer.

log = logging.getLogger(__name__)


class NotAloneError(TrackingError):
    """The right to publish is not held now."""

    def __str__(self) -> str:
        return "Another process may be publishing the sweep: this one waits until it has ended."


@dataclass(kw_only=True, slots=True)
class _Shown:
    """What this process knows to be in MLflow of one run."""

    run: RunHandle
    status: Status | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: set[Point] = field(default_factory=set)
    has_files: bool = False
    has_data: bool = False


@dataclass(kw_only=True, slots=True)
class _Doubt:
    """A run that may have been created by a call nobody answered."""

    experiment_id: str
    since: float  #: On the monotonic clock.
    kept: str | None = None  #: The run that is used.


class Publisher:
    """Brings MLflow up to date with a ledger. One at a time per sweep: see `sole_publisher`.

    Args:
        ledger: What happened.
        tracking_uri: Where MLflow is: a server's URL, or the database URL of a store.
        artifacts: Where the trials' files are.
        sweep: Name of the one sweep to publish; None: all of them.
        weights_artifacts: Copy pruned weights into MLflow, not only the path to them.
        may_publish: Asked before each record, for the right may get lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        tracking_uri: str,
        artifacts: ArtifactStore,
        *,
        sweep: str | None = None,
        weights_artifacts: bool = False,
        may_publish: Callable[[], bool] = lambda: True,
    ) -> None:
        self.trouble: str | None = None  #: Why the last pass broke off.
        self.refused: dict[str, int] = {}  #: Sweep or trial -> the rev MLflow would not take.
        self._ledger, self._outbox, self._artifacts = ledger, Outbox(ledger), artifacts
        self._mlflow = Mlflow(tracking_uri)
        self._sweep, self._weights_artifacts = sweep, weights_artifacts
        self._may_publish = may_publish
        self._back_off_s = 0.0
        self._failures: Counter[str] = Counter()  # one trial that fails must not hold up the rest
        self._shown: dict[str, _Shown] = {}
        self._experiments: dict[int, str] = {}
        self._doubts: dict[str, _Doubt] = {}

    def publish_once(self, deadline: float = math.inf) -> int:
        """Send what changed, up to `BATCH` trials per sweep; return how many records were sent.

        Raises nothing: what went wrong is in `trouble`, and what was not sent stays to be sent.

        Args:
            deadline: No record is begun after this moment of the monotonic clock.
        """
        published = 0
        try:
            self._drop_twins(TWIN_DELAY_S)
            for key, rev, publish in self._waiting():
                if time.monotonic() > deadline:
                    break
                if not self._may_publish():
                    raise NotAloneError
                published += self._try(key, rev, publish)
            self._note(None)
        except (MlflowUnavailableError, LedgerError, NotAloneError) as error:
            self._note(error)
            if isinstance(error, LedgerMovedError):
                self._begin_again()
        return published

    def _begin_again(self) -> None:
        """Read the ledger that lies where it should from now on, if it is another one."""
        self._ledger.database.reopen()
        self._experiments.clear()
        self._shown.clear()

    def look(self) -> None:
        """See whether MLflow still knows the sweep; if not, all of it is sent again.

        Raises nothing, as `publish_once`.
        """
        self._mlflow.forget()
        self._experiments.clear()
        self._shown.clear()
        try:
            for sweep in self._ledger.sweeps():
                if sweep.name == self._sweep and sweep.run_id is not None:
                    self._experiment(sweep)
            self._note(None)
        except (MirrorError, LedgerError) as error:
            self._note(error)

    def publish_all(self) -> int:
        """Send everything there is, until nothing is left or something is wrong."""
        total = 0
        while published := self.publish_once():
            total += published
            if self.trouble:
                break
        return total

    def is_up_to_date(self) -> bool:
        """Whether MLflow shows all it can; False when the ledger does not answer."""
        try:
            return next(self._waiting(), None) is None
        except LedgerError:
            return False

    def run_forever(self, stop: Event, *, grace_s: float = GRACE_S) -> bool:
        """Publish until ``stop`` is set, then what is left, for ``grace_s`` seconds at most.

        It ends sooner when nothing gets through: whoever set ``stop`` waits for it.

        Returns:
            Whether MLflow is up to date.
        """
        while not stop.is_set():
            published = self.publish_once(time.monotonic() + PASS_S)
            stop.wait(self._back_off_s if self.trouble else 0.0 if published else POLL_S)
        if self.trouble is None:
            self.look()  # at a store that was removed after the last record
        now = time.monotonic()
        deadline, stalled = now + grace_s, now + STALLED_S
        while not self.is_up_to_date() and time.monotonic() < min(deadline, stalled):
            if self.publish_once(deadline):
                stalled = time.monotonic() + STALLED_S
            if self.trouble:
                time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
        try:
            self._drop_twins(0.0)
        except MlflowUnavailableError as error:
            self._note(error)
        return self.is_up_to_date()

    def _waiting(self) -> Iterator[tuple[str, int, Callable[[], None]]]:
        """List what is to be sent: sweeps, then their trials; each as name, rev and action."""
        only = self._sweep
        sweeps = self._ledger.sweeps() if only is None else [self._ledger.sweep(only)]
        for sweep in sweeps:
            key = f"sweep {sweep.name}"
            if sweep.rev > sweep.published_rev and self.refused.get(key) != sweep.rev:
                yield key, sweep.rev, partial(self._publish_sweep, sweep)
        for sweep in sweeps:
            limit = BATCH + len(self.refused) + len(self._failures)
            trials = self._outbox.dirty_trials(sweep.id, limit)
            for trial in sorted(trials, key=lambda trial: self._failures[_key(trial)]):
                if self.refused.get(_key(trial)) != trial.rev:
                    yield _key(trial), trial.rev, partial(self._publish_trial, sweep, trial)

    def _try(self, key: str, rev: int, publish: Callable[[], None]) -> bool:
        try:
            publish()
        except MlflowRefusedError as error:
            self._failures[key] += 1
            if isinstance(error, MlflowMissingError) and self._failures[key] == 1:
                self._experiments.clear()  # what is known of MLflow may be out of date: look again
                self._shown.clear()
                return False
            log.warning("%s is not shown: %s", key, error)
            self.refused[key] = rev
            return False
        except MlflowUnavailableError:
            self._failures[key] += 1
            raise
        self._failures.pop(key, None)
        self.refused.pop(key, None)
        return True

    def _publish_sweep(self, sweep: SweepRecord) -> None:
        image = self._sweep_image(sweep, self._verdicts(sweep))
        self._experiment(sweep)
        self._shown[image.key].has_files = False  # a report is rewritten under its name
        self._show(image, self._shown[image.key])
        self._outbox.mark_sweep_published(sweep.id, sweep.rev)

    def _publish_trial(self, sweep: SweepRecord, trial: TrialRecord) -> None:
        experiment_id = self._experiment(sweep)
        parent = self._shown[sweep_key(sweep)].run.id
        entries = self._outbox.entries_of(trial.id)
        attempts: list[AttemptRecord | None] = [*self._outbox.attempts_of(trial.id)]
        if not attempts and trial.reused_from is not None:
            attempts = [None]
        for attempt in attempts:
            image = attempt_run(
                sweep,
                trial,
                attempt,
                entries,
                self._outbox.metrics_of(trial.id, attempt.n) if attempt else [],
                with_weights=self._weights_artifacts,
            )
            known = attempt.run_id if attempt else None
            shown = self._find_or_create(image, experiment_id, parent, known)
            if attempt and attempt.run_id != shown.run.id:
                self._outbox.set_run(trial.id, attempt.n, shown.run.id)
            self._show(image, shown)
            if trial.state.is_final:
                del self._shown[image.key]  # nothing more is coming
        self._outbox.mark_published(trial.id, trial.rev)

    def _experiment(self, sweep: SweepRecord) -> str:
        """Return the sweep's experiment, which has its parent run."""
        if sweep.id in self._experiments:
            return self._experiments[sweep.id]
        location = self._artifact_location(sweep) if self._mlflow.is_direct else None
        experiment_id = self._mlflow.experiment(experiment_name(sweep), location)
        if location is not None:
            self._mlflow.follow(experiment_id, location)
        image = self._sweep_image(sweep)
        shown = self._find_or_create(image, experiment_id, None, sweep.run_id)
        if shown.run.is_deleted:  # without a parent the trials' runs cannot be told from others
            self._mlflow.restore(shown.run.id)
            shown.run = replace(shown.run, is_deleted=False)
        if SUPERSEDED in shown.run.tags:  # the ledger that was removed is back
            self._mlflow.take_tag(shown.run.id, SUPERSEDED)
            self._outbox.reset(sweep.id)
        supersede_former(self._mlflow, experiment_id, shown.run, self._ledger.database.place)
        if sweep.run_id not in {None, shown.run.id}:
            log.warning("MLflow does not know sweep %s any more: all of it is sent", sweep.name)
            self._outbox.reset(sweep.id)
        self._outbox.set_sweep_run(sweep.id, experiment_id, shown.run.id)
        self._experiments[sweep.id] = experiment_id
        return experiment_id

    def _sweep_image(self, sweep: SweepRecord, verdicts: Verdicts | None = None) -> RunImage:
        trials = self._ledger.trials(sweep.id)
        ended = max((trial.ended_at for trial in trials if trial.ended_at), default=None)
        return sweep_run(sweep, ended, self._ledger.database.place, verdicts, trials)

    def _verdicts(self, sweep: SweepRecord) -> Verdicts | None:
        """Compare the arms; None where the records do not allow it, which must hold up nothing."""
        try:
            return verdicts_of(compare(self._ledger, sweep))
        except LedgerError:
            raise  # it is away
        except Exception:
            log.exception("sweep %s is shown without verdicts", sweep.name)
            return None

    def _artifact_location(self, sweep: SweepRecord) -> str:
        folder = self._artifacts.folder
        root = folder.as_uri() if folder else self._artifacts.url
        return f"{root}/mlflow/{sweep.name}"

    def _find_or_create(
        self, image: RunImage, experiment_id: str, parent: str | None, known: str | None
    ) -> _Shown:
        """Return the run of an image; ``known`` is the id the ledger remembers."""
        if image.key not in self._shown:
            self._shown[image.key] = self._open(image, experiment_id, parent, known)
        return self._shown[image.key]

    def _open(
        self, image: RunImage, experiment_id: str, parent: str | None, known: str | None
    ) -> _Shown:
        if known is not None:
            try:
                return _Shown(run=self._mlflow.run(known))
            except MlflowMissingError:
                log.debug("run %s is gone", known)
        doubt = self._doubts.get(image.key)
        found = self._mlflow.find(experiment_id, image.key)
        for twin in found[1:]:
            if not twin.is_deleted:
                self._mlflow.delete(twin.id)
        if found:
            shown = _Shown(run=found[0])
        else:
            try:
                run = self._mlflow.create(experiment_id, image, parent)
            except MlflowUnavailableError:
                now = time.monotonic()
                self._doubts[image.key] = _Doubt(experiment_id=experiment_id, since=now)
                raise
            shown = _Shown(run=run, status="RUNNING", tags=dict(image.tags))
        if doubt is not None:
            doubt.kept = shown.run.id
        return shown

    def _show(self, image: RunImage, shown: _Shown) -> None:
        """Send what the run lacks, as far as this process knows; the status goes last."""
        run = shown.run
        if run.is_deleted:
            return  # by a user, who does not want to see it
        points = [point for point in image.points if point not in shown.points]
        params = {k: v for k, v in image.params.items() if shown.params.get(k) != v}
        wanted = {**image.tags, **no_longer(image, {**run.tags, **shown.tags})}
        tags = {k: v for k, v in wanted.items() if shown.tags.get(k) != v}
        if points or params or tags:
            self._mlflow.log(run.id, points, params, tags)
            shown.points.update(points)
            shown.params.update(params)
            shown.tags.update(tags)
        if (image.files or image.copies) and not shown.has_files:
            try:
                self._mlflow.upload(run, image, self._artifacts)
            except MlflowRefusedError as error:
                log.warning("files of %s are not shown: %s", image.name, error)
            shown.has_files = True
        if image.data is not None and not shown.has_data:
            self._mlflow.add_data(run.id, image.data)
            shown.has_data = True
        if image.status != shown.status:
            self._mlflow.end(run.id, image.status, image.end_ms)
            shown.status = image.status

    def _drop_twins(self, delay_s: float) -> None:
        """Delete runs that a slow server created after all, beside the ones in use."""
        for key, doubt in list(self._doubts.items()):
            if doubt.kept is None or time.monotonic() - doubt.since < delay_s:
                continue
            for run in self._mlflow.find(doubt.experiment_id, key):
                if run.id != doubt.kept and not run.is_deleted:
                    self._mlflow.delete(run.id)
            del self._doubts[key]

    def _note(self, error: Exception | None) -> None:
        """Remember and log that something is wrong, or is right again."""
        if error is None:
            if self.trouble:
                log.warning("publishing goes on")
            self.trouble, self._back_off_s = None, 0.0
            return
        if self.trouble is None:
            log.warning("%s", error)
        self.trouble = str(error)
        self._back_off_s = min(MAX_BACK_OFF_S, max(1.0, 2 * self._back_off_s))


def _key(trial: TrialRecord) -> str:
    return f"trial {trial.id}"
