"""Joining a Ray cluster, or starting Ray on this machine; workers get the code they lack."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import ray
import torch
from ray._private import ray_constants
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray.exceptions import AuthenticationError, RayError

from orchestrator.cluster.shipping import network_code, own_code
from orchestrator.cluster.temporary_folder import check_temporary_folder, private_temporary_folder
from orchestrator.cluster.token_file import make_token_private
from orchestrator.errors import InputError, Problem, SpecError, SweepError
from orchestrator.loop.backend import one_line
from orchestrator.loop.interrupts import handlers_kept
from orchestrator.specification.settings import ResourceSettings
from tracking.private_files import PRIVATE_UMASK

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  #: Set by Ray for the driver of a job.
_HIDE_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"  #: 1: a worker that asks for 0 GPUs sees none.
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  #: 0: Ray stays on loopback, on any system.
_NO_DUMPS = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"  #: 1: SIGTERM and crashes are left to Python.
#: Called by each worker before Ray puts the driver's working folder in front of its path.
_FIRST_IN_A_WORKER = "prunesweep.claim_packages"
#: What libpq and MLflow log in with; only the driver and its publisher do.
_DRIVERS_OWN = ("PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

REACH_S = 10.0  #: How long a cluster may take to answer.
TOKEN_ADVICE = (
    "Export RAY_AUTH_MODE=token, and the cluster's token as RAY_AUTH_TOKEN_PATH, a file that holds "
    "it, or as RAY_AUTH_TOKEN."
)


class ClusterUnreachableError(InputError):
    """No Ray cluster answers at the address that was given."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return (
            f"resources.address: no Ray cluster answers at {self.address!r}: {self.reason}. Start "
            "one with `ray start --head`, or leave the address out to run on this machine."
        )


class ClusterTokenError(InputError):
    """The cluster wants a token that this machine does not have, or has another one of."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return (
            f"The Ray cluster at {self.address!r} turns this machine away: {self.reason}. "
            f"{TOKEN_ADVICE}"
        )


class RayStartError(SweepError):
    """Ray did not come up on this machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Ray could not start on this machine: {self.reason} Other work may keep it too busy; "
            "run the same command again, and nothing that has ended is run twice."
        )


def check_reachable(address: str | None) -> None:
    """Refuse an address at which nobody listens; Ray would try it for many minutes.

    Without an address, see that a Ray can be started on this machine.

    Raises:
        ClusterUnreachableError: Nobody does.
        TemporaryFolderError: Ray could not keep its files here.
        TokenFileError: Its token cannot be kept from others.
    """
    if address in {None, "local"}:
        check_temporary_folder()
        make_token_private()
        return
    if address == "auto":
        return
    host, _, port = str(address).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise ClusterUnreachableError(str(address), error.strerror or str(error)) from error


def check_gpus_here(resources: ResourceSettings) -> None:
    """Refuse to wait for GPUs that this machine, on which Ray would start, does not have.

    Raises:
        SpecError: It has none, or too few for one worker.
    """
    if resources.address not in {None, "local"}:
        return
    there, share = torch.cuda.device_count(), resources.gpu_share
    if resources.device == "cuda" and not there:
        problem = "is cuda, and torch finds no GPU on this machine; take cpu, or auto"
        raise SpecError([Problem("resources.device", problem)])
    if share != "auto" and share > there:
        problem = f"is {share:g}, and torch finds {there} GPU(s) on this machine; take auto"
        raise SpecError([Problem("resources.gpu_share", problem)])


def connect(
    resources: ResourceSettings, own: Sequence[str] = (), secrets: Iterable[str] = ()
) -> None:
    """Join the cluster that ``resources`` names, or start Ray on this machine.

    Args:
        resources: Names the cluster.
        own: Networks and methods by name, whose code workers on other machines need, too.
        secrets: Environment variables of the driver that workers started here do not get.

    Raises:
        ClusterUnreachableError: Nothing answers at the address.
        ClusterTokenError: The cluster wants a token, or another one.
        TokenFileError: The token of a Ray on this machine cannot be kept from others.
        RayStartError: Ray does not come up on this machine, or takes too long.
    """
    os.environ.setdefault(_HIDE_GPUS, "1")
    with handlers_kept(), _without_a_dump_of_the_stack():
        _start_or_join(resources, own, secrets)


