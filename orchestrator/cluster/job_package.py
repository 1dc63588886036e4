"""What a sweep needs to run as a job elsewhere: packed into a folder, or refused.

A job runs in a folder of its own on another machine, so what the specification names must be there:
the checkpoint and the network's code travel along; records, artifacts and images cannot.
"""

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.agenda.survey import survey
from orchestrator.cluster.shipping import is_on_this_machine, network_code, own_code
from orchestrator.errors import Problem, SpecError
from orchestrator.specification.changes import own_names
from orchestrator.specification.loading import SpecFile
from orchestrator.specification.settings import ELSEWHERE, variables_in
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.variables import LEDGER
from tracking.mlflow_mirror.server import sqlite_file

MAX_CHECKPOINT: Final = 256 * 2**20  #: Bytes that travel with a job; Ray takes 500 MiB in all.

#: A job that follows one whose machine died waits for that one's lease to run out.
LEASE_WAIT_S: Final = 90

#: Addresses of what every node reaches, by key of ``tracking``.
_REACHED_BY: Final = {
    "ledger": "postgresql+psycopg://",
    "mlflow": "http://, or 'off'",
    "artifacts": "s3:// or gs://",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPackage:
    """What a job is made of."""

    sweep: str
    entrypoint: str  #: Shell command that the cluster runs in the folder.
    files: tuple[str, ...]  #: What lies in the folder.
    needs: tuple[str, ...]  #: Environment variables the nodes must have.
    status: str  #: Shell command that shows where the sweep stands.


def pack(
    spec_file: Path,
    overrides: Sequence[str],
    folder: Path,
    *,
    with_code: bool = False,
    shared_paths: bool = False,
) -> JobPackage:
    """Put into ``folder`` what a sweep needs to run as a job.

    Args:
        spec_file: The specification.
        overrides: ``key.path=VALUE`` each.
        folder: Empty; becomes the job's working directory.
        with_code: Send prunesweep itself, for nodes that lack it or have another version.
        shared_paths: Paths of the specification are the same on every node.

    Raises:
        SpecError: A mistake in the specification, or something it names stays on this machine.
    """
    file = SpecFile.read(spec_file, overrides)
    spec = file.spec(ELSEWHERE)
    if problems := list(_left_behind(spec, shared_paths)):
        raise file.located(SpecError(problems))
    if _can_be_tried_here(spec):
        try:
            survey(spec)
        except SpecError as error:
            raise file.located(error) from None
    (folder / spec_file.name).write_text(file.text, encoding="utf-8")
    sent = [*overrides]
    if spec.checkpoint is not None and _is_sent(spec.checkpoint, shared_paths):
        name = Path(spec.checkpoint).name
        shutil.copyfile(Path(os.path.expanduser(spec.checkpoint)), folder / name)
        sent.append(f"checkpoint={json.dumps(name)}")
    for name in own_names(spec):
        network_code(name, folder)
    if with_code:
        own_code(folder)
    program = ["python", "-m", "orchestrator"] if with_code else ["prunesweep"]
    there = ["--address", "auto", "--wait", str(LEASE_WAIT_S)]
    return JobPackage(
        sweep=spec.name,
        entrypoint=shlex.join([*program, "run", spec_file.name, *sent, *there]),
        files=tuple(sorted(path.name for path in folder.iterdir())),
        needs=variables_in(spec.tracking),
        status=_status_command(spec),
    )


def _can_be_tried_here(spec: SweepSpec) -> bool:
    """Say whether images, network and weights are on this machine, too."""
    path = spec.data.path
    has_images = (
        spec.data.name == "digits" if path is None else os.path.exists(os.path.expanduser(path))
    )
    has_weights = "://" not in (spec.checkpoint or "")
    return has_images and has_weights and all(map(is_on_this_machine, own_names(spec)))


def _left_behind(spec: SweepSpec, shared: bool) -> Iterator[Problem]:
    """Say what of a specification lies where the cluster does not find it."""
    tracking = spec.tracking
    in_store = "is not given, so it would be in tracking.store, a folder"
    for key, there in _REACHED_BY.items():
        text: str | None = getattr(tracking, key)
        path = tracking.store if text is None else _local_path(text)
        if path is None:
            continue
        what = in_store if text is None else "is a file or folder"
        if not shared:
            yield Problem(
                f"tracking.{key}",
                f"{what} that a job in the cluster would not share with this machine; give an "
                f"address that begins with {there}, or say --shared-paths if every node has it "
                "under the same path",
            )
        elif not Path(path).is_absolute():
            yield Problem(f"tracking.{key}", _relative(path))
    data = spec.data
    if data.path is not None and "://" not in data.path and not data.download:
        if not shared:
            yield Problem(
                "data.path",
                f"{data.path!r} is a path of this machine, and images do not travel with a job; "
                "give the s3:// or other address of a zip file, or say --shared-paths if every "
                "node has them under this path",
            )
        elif not Path(data.path).is_absolute():
            yield Problem("data.path", _relative(data.path))
    if spec.checkpoint is not None:
        yield from _checkpoint_problems(spec.checkpoint, shared)


def _checkpoint_problems(checkpoint: str, shared: bool) -> Iterator[Problem]:
    if not _is_sent(checkpoint, shared):
        return
    path = Path(os.path.expanduser(checkpoint))
    if not path.is_file():
        yield Problem(
            "checkpoint", f"there is no file {checkpoint!r}, looked for from {Path.cwd()}"
        )
    elif path.stat().st_size > MAX_CHECKPOINT:
        size = path.stat().st_size / 2**20
        yield Problem(
            "checkpoint",
            f"has {size:.0f} MiB, and at most {MAX_CHECKPOINT // 2**20} travel with a job; give an "
            "address such as s3://, or say --shared-paths if every node has it under an absolute "
            "path",
        )


def _is_sent(checkpoint: str, shared: bool) -> bool:
    """Say whether the job takes the checkpoint along; else the nodes find it where it is."""
    return "://" not in checkpoint and not (shared and Path(checkpoint).is_absolute())


def _local_path(address: str) -> str | None:
    """Return the file or folder an address stands for; None for what is reached by network."""
    if address == "off" or address.startswith("${"):
        return None
    if address.startswith("sqlite"):
        file = sqlite_file(address)
        return str(file) if file is not None else ":memory:"
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    return rest if scheme in {"file", "local", "memory"} else None


def _relative(path: str) -> str:
    return f"{path!r} is relative, and a job runs in a folder of its own; give the whole path"


def _status_command(spec: SweepSpec) -> str:
    ledger = spec.tracking.ledger
    if ledger is None:
        return f"prunesweep status {spec.name} --store {shlex.quote(spec.tracking.store)}"
    if ledger == f"${{{LEDGER}}}":
        return f"prunesweep status {spec.name}"
    return f'{LEDGER}="{ledger}" prunesweep status {spec.name}'  # the shell fills variables in
