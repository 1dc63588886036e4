"""The verb that sends a sweep to a Ray cluster as a job."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.verbs.options import AsJson, Overrides, Spec


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
