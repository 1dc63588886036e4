"""NVIDIA's Multi-Process Service, where it can be started: processes share a device at once."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CONTROL = "nvidia-cuda-mps-control"


class MpsUnavailableError(Exception):
    """It cannot be started here."""


@contextmanager
def mps(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Let processes that are started inside be clients of a service that ends with the context.

    Raises:
        MpsUnavailableError: There is none, or it does not start.
    """
    if not wanted:
        yield
        return
    if device.type != "cuda":
        raise MpsUnavailableError("it is for CUDA devices")
    if shutil.which(CONTROL) is None:
        raise MpsUnavailableError(f"{CONTROL} is not installed")
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        ours = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        before = {name: os.environ.get(name) for name in ours}
        os.environ |= ours
        try:
            _control(["-d"])
            try:
                yield
            finally:
                _control([], "quit\n")
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _control(arguments: list[str], order: str | None = None) -> None:
    try:
        done = subprocess.run(
            [CONTROL, *arguments],
            input=order,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MpsUnavailableError(str(error)) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise MpsUnavailableError(f"{CONTROL} ended with status {done.returncode}: {said}")