def _start_or_join(resources: ResourceSettings, own: Sequence[str], secrets: Iterable[str]) -> None:
    if resources.address in (None, "local"):
        with _without(*secrets, *_DRIVERS_OWN):
            _start_here(resources)
    else:
        _join(str(resources.address), own)


@contextmanager
def _without_a_dump_of_the_stack() -> Iterator[None]:
    """Keep Ray from taking SIGTERM for a crash of this process; workers still tell of theirs."""
    before = os.environ.get(_NO_DUMPS)
    os.environ[_NO_DUMPS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_NO_DUMPS)
        os.environ.update({} if before is None else {_NO_DUMPS: before})


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Take variables out of the environment, which processes started in the block inherit."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _start_here(resources: ResourceSettings) -> None:
    cpus = max(os.cpu_count() or 1, round(resources.workers * resources.cpus_per_worker))
    make_token_private()
    with _on_loopback(), _for_its_owner_alone():
        _init_here(cpus)


@contextmanager
def _for_its_owner_alone() -> Iterator[None]:
    """Have what processes that are started in the block write read by nobody else."""
    before = os.umask(PRIVATE_UMASK)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have Ray, and the processes it starts, talk and listen on 127.0.0.1 alone.

    It does so where it cannot form clusters: by default on Windows and macOS, and on Linux when it
    is told to. Its `_node_ip_address` does not help: Ray replaces 127.0.0.1 there.
    """
    before, os.environ[_CLUSTERS] = os.environ.get(_CLUSTERS), "0"
    may_form, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = may_form
        os.environ.pop(_CLUSTERS)
        os.environ.update({} if before is None else {_CLUSTERS: before})


def _init_here(cpus: int) -> None:
    try:
        ray.init(
            address="local",  # else it joins what RAY_ADDRESS names, or another on this machine
            num_cpus=cpus,
            _temp_dir=private_temporary_folder(),
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={
                "env_vars": {"PYTHONPATH": _code_path(), _NO_DUMPS: "0"},
                "worker_process_setup_hook": _FIRST_IN_A_WORKER,
            },
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    except Exception as error:  # bare, when its processes are not there within 30 s
        raise RayStartError(one_line(error)) from error


def _join(address: str, own: Sequence[str]) -> None:
    if address != "auto":
        _check_token(address)
    with tempfile.TemporaryDirectory(prefix="prunesweep-") as folder:
        code: dict[Path, None] = {}
        if not _is_job():
            code = dict.fromkeys(own_code(Path(folder)))
            for name in own:
                code |= dict.fromkeys(network_code(name, Path(folder)))
        environment: dict[str, Any] = {
            "env_vars": {_HIDE_GPUS: "1", _NO_DUMPS: "0"},
            "worker_process_setup_hook": _FIRST_IN_A_WORKER,
        }
        environment |= {"py_modules": list(map(str, code))} if code else {}
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                runtime_env=environment,
                logging_level=logging.ERROR,
            )
        except AuthenticationError as error:
            raise ClusterTokenError(address, "no token was found") from error
        except (ConnectionError, RayError, RuntimeError, ValueError) as error:
            raise ClusterUnreachableError(address, one_line(error)) from error


def _check_token(address: str) -> None:
    """Refuse a token that the cluster refuses; Ray itself would try it for a minute."""
    try:
        headers = get_auth_headers_if_auth_enabled({})
    except AuthenticationError as error:
        raise ClusterTokenError(address, "no token was found") from error
    metadata = [(name.lower(), value) for name, value in headers.items()]
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=REACH_S, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                problem = "its token is another one" if metadata else "it wants a token"
                raise ClusterTokenError(address, problem) from error


def _is_job() -> bool:
    """Say whether this is a Ray job, whose workers have the code that came with it."""
    return _JOB in os.environ


def _code_path() -> str:
    """Return where the workers find these packages, when they run on this machine."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
