"""A sweep from specification to comparison: what the command line and driver scripts call."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from orchestrator.agenda.agenda import Agenda
from orchestrator.agenda.sizing import say_if_idle
from orchestrator.agenda.stopper import Stopper
from orchestrator.agenda.survey import Ground, survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.cluster.connection import REACH_S, ClusterUnreachableError, connect
from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.errors import Problem, SpecChangeError, SpecError, SweepFailedError
from orchestrator.loop.driver import Driver
from orchestrator.loop.outages import Outages
from orchestrator.loop.progress import Progress
from orchestrator.specification.changes import forbidden_changes
from orchestrator.specification.loading import SpecFile, parse_spec
from orchestrator.specification.settings import TrackingSettings, secret_variables
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.stored import as_it_ran, spec_of
from tracking.artifacts import ArtifactStore
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.errors import (
    LedgerUnreachableError,
    MissingLedgerError,
    SweepHeldError,
    TrackingError,
    UnknownSweepError,
)
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter
from tracking.mlflow_mirror.publisher_process import start_publisher
from tracking.places import Place
from tracking.plain_text import visible
from tracking.records import LeaseRecord, SweepState
from tracking.report.report import to_html, to_json, to_markdown
from workers.dense_network import DenseAccuracy, try_checkpoint
from workers.networks.checkpoints import to_safetensors
from workers.node.actor import TRIAL_RUNNER
from workers.node.node import weights_path

FLUSH_S = 120.0  #: How long the end of a sweep waits for MLflow to show everything.


class Sweep:
    """One specification, ready to run.

    Args:
        spec: A specification, or the same as Python objects.
        fields: The specification's fields, in place of ``spec``.

    Raises:
        SpecError: With every mistake in it.
    """

    def __init__(self, spec: SweepSpec | Mapping[str, Any] | None = None, **fields: Any) -> None:
        self.spec = parse_spec(spec if spec is not None else fields)
        self._file: SpecFile | None = None

    @classmethod
    def from_file(cls, path: str | Path, overrides: Sequence[str] = ()) -> "Sweep":
        """Read a YAML file; ``overrides`` are ``key.path=VALUE``.

        Raises:
            SpecError: With every mistake in it, each at its line.
        """
        file = SpecFile.read(path, overrides)
        sweep = cls(file.spec())
        sweep._file = file
        return sweep

    @classmethod
    def from_ledger(cls, name: str, tracking: TrackingSettings) -> "Sweep":
        """Take up a sweep that is in the ledger.

        Raises:
            MissingLedgerError: There is no ledger.
            UnknownSweepError: The ledger has none of this name.
            SpecError: Its specification cannot be used here, or by this version.
        """
        with Ledger.open(tracking.ledger_url, create=False) as ledger:
            stored = ledger.sweep(name).spec
        return cls({**as_it_ran(stored), "tracking": tracking.model_dump()})

    def extended(self, *, trials: int | None = None, seeds: Sequence[int] = ()) -> "Sweep":
        """Return the sweep with ``trials`` per search, and with ``seeds`` added to its own.

        Raises:
            SpecError: There is no such sweep: a seed is there already, say.
        """
        spec = self.spec
        if trials is not None:
            search = spec.search.model_copy(update={"trials": trials})
            spec = spec.model_copy(update={"search": search})
        return Sweep(spec.model_copy(update={"seeds": (*spec.seeds, *seeds)}))

    def survey(self) -> Ground:
        """Look at data, network and checkpoint; nothing is written.

        Raises:
            SpecError: Something does not fit together.
        """
        try:
            return survey(self.spec)
        except SpecError as error:
            raise self._file.located(error) if self._file else error from None

    def try_dense(self, ground: Ground) -> DenseAccuracy | None:
        """Evaluate the checkpoint on some validation images; None where there is none.

        Raises:
            SpecError: It cannot be told from chance, and neither is adapted first nor allowed.
        """
        spec = self.spec
        if ground.weights is None:
            return None
        found = try_checkpoint(spec.model, spec.data, ground.weights)
        if found.is_near_chance and not (spec.adapts or spec.allows_chance):
            error = SpecError([Problem("checkpoint", found.refusal)])
            raise self._file.located(error) if self._file else error
        return found

    def run(
        self,
        *,
        extend: bool = False,
        retry: bool = False,
        wait_s: float = 0.0,
        console: Console | None = None,
        runner: str = TRIAL_RUNNER,
    ) -> Comparison:
        """Run the sweep to its end, or go on with it; content that has a result is not run again.

        Args:
            extend: More search trials or seeds than before are allowed.
            retry: Run failed trials again.
            wait_s: How long to wait for another driver of the sweep to end, or to lose its lease.
            console: Where progress goes; the standard error stream by default.
            runner: ``package.module:callable`` that runs one trial in a worker.

        Returns:
            The comparison, which is also stored with the sweep.

        Raises:
            SpecError: Something in the specification does not fit; nothing was written.
            SpecChangeError: The name belongs to a sweep that would give other results.
            ClusterUnreachableError: Nothing answers at the cluster's address.
            SweepHeldError: Another driver runs it now.
            SweepFailedError: The baseline could not be trained.
            LedgerLostError: The ledger was away for longer than is waited for.
            KeyboardInterrupt: Stopped by hand; what ran goes back, and the ledger is in order.
        """
        console = console or Console(stderr=True)
        ground = self.survey()
        told = visible(f"Data: {ground.data.told()}.")
        console.print(told, markup=False, highlight=False, soft_wrap=True)
        if dense := self.try_dense(ground):
            console.print(f"Before anything: {dense}.", highlight=False, soft_wrap=True)
        self._check_free(wait_s)
        _check_reachable(self.spec.resources.address)
        if hint := say_if_idle(self.spec):
            console.print(hint, highlight=False, soft_wrap=True)
        tracking = self.spec.tracking
        connect(self.spec.resources, self.spec.model.name, secret_variables(tracking))
        with Ledger.open(tracking.ledger_url) as ledger:
            writer = self._open(ledger, extend=extend)
            if retry:
                writer.retry_failed()
            patience_s = self.spec.recovery.ledger_outage_s
            tell = partial(console.print, highlight=False, soft_wrap=True)
            outages = Outages(ledger, self.spec.name, _me(), patience_s, tell)
            with self._publishing():
                while True:
                    try:
                        return self._go_on(ledger, writer, ground, console, runner)
                    except LedgerUnreachableError as error:
                        writer = outages.outlast(writer, error)

    def _go_on(
        self, ledger: Ledger, writer: SweepWriter, ground: Ground, console: Console, runner: str
    ) -> Comparison:
        """Do all that is left of the sweep, as far as ``writer`` gets; see `run`."""
        with writer.lease.kept(), _left_in_order(writer):
            self._store_weights(ground)
            over = self._drive(ledger, writer, ground, console, runner)
            comparison = self._conclude(ledger, writer, over, console)
        if not over:
            raise KeyboardInterrupt
        return comparison

    def _check_free(self, wait_s: float) -> None:
        """Refuse a sweep that another driver runs before Ray is started, which takes a while."""
        deadline = time.monotonic() + wait_s
        while (lease := self._lease()) is not None:
            if time.monotonic() >= deadline:
                raise SweepHeldError(self.spec.name, lease)
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))

    def _lease(self) -> LeaseRecord | None:
        """Return the lease of a driver that runs the sweep, as far as is known."""
        with (
            suppress(MissingLedgerError, UnknownSweepError),
            Ledger.open(self.spec.tracking.ledger_url, create=False) as ledger,
        ):
            lease = ledger.lease(ledger.sweep(self.spec.name).id)
            return None if lease is None or lease.is_over else lease
        return None

    def _open(self, ledger: Ledger, *, extend: bool) -> SweepWriter:
        """Create the sweep or take it over, if the specification allows."""
        spec, stored = self.spec, self.spec.model_dump(mode="json")
        try:
            record = ledger.sweep(spec.name)
        except UnknownSweepError:
            ledger.create_sweep(spec.name, stored, spec.spec_hash)
            return ledger.take_over(spec.name, _me())
        before = spec_of(record)
        if changes := forbidden_changes(before, spec, extend=extend):
            raise SpecChangeError(spec.name, changes)
        writer = ledger.take_over(spec.name, _me())
        writer.amend_spec(stored, spec.spec_hash)
        return writer

    def _store_weights(self, ground: Ground) -> None:
        if ground.weights is not None and ground.weights_hash is not None:
            store = ArtifactStore(self.spec.tracking.artifacts_url)
            path = weights_path(ground.weights_hash)
            if not store.exists(path):
                store.write_bytes(path, to_safetensors(ground.weights))

    def _drive(
        self,
        ledger: Ledger,
        writer: SweepWriter,
        ground: Ground,
        console: Console,
        runner: str,
    ) -> bool:
        """Run the loop; return whether the sweep is over."""
        spec = self.spec
        backend = RayBackend(
            spec.resources,
            cache_dir=str(spec.tracking.folder / "cache"),
            artifacts=spec.tracking.artifacts_url,
            checkpoint_epochs=spec.recovery.checkpoint_epochs,
            runner=runner,
        )
        try:
            device = f"{backend.device_of_first_worker()}, torch {torch.__version__}"
            agenda = Agenda(spec, ground, device)
            total = trial_matrix(spec).trials
            done = _places_done(ledger, writer.sweep_id)
            with Progress(console, total, spec.name, done) as progress:
                stopper = Stopper(spec)
                stopper.restore(ledger, writer.sweep_id)
                driver = Driver(
                    agenda,
                    backend,
                    ledger,
                    writer,
                    progress,
                    stopper=stopper,
                    hung_after_s=spec.recovery.hung_after_s,
                )
                with _stop_on_signals(driver):
                    over = driver.run()
                console.print(progress.summary(), highlight=False, soft_wrap=True)
            if agenda.problem is not None:
                writer.set_state(SweepState.FAILED)
                raise SweepFailedError(spec.name, agenda.problem)
            return over
        finally:
            backend.close()

    def _conclude(
        self, ledger: Ledger, writer: SweepWriter, over: bool, console: Console
    ) -> Comparison:
        """Record the end, and store the report beside the artifacts, if that takes it."""
        writer.set_state(SweepState.COMPLETED if over else SweepState.INTERRUPTED)
        comparison = compare(ledger, ledger.sweep(self.spec.name))
        try:
            writer.set_artifacts(self._store_report(comparison))
        except OSError as error:  # a full disk, or a store that is out of reach
            console.print(f"The report could not be stored: {error}", highlight=False)
        return comparison

    def _store_report(self, comparison: Comparison) -> dict[str, str]:
        """Store the report in every form; return where each lies."""
        store = ArtifactStore(self.spec.tracking.artifacts_url)
        files = {
            "report.html": to_html(comparison),
            "report.md": to_markdown(comparison),
            "report.json": to_json(comparison),
        }
        folder = f"sweeps/{self.spec.name}"
        for name, text in files.items():
            store.write_bytes(f"{folder}/{name}", text.encode())
        return {name: f"{folder}/{name}" for name in files}

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        """Show the sweep in MLflow while it runs, by a process of its own."""
        tracking = self.spec.tracking
        if tracking.mlflow_url is None:
            yield
            return
        process = start_publisher(
            ledger_url=tracking.ledger_url,
            tracking_uri=tracking.mlflow_url,
            artifacts_url=tracking.artifacts_url,
            sweep=self.spec.name,
            log_file=tracking.folder / "publisher.log",
            weights_artifacts=tracking.publish_weights,
        )
        try:
            yield
        finally:
            process.terminate()  # it publishes what is left, and ends
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=FLUSH_S)


def _places_done(ledger: Ledger, sweep_id: int) -> list[Place]:
    """Return the places whose trials have ended."""
    final = {trial.id for trial in ledger.trials(sweep_id) if trial.state.is_final}
    return [entry.place for entry in ledger.entries(sweep_id) if entry.trial_id in final]


@contextmanager
def _stop_on_signals(driver: Driver) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM stop the driver in good order; the second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        driver.stop()
        for number, handler in before.items():
            signal.signal(number, handler)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _left_in_order(writer: SweepWriter) -> Iterator[None]:
    """Record that a sweep is interrupted when anything but its end or failure stops the driver."""
    try:
        yield
    except SweepFailedError:
        raise
    except BaseException:
        with suppress(TrackingError):
            writer.set_state(SweepState.INTERRUPTED)
        raise


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _check_reachable(address: str | None) -> None:
    """Refuse an address at which nobody listens; Ray would try it for many minutes."""
    if address in {None, "auto", "local"}:
        return
    host, _, port = str(address).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise ClusterUnreachableError(str(address), error.strerror or str(error)) from error
