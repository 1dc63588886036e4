"""The command line: every verb reads its input, calls one thing and shows what came of it.

Facts go to standard output, progress and errors to standard error. What a verb needs is imported
when it runs, so that help and shell completion answer at once.
"""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from orchestrator.commands.exits import FAILED, INTERRUPTED, ErrorsAsMessages
from orchestrator.commands.lookup import (
    NoMlflowError,
    RecordsAt,
    TrialChoiceError,
    find_sweep,
    find_trial,
    open_existing,
    require_variables,
)
from orchestrator.specification.settings import LEDGER, STORE

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep
    from tracking.comparison.comparison import Comparison

app = typer.Typer(
    name="prunesweep",
    cls=ErrorsAsMessages,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show local variables, and these may hold passwords
    context_settings={"help_option_names": ["-h", "--help"]},
)

Spec = Annotated[str, typer.Argument(help="YAML file.", metavar="SPEC")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="In place of the file's, as in recipe.epochs=3.", metavar="KEY=VALUE"),
]
Store = Annotated[
    str | None,
    typer.Option(envvar=STORE, help="Folder of records and artifacts.", metavar="DIR"),
]
Ledger = Annotated[
    str | None,
    typer.Option(envvar=LEDGER, help="Database URL of the ledger.", metavar="URL"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster that this machine is part of: auto or HOST:PORT.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Trials at a time.")]
Wait = Annotated[
    float,
    typer.Option(
        min=0.0, help="Seconds to wait for another driver's lease to end.", metavar="SECONDS"
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the sweep.", metavar="NAME")]

Database = Annotated[
    str | None,
    typer.Argument(envvar=LEDGER, help="Its database URL; the store's without.", metavar="LEDGER"),
]

db_verbs = typer.Typer(help="Look after the database of a ledger.", no_args_is_help=True)
app.add_typer(db_verbs, name="db")


@app.callback()
def prunesweep(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Find out which filter-pruning method works, on your network, at your budget."""


@app.command()
def run(
    spec: Spec,
    overrides: Overrides = None,
    address: Address = None,
    workers: Workers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and what it takes.")
    ] = False,
    wait: Wait = 0.0,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or go on with it, and compare its arms."""
    from orchestrator.sweep import Sweep

    given = [*(overrides or ()), *RecordsAt(store=store, ledger=ledger).overrides]
    given += [f"resources.address={address}"] if address is not None else []
    given += [f"resources.workers={workers}"] if workers is not None else []
    sweep = Sweep.from_file(spec, given)
    if dry_run:
        from orchestrator.commands import forecast, views

        views.show(forecast.forecast(sweep), forecast.view, as_json=as_json)
    else:
        _drive(sweep, quiet=quiet, as_json=as_json, wait_s=wait)


@app.command()
def submit(
    spec: Spec,
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        typer.Option(help="Dashboard of the Ray cluster; this machine's without.", metavar="URL"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the job's output, and end as it ends.")
    ] = False,
    code: Annotated[
        bool, typer.Option("--code", help="Send this prunesweep, for nodes without it.")
    ] = False,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="Every node has the same files at each path.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a sweep, or go on with it, as a job in a Ray cluster."""
    from orchestrator.cluster import submission
    from orchestrator.commands import views

    submitted = submission.submit(
        Path(spec), overrides or (), address=address, with_code=code, shared_paths=shared_paths
    )
    views.show(submitted.to_json(), lambda _: submission.view(submitted), as_json=as_json)
    if follow:
        write = partial(typer.echo, nl=False, err=as_json)
        raise typer.Exit(submission.follow(submitted, write))


@app.command()
def resume(
    name: Name,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = 0.0,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a sweep that was interrupted."""
    sweep = _stored(name, RecordsAt(store=store, ledger=ledger), address, workers)
    _drive(sweep, quiet=quiet, as_json=as_json, wait_s=wait)


@app.command()
def extend(
    name: Name,
    trials: Annotated[
        str | None,
        typer.Option(help="Search trials per arm and target: N in all or +N more.", metavar="[+]N"),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds to add, as in 4,5.", metavar="SEEDS")
    ] = None,
    address: Address = None,
    workers: Workers = None,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search longer, or re-run with more seeds; what has run is kept."""
    more_seeds = [_whole(text, "--seeds") for text in seeds.split(",")] if seeds else []
    if trials is None and not more_seeds:
        raise typer.BadParameter("say what to add: --trials +N, --seeds 4,5, or both")
    sweep = _stored(name, RecordsAt(store=store, ledger=ledger), address, workers)
    count = None
    if trials is not None:
        count = _whole(trials.removeprefix("+"), "--trials")
        count += sweep.spec.search.trials if trials.startswith("+") else 0
    _drive(
        sweep.extended(trials=count, seeds=more_seeds), quiet=quiet, as_json=as_json, extend=True
    )


@app.command()
def retry(
    name: Name,
    address: Address = None,
    workers: Workers = None,
    store: Store = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run the failed trials of a sweep again, and go on with it."""
    sweep = _stored(name, RecordsAt(store=store, ledger=ledger), address, workers)
    _drive(sweep, quiet=quiet, as_json=as_json, retry=True)


@app.command()
def compare(
    name: Name,
    form: Annotated[
        Literal["text", "md", "json", "html"], typer.Option("--format", help="How to write it.")
    ] = "text",
    to: Annotated[
        Path | None, typer.Option(help="File to write; standard output without it.", metavar="FILE")
    ] = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two arms or controls, or SWEEP/ARM.", metavar="ARM ARM"),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Points that a tie is closer than.", min=0.0, max=100.0)
    ] = 0.5,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Compare the arms of a sweep by what is in the ledger, finished or not."""
    from orchestrator.commands import between as pairs
    from orchestrator.commands import views
    from tracking.comparison.compare import compare as compare_arms
    from tracking.report import report

    at = RecordsAt(store=store, ledger=ledger)
    if between is not None:
        views.show(pairs.between(name, between, margin, at), pairs.view, as_json=as_json)
        return
    with find_sweep(name, at) as found:
        comparison = compare_arms(found.ledger, found.record, margin)
    writers: dict[str, Callable[[Comparison], str]] = {
        "text": report.to_text,
        "md": report.to_markdown,
        "json": report.to_json,
        "html": report.to_html,
    }
    chosen = "json" if as_json else form
    if to is not None:
        views.write_file(to, writers[chosen](comparison))
    elif chosen == "text":
        views.stdout().print(report.to_renderable(comparison))
    else:
        typer.echo(writers[chosen](comparison), nl=False)


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(help="Name of the sweep; all of them without.", metavar="NAME")
    ] = None,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Show where sweeps stand: counts, the best so far, what runs, what failed."""
    from orchestrator.commands import status as stand
    from orchestrator.commands import views

    at = RecordsAt(store=store, ledger=ledger)
    if name is None:
        with open_existing(require_variables(at.tracking()).ledger_url) as opened:
            views.show(stand.sweeps_facts(opened), stand.sweeps_view, as_json=as_json)
        return
    with find_sweep(name, at) as found:
        views.show(stand.status_facts(found), stand.status_view, as_json=as_json)


@app.command()
def export(
    name: Name,
    trial: Annotated[
        str,
        typer.Argument(
            help="Its number, the first digits of its uid, or best:ARM:TARGET.", metavar="TRIAL"
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder to write; must be empty.", metavar="DIR")],
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Write a pruned network to a folder that anyone can load."""
    from orchestrator.commands import views
    from tracking.artifacts import ArtifactStore
    from workers.rebuild import export_trial
    from workers.settings import TrialSpec

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        chosen = find_trial(found, trial)
        if chosen.result is None:
            problem = f"it is {chosen.state} and has no network."
            raise TrialChoiceError(name, trial, problem)
        if "weights" not in chosen.result:
            problem = (
                f"it is of kind {chosen.spec['kind']!r}, which keeps no weights. Name a trial that "
                "was trained, or best:ARM:TARGET."
            )
            raise TrialChoiceError(name, trial, problem)
        artifacts = ArtifactStore(require_variables(found.tracking).artifacts_url)
    folder = export_trial(TrialSpec.model_validate(chosen.spec), chosen.result, artifacts, to)
    files = sorted(file.name for file in folder.iterdir())
    facts = {"trial": chosen.id, "uid": chosen.uid, "folder": str(folder), "files": files}
    words = f"Trial {chosen.id} is in {folder}: {', '.join(files)}"
    views.show(facts, lambda _: words, as_json=as_json)


@app.command()
def ui(
    port: Annotated[int | None, typer.Option(help="Port to listen on; a free one without.")] = None,
    store: Store = None,
) -> None:
    """Serve the MLflow UI of a store on this machine, until Ctrl-C."""
    from tracking.mlflow_mirror.server import sqlite_file, start_server

    tracking = RecordsAt(store=store).tracking()
    uri = require_variables(tracking).mlflow_url or ""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise NoMlflowError(str(file))
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the server, too
    with start_server(uri, tracking.artifacts_url, port=port) as server:
        typer.echo(server.url)
        typer.echo("MLflow answers at this address; Ctrl-C ends it.", err=True)
        with suppress(KeyboardInterrupt):
            server.wait()
            typer.echo("MLflow ended by itself.", err=True)
            raise typer.Exit(FAILED)


@app.command()
def publish(
    name: Name, store: Store = None, ledger: Ledger = None, as_json: AsJson = False
) -> None:
    """Send to MLflow what it lacks of a sweep, as after an outage."""
    from orchestrator.commands import publishing, views

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = publishing.publish(found)
    views.show(facts, publishing.view, as_json=as_json)
    raise typer.Exit(FAILED if facts["left"] else 0)


@app.command()
def study(
    name: Name,
    to: Annotated[str, typer.Option(help="Address of an Optuna storage.", metavar="URL")],
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Write the searches of a sweep as Optuna studies, for optuna-dashboard to show."""
    from orchestrator.commands import studies, views

    with find_sweep(name, RecordsAt(store=store, ledger=ledger)) as found:
        facts = studies.write_studies(found, to)
    views.show(facts, studies.view, as_json=as_json)


@app.command()
def doctor(
    spec: Spec,
    overrides: Overrides = None,
    store: Store = None,
    ledger: Ledger = None,
    as_json: AsJson = False,
) -> None:
    """Try the whole chain on a few images before anything is spent."""
    from orchestrator.commands import views
    from orchestrator.commands.doctor import examine
    from orchestrator.sweep import Sweep

    at = RecordsAt(store=store, ledger=ledger)
    sweep = Sweep.from_file(spec, [*(overrides or ()), *at.overrides])
    tell = (lambda _: None) if as_json else views.print_finding
    findings = examine(sweep, tell)
    if as_json:
        views.print_json([finding.to_json() for finding in findings])
    raise typer.Exit(0 if all(finding.ok for finding in findings) else FAILED)


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, alias or schedule.", metavar="NAME")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List pruning methods and schedules with their settings."""
    from orchestrator.commands import catalog, views

    views.show(catalog.methods_facts(name), catalog.methods_view, as_json=as_json)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the networks that a specification can name."""
    from orchestrator.commands import catalog, views

    views.show(catalog.models_facts(), catalog.models_view, as_json=as_json)


@db_verbs.command("current")
def db_current(ledger: Database = None, store: Store = None, as_json: AsJson = False) -> None:
    """Show which schema a ledger has."""
    from orchestrator.commands import upkeep, views

    facts = upkeep.current(RecordsAt(store=store, ledger=ledger))
    views.show(facts, upkeep.current_view, as_json=as_json)


@db_verbs.command("upgrade")
def db_upgrade(ledger: Database = None, store: Store = None, as_json: AsJson = False) -> None:
    """Bring the schema of a ledger up to date; all records are kept."""
    from orchestrator.commands import upkeep, views

    facts = upkeep.upgrade(RecordsAt(store=store, ledger=ledger))
    views.show(facts, upkeep.upgrade_view, as_json=as_json)


def main() -> None:
    """Run the command line."""
    app()


def _stored(name: str, at: RecordsAt, address: str | None, workers: int | None) -> "Sweep":
    """Take a sweep up from its ledger, on the machines the command line names."""
    from orchestrator.sweep import Sweep

    given = {"address": address, "workers": workers}
    changes = {key: value for key, value in given.items() if value is not None}
    with find_sweep(name, at) as found:
        return Sweep.from_record(found.record, found.tracking, changes)


def _drive(
    sweep: "Sweep",
    *,
    quiet: bool,
    as_json: bool,
    extend: bool = False,
    retry: bool = False,
    wait_s: float = 0.0,
) -> None:
    """Run a sweep to its end and show the comparison; after Ctrl-C say how to go on."""
    from orchestrator.commands import views

    try:
        console = Console(stderr=True, quiet=quiet)
        comparison = sweep.run(extend=extend, retry=retry, wait_s=wait_s, console=console)
    except KeyboardInterrupt:
        typer.echo(views.stopped(sweep.spec), err=True)
        raise typer.Exit(INTERRUPTED) from None
    facts = views.end_facts(sweep.spec, comparison)
    if as_json:
        views.print_json(facts)
    else:
        views.print_end(facts, comparison)


def _whole(text: str, option: str) -> int:
    if not text.strip().isdecimal():
        raise typer.BadParameter(f"{option}: {text!r} is not a whole number")
    return int(text)
