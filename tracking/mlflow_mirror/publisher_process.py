"""The publisher as a process of its own: started beside the driver, ending soon after it."""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from tracking.artifacts import ArtifactStore
from tracking.errors import TrackingError
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.publisher import GRACE_S, Publisher
from tracking.mlflow_mirror.sole_publisher import sole_publisher
from tracking.private_files import PRIVATE_UMASK, make_folder, open_private

LEDGER, MLFLOW, ARTIFACTS = "PRUNESWEEP_LEDGER", "PRUNESWEEP_MLFLOW", "PRUNESWEEP_ARTIFACTS"
FLUSH_S = 120.0  #: How long the end of a sweep waits for MLflow to show everything.
ROOT = Path(__file__).resolve().parents[2]

log = logging.getLogger("tracking.mlflow_mirror.publisher")


def start_publisher(
    *,
    ledger_url: str,
    tracking_uri: str,
    artifacts_url: str,
    sweep: str,
    log_file: str | os.PathLike[str],
    weights_artifacts: bool = False,
    grace_s: float = GRACE_S,
) -> "subprocess.Popen[bytes]":
    """Start publishing a sweep beside the calling process, which it outlives by seconds.

    The URLs travel in the environment: they may hold a password, and everybody on the machine can
    read a command line. Send SIGTERM to have it publish what is left and end: status 0 when MLflow
    shows everything, 75 when something is left for ``prunesweep publish``.

    Args:
        ledger_url: The ledger.
        tracking_uri: Where MLflow is.
        artifacts_url: The artifact store.
        sweep: Name of the sweep.
        log_file: What it has to say is added to this file.
        weights_artifacts: Copy pruned weights into MLflow.
        grace_s: How long it may go on after SIGTERM, or after the caller's end.
    """
    # -P: not from the working folder, where another `tracking` may lie
    command = [sys.executable, "-P", "-m", "tracking.mlflow_mirror.publisher_process"]
    command += ["--sweep", sweep, "--parent-pid", str(os.getpid()), "--grace-s", str(grace_s)]
    command += ["--weights-artifacts"] if weights_artifacts else []
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    urls = {LEDGER: ledger_url, MLFLOW: tracking_uri, ARTIFACTS: artifacts_url}
    make_folder(Path(log_file).parent)
    with open(log_file, "ab", opener=open_private) as output:
        return subprocess.Popen(
            command,
            env={**os.environ, **urls, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            umask=PRIVATE_UMASK,  # MLflow's own files
            start_new_session=True,  # Ctrl-C in the driver's terminal is the driver's to handle
        )


@contextmanager
def publishing(
    *,
    ledger_url: str,
    tracking_uri: str,
    artifacts_url: str,
    sweep: str,
    log_file: str | os.PathLike[str],
    weights_artifacts: bool,
) -> Iterator[None]:
    """Publish a sweep beside the block, and what is left at its end; see `start_publisher`."""
    process = start_publisher(
        ledger_url=ledger_url,
        tracking_uri=tracking_uri,
        artifacts_url=artifacts_url,
        sweep=sweep,
        log_file=log_file,
        weights_artifacts=weights_artifacts,
    )
    try:
        yield
    finally:
        process.terminate()  # it publishes what is left, and ends
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=FLUSH_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish a sweep until SIGTERM, or until the parent has died; return the exit status."""
    options = _options(arguments)
    logging.basicConfig(format="%(asctime)s publisher: %(message)s", level=logging.INFO)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.parent_pid is not None:
        Thread(target=_watch, args=(options.parent_pid, stop), daemon=True).start()
    try:
        with sole_publisher(options.ledger, options.sweep, stop) as alone:
            if not alone():
                return os.EX_TEMPFAIL  # another one still publishes this sweep
            with Ledger.open(options.ledger, create=False) as ledger:
                publisher = Publisher(
                    ledger,
                    options.mlflow,
                    ArtifactStore(options.artifacts),
                    sweep=ledger.sweep(options.sweep).name,
                    weights_artifacts=options.weights_artifacts,
                    may_publish=alone,
                )
                done = publisher.run_forever(stop, grace_s=options.grace_s)
    except TrackingError as error:
        log.error("%s", error)
        return 1
    return os.EX_OK if done else os.EX_TEMPFAIL


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tracking.mlflow_mirror.publisher_process",
        description="Show a sweep in MLflow while it runs.",
    )
    for option, variable, what in (
        ("--ledger", LEDGER, "database URL of the ledger"),
        ("--mlflow", MLFLOW, "MLflow tracking URI"),
        ("--artifacts", ARTIFACTS, "folder or URL of the artifact store"),
    ):
        default = os.environ.get(variable)
        parser.add_argument(
            option, default=default, required=default is None, help=f"{what}; default: ${variable}"
        )
    parser.add_argument("--sweep", required=True, help="name of the sweep")
    parser.add_argument("--parent-pid", type=int, help="end soon after this process")
    parser.add_argument("--grace-s", type=float, default=GRACE_S, help="for what is left then")
    parser.add_argument("--weights-artifacts", action="store_true", help="copy pruned weights")
    return parser.parse_args(arguments)


def _watch(pid: int, stop: Event) -> None:
    """Set ``stop`` once the process ``pid`` has ended."""
    is_child = os.getppid() == pid
    while os.getppid() == pid if is_child else _exists(pid):
        time.sleep(0.5)
    stop.set()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    raise SystemExit(main())
