"""What a driver does once a sweep is its own, from the agenda to the stored report."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.stopper import Stopper
from orchestrator.agenda.survey import Survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.errors import StoreLostError, SweepCancelledError, SweepFailedError
from orchestrator.loop.driver import Driver
from orchestrator.loop.phases import Phases
from orchestrator.loop.progress import Progress, outspoken, places_done
from orchestrator.loop.signals import left_in_order, stopping_on_signals
from orchestrator.specification.spec import SweepSpec
from search_spaces.importance import importance_of
from tracking.artifacts import ArtifactStore, StoreUnreachableError
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter
from tracking.mlflow_mirror.publisher_process import publishing
from tracking.records import SweepState
from tracking.report.stored import store_report
from tracking.retention import remove, unneeded
from workers.node.node import store_weights
from workers.patient_store import PatientStore


@dataclass(frozen=True, kw_only=True)
class OwnedSweep:
    """All that is left of a sweep, to be done by this driver; see `orchestrator.sweep.Sweep.run`.

    It may begin more than once: after an outage of the ledger, with a new writer.
    """

    spec: SweepSpec
    surveyed: Survey
    ledger: Ledger
    console: Console  #: Where progress goes.
    phases: Phases  #: Shows there what is done before the first trial.
    runner: str  #: ``package.module:callable`` that runs one trial in a worker.

    def go_on(self, writer: SweepWriter) -> Comparison:
        """Do what is left, as far as ``writer`` gets.

        Raises:
            SweepFailedError: The sweep cannot go on.
            SweepCancelledError: It was cancelled as a whole meanwhile.
            StoreLostError: The artifact store was away for longer than is waited for.
            KeyboardInterrupt: Stopped by hand; what ran goes back, and the ledger is in order.
        """
        with writer.lease.kept():
            with left_in_order(writer):
                store = self._patient_store()
                try:
                    store.prepare()
                    if self.surveyed.weights is not None:
                        # Before any trial is started: its worker reads them from the store.
                        store_weights(store, self.surveyed.weights)
                except StoreUnreachableError as error:
                    raise StoreLostError(self.spec.name, str(error)) from None
                is_over = self._drive(writer)
                # Before the report, whose trouble makes no sweep that is over look interrupted.
                writer.set_state(SweepState.COMPLETED if is_over else SweepState.INTERRUPTED)
            comparison = self._conclude(
                writer, is_over, store if is_over else store.without_waiting
            )
        if not is_over and comparison.state == "cancelled":
            raise SweepCancelledError(self.spec.name)
        if not is_over:
            raise KeyboardInterrupt
        return comparison

    def _patient_store(self) -> PatientStore:
        told = partial(outspoken(self.console).print, highlight=False, soft_wrap=True, markup=False)
        url, patience_s = self.spec.tracking.artifacts_url, self.spec.recovery.store_outage_s
        return PatientStore(url, patience_s, told)

    def publishing(self) -> AbstractContextManager[object]:
        """Show the sweep in MLflow meanwhile, where there is one."""
        tracking = self.spec.tracking
        if tracking.mlflow_url is None:
            return nullcontext()
        return publishing(
            ledger_url=tracking.ledger_url,
            tracking_uri=tracking.mlflow_url,
            artifacts_url=tracking.artifacts_url,
            sweep=self.spec.name,
            log_file=tracking.folder / "publisher.log",
            weights_artifacts=tracking.publish_weights,
        )

    def _drive(self, writer: SweepWriter) -> bool:
        """Run the loop; return whether the sweep is over."""
        spec, console = self.spec, self.console
        backend = RayBackend(
            spec.resources,
            cache_dir=str(spec.tracking.folder / "cache"),
            artifacts=spec.tracking.artifacts_url,
            checkpoint_epochs=spec.recovery.checkpoint_epochs,
            store_outage_s=spec.recovery.store_outage_s,
            runner=self.runner,
        )
        try:
            self.phases("Waiting for the first worker")
            is_stopped = partial(self._is_stopped, writer)
            device = f"{backend.device_of_first_worker(is_stopped)}, torch {torch.__version__}"
            agenda = Agenda(spec, self.surveyed, device)
            stopper = Stopper(spec)
            stopper.restore(self.ledger, writer.sweep_id)
            done = places_done(self.ledger, writer.sweep_id)
            self.phases.end()
            with Progress(console, trial_matrix(spec).trials, spec.name, done) as progress:
                driver = Driver(
                    agenda,
                    backend,
                    self.ledger,
                    writer,
                    progress,
                    stopper=stopper,
                    hung_after_s=spec.recovery.hung_after_s,
                )
                with stopping_on_signals(driver):
                    is_over = driver.run()
                is_whole = is_over and agenda.problem is None
                told = progress.summary(is_over=is_whole)
                console.print(told, highlight=False, soft_wrap=True)
            if agenda.problem is not None:
                writer.set_state(SweepState.FAILED)
                raise SweepFailedError(spec.name, agenda.problem)
            return is_over
        finally:
            backend.close()

    def _is_stopped(self, writer: SweepWriter) -> bool:
        """Say whether somebody wants this driver to end, while it waits for its first worker."""
        asked = self.ledger.requests(writer.sweep_id)
        return asked.stop_epoch == writer.epoch or asked.cancelled.whole

    def _conclude(self, writer: SweepWriter, is_over: bool, store: ArtifactStore) -> Comparison:
        """Store the report beside the artifacts, if that takes it."""
        sweep = self.ledger.sweep(self.spec.name)
        comparison = compare(self.ledger, sweep, importance=importance_of)
        try:
            if is_over and self.spec.tracking.keep_weights == "winners":
                remove(store, unneeded(self.ledger, store, [self.spec.name]))
            writer.set_artifacts(store_report(store, comparison))
        except OSError as error:  # a full disk, or a store that is out of reach
            outspoken(self.console).print(
                f"The report could not be stored: {error}", highlight=False
            )
        return comparison
