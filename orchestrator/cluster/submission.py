"""A sweep as a Ray job: the driver runs in the cluster, and this machine may go."""

import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient
from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cluster.connection import REACH_S, ClusterTokenError
from orchestrator.cluster.job_package import JobPackage, pack
from orchestrator.errors import InputError

DASHBOARD: Final = "http://127.0.0.1:8265"  #: Where a job goes unless told otherwise.
ADDRESS: Final = "RAY_API_SERVER_ADDRESS"  #: Ray's variable for the same; it wins over arguments.
POLL_S: Final = 2.0  #: Between two looks at a job's output.
SILENCE_S: Final = 300.0  #: How long the cluster may be out of reach while a job is followed.

_KEY: Final = "prunesweep"  #: Metadata of a job: the sweep it runs.
_TALKERS: Final = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
_OVER: Final = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)

T = TypeVar("T")


class SubmissionError(InputError):
    """The cluster does not take the job."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return (
            f"The Ray cluster at {self.address!r} takes no job: {self.reason} --address is the "
            "address of its dashboard, http://HOST:8265; forward the port where it is out of reach."
        )


class AlreadySubmittedError(InputError):
    """A job of the cluster runs the sweep now."""

    def __init__(self, sweep: str, job: str, address: str) -> None:
        super().__init__(sweep, job, address)
        self.sweep, self.job, self.address = sweep, job, address

    def __str__(self) -> str:
        return (
            f"The sweep {self.sweep!r} is run by job {self.job} already. Wait for it, or stop it "
            f"with `ray job stop --address {self.address} {self.job}` and submit again: what has "
            "ended is kept."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """A job the cluster has taken."""

    job: str
    address: str
    package: JobPackage

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON-able data."""
        return {"job": self.job, "address": self.address, **asdict(self.package)}


def submit(
    spec_file: Path,
    overrides: Sequence[str] = (),
    *,
    address: str | None = None,
    with_code: bool = False,
    shared_paths: bool = False,
) -> Submitted:
    """Send a sweep to a cluster, to be run there; one that has begun is continued.

    Args:
        spec_file: The specification.
        overrides: ``key.path=VALUE`` each.
        address: Of the cluster's dashboard; None takes Ray's environment variable, then this
            machine.
        with_code: Send prunesweep itself, for nodes that lack it or have another version.
        shared_paths: Paths of the specification are the same on every node.

    Raises:
        SpecError: A mistake in the specification, or something it names stays on this machine.
        SubmissionError: The cluster does not answer, or refuses.
        ClusterTokenError: It wants a token, or another one.
        AlreadySubmittedError: A job runs the sweep now.
    """
    address = address or os.environ.get(ADDRESS) or DASHBOARD
    with tempfile.TemporaryDirectory(prefix="prunesweep-") as temporary:
        folder = Path(temporary)
        package = pack(spec_file, overrides, folder, with_code=with_code, shared_paths=shared_paths)
        client = _client(address)

        def send() -> str:
            for job in client.list_jobs():
                is_same = (job.metadata or {}).get(_KEY) == package.sweep
                if is_same and job.status not in _OVER:
                    raise AlreadySubmittedError(package.sweep, str(job.submission_id), address)
            return client.submit_job(
                entrypoint=package.entrypoint,
                submission_id=_job_id(package.sweep),
                runtime_env={"working_dir": str(folder)},
                metadata={_KEY: package.sweep},
            )

        job = _asking(address, send)
    return Submitted(job=job, address=address, package=package)


def follow(submitted: Submitted, write: Callable[[str], None]) -> int:
    """Pass a job's output on until it ends; return the exit code of its command.

    Raises:
        SubmissionError: The cluster was out of reach for minutes; the job may go on.
    """
    client = _client(submitted.address)
    seen, heard = 0, time.monotonic()
    while True:
        try:
            info = client.get_job_info(submitted.job)  # first: what it wrote before it ended shows
            text = client.get_job_logs(submitted.job)
        except (RuntimeError, OSError) as error:
            if time.monotonic() - heard > SILENCE_S:
                raise SubmissionError(submitted.address, f"{error}.") from error
            time.sleep(POLL_S)
            continue
        heard = time.monotonic()
        write(text[seen:])
        seen = len(text)
        if info.status in _OVER:
            succeeded = info.status is JobStatus.SUCCEEDED
            return 0 if succeeded else (info.driver_exit_code or 1)
        time.sleep(POLL_S)


def view(submitted: Submitted) -> RenderableType:
    """Show the job and how to go on from here."""
    package, job = submitted.package, submitted.job
    ray = f"--address {submitted.address} {job}"
    lines = [
        f"The sweep {package.sweep} is job {job}; this machine may go.",
        f"Its output: ray job logs --follow {ray}",
        f"Its stand:  {package.status}",
        f"To stop it: ray job stop {ray}",
        "To go on after that, or with a job that failed: submit it again.",
    ]
    if package.needs:
        lines.append(f"It reads from the cluster's environment: {', '.join(package.needs)}")
    return Group(*(Text(line, no_wrap=True, overflow="ignore") for line in lines))


def _job_id(sweep: str) -> str:
    return f"prunesweep-{sweep.replace('+', '-')}-{secrets.token_hex(3)}"


def _client(address: str) -> JobSubmissionClient:
    """Connect to a cluster.

    Raises:
        SubmissionError: Nothing answers, or a token is wanted.
    """
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or parts.hostname is None:
        raise SubmissionError(address, "this is no http:// address.")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:  # Ray itself would wait for minutes
        socket.create_connection((parts.hostname, port), timeout=REACH_S).close()
    except OSError as error:
        raise SubmissionError(address, f"{error.strerror or error}.") from error
    for name in _TALKERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ[ADDRESS] = address  # else RAY_ADDRESS wins over what was asked for
    return _asking(address, lambda: JobSubmissionClient(address))


def _asking(address: str, ask: Callable[[], T]) -> T:
    """Ask the cluster, and sort what it raises."""
    try:
        return ask()
    except AuthenticationError as error:
        problem = str(error).strip().splitlines()[0].rstrip(".")
        raise ClusterTokenError(address, problem) from error
    except (RuntimeError, ValueError, OSError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise SubmissionError(address, f"{problem}.") from error
