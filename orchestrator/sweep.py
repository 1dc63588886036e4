"""A sweep from specification to comparison: what the command line and driver scripts call."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.agenda.sizing import say_if_idle
from orchestrator.agenda.survey import Survey, as_it_began, survey
from orchestrator.cluster.connection import check_gpus_here, check_reachable, connect
from orchestrator.errors import Problem, SpecError
from orchestrator.loop.interrupts import held_back, on_stop_signals
from orchestrator.loop.outages import Outages
from orchestrator.loop.ownership import driver_name, refuse_cancelled, take, wait_until_free
from orchestrator.loop.phases import Phases
from orchestrator.loop.progress import outspoken
from orchestrator.loop.signals import left_in_order
from orchestrator.owned_sweep import OwnedSweep
from orchestrator.plain_console import PlainConsole
from orchestrator.specification.as_typed import checked_arm, read_target
from orchestrator.specification.changes import own_names, with_codes
from orchestrator.specification.extensions import Extension
from orchestrator.specification.loading import SpecFile, parse_spec
from orchestrator.specification.settings import TrackingSettings, secret_variables, told_if_open
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.stored import as_it_ran, spec_of
from orchestrator.stored_sweep import StoredSweep
from tracking.comparison.comparison import Comparison
from tracking.errors import (
    LedgerError,
    LedgerUnreachableError,
    MissingLedgerError,
    UnknownSweepError,
)
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter
from tracking.plain_text import visible
from tracking.records import SweepRecord
from workers.dense_network import DenseAccuracy, try_checkpoint
from workers.node.actor import TRIAL_RUNNER


class Sweep(StoredSweep):
    """One specification, ready to run; and, once it has, what its records say.

    Args:
        spec: A specification, or the same as Python objects.
        fields: The specification's fields, in place of ``spec``.

    Raises:
        SpecError: With every mistake in it.
    """

    def __init__(self, spec: SweepSpec | Mapping[str, Any] | None = None, **fields: Any) -> None:
        self.spec = with_codes(parse_spec(spec if spec is not None else fields))
        self._file: SpecFile | None = None

    @classmethod
    def from_file(cls, path: str | Path, overrides: Sequence[str] = ()) -> "Sweep":
        """Read a YAML file; ``overrides`` are ``key.path=VALUE``.

        Raises:
            SpecError: With every mistake in it, each at its line.
        """
        file = SpecFile.read(path, overrides)
        return cls.from_checked(file, file.spec())

    @classmethod
    def from_checked(cls, file: SpecFile, spec: SweepSpec) -> "Sweep":
        """Take what a file says, and what checking it gave."""
        sweep = cls.__new__(cls)  # checked by the file, which knows the lines
        sweep.spec, sweep._file = with_codes(spec), file
        return sweep

    @classmethod
    def from_record(
        cls, record: SweepRecord, tracking: TrackingSettings, resources: Mapping[str, Any]
    ) -> "Sweep":
        """Take up a sweep that is in a ledger.

        Args:
            record: The sweep.
            tracking: Where its records are now.
            resources: What is to be different from when it began, as ``workers`` may.

        Raises:
            SpecError: Its specification cannot be used here, or by this version.
        """
        stored = as_it_ran(record.spec)
        resources = {**stored.get("resources", {}), **resources}
        return cls({**stored, "resources": resources, "tracking": tracking.model_dump()})

    def extended(
        self,
        *,
        trials: int | None = None,
        seeds: Sequence[int] = (),
        arms: Sequence[str] = (),
        new_arms: Sequence[str | Mapping[str, Any]] = (),
        new_targets: Sequence[str] = (),
    ) -> "Sweep":
        """Return the sweep with ``trials`` per search, and with what it has not yet of the rest.

        Args:
            trials: Search trials per arm and target, in all.
            seeds: Seeds of re-runs and controls.
            arms: Arms and controls that get these seeds; none: all.
            new_arms: Arms, as a specification's ``arms`` take them.
            new_targets: Targets, as ``macs-70%`` or ``macs_reduction=0.7``.

        Raises:
            SpecError: There is no such sweep: an arm is unknown, say.
        """
        request = Extension(
            trials=None if trials is None else str(trials),
            seeds=tuple(seeds),
            arms=tuple(arms),
            new_arms=tuple(map(checked_arm, new_arms)),
            new_targets=tuple(map(read_target, new_targets)),
        )
        return self.with_extension(request)

    def with_extension(self, request: Extension, open_request: Extension | None = None) -> "Sweep":
        """Return the sweep as a request makes it, which may be the one that is open.

        Raises:
            SpecError: There is no such sweep.
        """
        changes = request.apply(self.spec, open_request)
        return Sweep(self.spec.model_copy(update=changes))

    def survey(self) -> Survey:
        """Look at data, network and checkpoint; nothing is written.

        Raises:
            SpecError: Something does not fit together.
        """
        try:
            return survey(self.spec)
        except SpecError as error:
            raise self._file.located(error) if self._file else error from None

    def try_dense(self, surveyed: Survey) -> DenseAccuracy | None:
        """Evaluate the checkpoint on some validation images; None where there is none.

        Raises:
            SpecError: It cannot be told from chance, and neither is adapted first nor allowed.
        """
        spec = self.spec
        if surveyed.weights is None:
            return None
        found = try_checkpoint(spec.model, spec.data, surveyed.weights)
        if found.is_near_chance and not (spec.adapts or spec.allows_chance):
            error = SpecError([Problem("checkpoint", found.refusal)])
            raise self._file.located(error) if self._file else error
        return found

    def run(
        self,
        *,
        extend: Extension | bool = False,
        retry: bool = False,
        restore: bool = False,
        wait_s: float = 0.0,
        console: Console | None = None,
        phases: Phases | None = None,
        runner: str = TRIAL_RUNNER,
    ) -> Comparison:
        """Run the sweep to its end, or go on with it; content that has a result is not run again.

        Args:
            extend: More than before is allowed: search trials, seeds, arms, targets; a request is
                stored along with it, and is known when it is made again before it is fulfilled.
            retry: Run failed trials again.
            restore: Take back all that was cancelled by hand.
            wait_s: How long to wait for another driver of the sweep to end, or to lose its lease.
            console: Where progress goes; the standard error stream by default.
            phases: Shows there what is done before the first trial.
            runner: ``package.module:callable`` that runs one trial in a worker.

        Returns:
            The comparison, which is also stored with the sweep.

        Raises:
            SpecError: Something in the specification does not fit; nothing was written.
            SpecChangeError: The name belongs to a sweep that would give other results.
            ClusterUnreachableError: Nothing answers at the cluster's address.
            SweepCancelledError: It was cancelled as a whole, before or meanwhile.
            SweepHeldError: Another driver runs it now.
            SweepFailedError: The baseline could not be trained.
            LedgerLostError: The ledger was away for longer than is waited for.
            KeyboardInterrupt: Stopped by Ctrl-C, SIGTERM or a closed terminal; what ran goes
                back, and the ledger is in order.
        """
        spec = self.spec
        console = console or PlainConsole(stderr=True)
        phases = phases or Phases(console)
        say = partial(console.print, highlight=False, soft_wrap=True)
        with ExitStack() as stack:
            stack.enter_context(on_stop_signals())
            stack.enter_context(phases)
            phases("Looking at data and network")
            surveyed = self.survey()
            say(visible(f"Data: {surveyed.data.told()}."), markup=False)
            say(f"{surveyed.filters.told()}.")
            if dense := self.try_dense(surveyed):
                say(f"Before anything: {dense}.")
            # Whatever may refuse the sweep comes before Ray, which takes a while to start; and
            # nothing is written, not even an empty ledger, until all has been asked.
            ledger = _existing(spec.tracking.ledger_url, stack)
            if ledger is not None:
                wait_until_free(ledger, spec.name, wait_s)
                if not restore:
                    refuse_cancelled(ledger, spec.name)
                with suppress(UnknownSweepError):
                    surveyed = as_it_began(surveyed, spec, spec_of(ledger.sweep(spec.name)))
            if open_places := told_if_open(spec.tracking):
                say(visible(open_places), markup=False)
            here = spec.resources.address in (None, "local")
            check_gpus_here(spec.resources)
            check_reachable(spec.resources.address)
            phases("Starting Ray on this machine" if here else "Joining the Ray cluster")
            if hint := say_if_idle(spec):
                say(hint)
            connect(spec.resources, own_names(spec), secret_variables(spec.tracking))
            if ledger is None:
                ledger = stack.enter_context(Ledger.open(spec.tracking.ledger_url))
            with held_back():
                writer, spec = take(ledger, spec, surveyed, extend=extend)
                # To the very end, and within it once more: a stop between two steps finds it, too.
                stack.enter_context(left_in_order(writer))
            if restore:
                writer.restore()
            if retry:
                writer.retry_failed()
            owned = OwnedSweep(
                spec=spec,
                surveyed=surveyed,
                ledger=ledger,
                console=console,
                phases=phases,
                runner=runner,
            )
            tell = partial(outspoken(console).print, highlight=False, soft_wrap=True)
            outages = Outages(ledger, spec.name, driver_name(), spec.recovery.ledger_outage_s, tell)
            with owned.publishing():
                comparison, writer = _to_its_end(owned, writer, outages)
            outages.make_sure()
            with suppress(LedgerError):  # another driver has it, or it is away: then it stays open
                writer.fulfil()
            return comparison


def _to_its_end(
    owned: OwnedSweep, writer: SweepWriter, outages: Outages
) -> tuple[Comparison, SweepWriter]:
    while True:
        try:
            return owned.go_on(writer), writer
        except LedgerUnreachableError as error:
            writer = outages.outlast(writer, error)


def _existing(url: str, stack: ExitStack) -> Ledger | None:
    """Open a ledger until ``stack`` ends, if there is one."""
    with suppress(MissingLedgerError):
        return stack.enter_context(Ledger.open(url, create=False))
    return None
