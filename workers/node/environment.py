"""Where a trial ran and with what: part of every result."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torchvision", "torch-pruning", "ray", "numpy")
COMMIT_VARIABLE = "PRUNESWEEP_COMMIT"  #: Set where the code travels without its history.


@functools.cache
def code_version() -> str | None:
    """Return the git commit of this code, with ``-dirty`` when the checkout was changed.

    Where the code is not a checkout (a copy sent to a cluster's node), the environment variable
    ``PRUNESWEEP_COMMIT`` says it; None when nothing does. Read once per process.
    """
    root = Path(__file__).resolve().parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:  # installed into someone else's repository
        return os.environ.get(COMMIT_VARIABLE)
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return os.environ.get(COMMIT_VARIABLE)
    return f"{commit}-dirty" if _git(root, "status", "--porcelain") else commit


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return package versions, the code's commit and the device, as JSON-able data."""
    code = code_version()
    return {
        "python": platform.python_version(),
        "packages": _package_versions(),
        "commit": code.removesuffix("-dirty") if code else None,
        "dirty": code.endswith("-dirty") if code else None,
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    """Return the model of ``device``, such as ``NVIDIA H200`` or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor()


@functools.cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


@functools.cache
def _package_versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"torch": torch.__version__}  # with the CUDA it was built for
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
