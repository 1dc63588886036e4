"""Verbs that drive a sweep on this machine: run it, go on with it, ask more of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.exits import FAILED
from orchestrator.commands.verbs.options import (
    Address,
    AsJson,
    DryRun,
    Ledger,
    Name,
    Overrides,
    Plain,
    Quiet,
    Spec,
    Store,
    Wait,
    Workers,
)
from orchestrator.loop.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from orchestrator.commands.lookup import Found
    from orchestrator.loop.phases import Phases
    from orchestrator.specification.extensions import Extension
    from orchestrator.sweep import Sweep


def run(
    spec: Spec,
    overrides: Overrides = None,
    address: Address = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    wait: Wait = 0.0,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or go on with it, and compare its arms."""
    with _phases(quiet=quiet, plain=plain) as phases:
        from orchestrator.commands.lookup import RecordsAt
        from orchestrator.specification.loading import SpecFile

        given = [*(overrides or ()), *RecordsAt(store=store, ledger=ledger).overrides]
        given += [f"resources.address={address}"] if address is not None else []
        given += [f"resources.workers={workers}"] if workers is not None else []
        file = SpecFile.read(spec, given)
        checked = file.spec()  # a mistake is told now: what a sweep runs with takes longer to load
        from orchestrator.sweep import Sweep

        sweep = Sweep.from_checked(file, checked)
        if not dry_run:
            _drive(sweep, phases, as_json=as_json, wait_s=wait)
            return
    from orchestrator.commands import forecast, views

    views.show(forecast.forecast(sweep), forecast.view, as_json=as_json)


def resume(
    name: Name,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = 0.0,
    restore: Annotated[
        bool, typer.Option("--restore", help="Take back all that was cancelled.")
    ] = False,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a sweep that was interrupted."""
    with _phases(quiet=quiet, plain=plain) as phases:
        sweep = _stored(name, store, ledger, address, workers)
        _drive(sweep, phases, as_json=as_json, wait_s=wait, restore=restore)


def extend(
    name: Name,
    trials: Annotated[
        str | None,
        typer.Option(help="Search trials per arm and target: N in all or +N more.", metavar="[+]N"),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds to add, as in 4,5.", metavar="SEEDS")
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(help="Arms and controls that get these seeds; all without.", metavar="NAMES"),
    ] = None,
    new_arms: Annotated[
        list[str] | None,
        typer.Option(
            "--arm", help="Arm to add, as in l1 or '{name: mine, method: l1}'.", metavar="ARM"
        ),
    ] = None,
    new_targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help="Target to add: macs-70% or macs_reduction=0.7.", metavar="TARGET"
        ),
    ] = None,
    dry_run: DryRun = False,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = 0.0,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Search longer, re-run with more seeds, add arms and targets; what has run is kept."""
    more_seeds = tuple(_whole(text, "--seeds") for text in seeds.split(",")) if seeds else ()
    if trials is None and not (more_seeds or new_arms or new_targets):
        raise typer.BadParameter(
            "say what to add: --trials +N, --seeds 4,5, --arm METHOD, --target macs-70%"
        )
    if arms is not None and not more_seeds:
        raise typer.BadParameter("--arms says who gets the seeds; name these: --seeds 4,5")
    if trials is not None:
        count = _whole(trials.removeprefix("+"), "--trials")
        trials = f"+{count}" if trials.startswith("+") else str(count)
    names = tuple(part.strip() for part in arms.split(",")) if arms else ()
    with _phases(quiet=quiet, plain=plain) as phases:
        from orchestrator.specification.as_typed import read_arm, read_target
        from orchestrator.specification.extensions import Extension

        request = Extension(
            trials=trials,
            seeds=more_seeds,
            arms=names,
            new_arms=tuple(map(read_arm, new_arms or ())),
            new_targets=tuple(map(read_target, new_targets or ())),
        )
        larger, is_open = _extended(name, request, store, ledger, address, workers)
        if not dry_run:
            if is_open and not quiet:
                typer.echo(f"The same was asked before and is not done: {name} goes on.", err=True)
            _drive(larger, phases, as_json=as_json, extend=request, wait_s=wait)
            return
    from orchestrator.commands import forecast, views

    facts = forecast.forecast(larger, extend=True)
    views.show(facts, forecast.view, as_json=as_json)


def retry(
    name: Name,
    address: Address = None,
    workers: Workers = None,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Run the failed trials of a sweep again, and go on with it."""
    with _phases(quiet=quiet, plain=plain) as phases:
        sweep = _stored(name, store, ledger, address, workers)
        _drive(sweep, phases, as_json=as_json, retry=True)


def _stored(
    name: str, store: str | None, ledger: str | None, address: str | None, workers: int | None
) -> "Sweep":
    """Take a sweep up from its ledger, on the machines the command line names."""
    from orchestrator.commands.lookup import RecordsAt, find_sweep

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        return _taken_up(found, address, workers)


def _taken_up(found: "Found", address: str | None, workers: int | None) -> "Sweep":
    from orchestrator.sweep import Sweep

    given = {"address": address, "workers": workers}
    changes = {key: value for key, value in given.items() if value is not None}
    return Sweep.from_record(found.record, found.tracking, changes)


def _phases(*, quiet: bool, plain: bool) -> "Phases":
    """Say from the first second what goes on: what a sweep needs takes seconds to import."""
    from orchestrator.loop.phases import Phases
    from orchestrator.plain_console import PlainConsole

    console = PlainConsole(stderr=True, quiet=quiet, force_terminal=False if plain else None)
    phases = Phases(console)
    phases("Loading torch and Ray")
    return phases


def _extended(
    name: str,
    request: "Extension",
    store: str | None,
    ledger: str | None,
    address: str | None,
    workers: int | None,
) -> "tuple[Sweep, bool]":
    """Return a sweep as a request makes it, and whether that very request is open already."""
    from orchestrator.commands.lookup import RecordsAt, find_sweep
    from orchestrator.specification.extensions import Extension

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        before = Extension.read(found.record.extension)
        sweep = _taken_up(found, address, workers)
    return sweep.with_extension(request, before), request == before


def _drive(
    sweep: "Sweep",
    phases: "Phases",
    *,
    as_json: bool,
    extend: "Extension | bool" = False,
    retry: bool = False,
    restore: bool = False,
    wait_s: float = 0.0,
) -> None:
    """Run a sweep to its end and show the comparison; after Ctrl-C say how to go on."""
    from orchestrator.commands import views

    try:
        comparison = sweep.run(
            extend=extend,
            retry=retry,
            restore=restore,
            wait_s=wait_s,
            console=phases.console,
            phases=phases,
        )
    except KeyboardInterrupt:
        typer.echo(views.stopped(sweep.spec), err=True)
        raise typer.Exit(INTERRUPTED) from None
    facts = views.end_facts(sweep.spec, comparison)
    if as_json:
        views.print_json(facts)
    else:
        views.print_end(facts, comparison)
    if comparison.failed_arms:
        raise typer.Exit(FAILED)


def _whole(text: str, option: str) -> int:
    if not text.strip().isdecimal():
        raise typer.BadParameter(f"{option}: {text!r} is not a whole number")
    return int(text)
