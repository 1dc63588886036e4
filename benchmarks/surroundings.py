"""What a measurement was made with, for the record."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ray", "optuna", "mlflow", "sqlalchemy", "torch")


def surroundings() -> list[str]:
    """Say when, of which commit, on what machine, how busy, with which versions."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        f"- {datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}",
        f"- {os.cpu_count()} CPUs ({_processor()}), load averages at the end {load}",
        f"- Python {platform.python_version()}, {packages}",
    ]


def publish(lines: Sequence[str], output: Path | None) -> None:
    """Print a page of Markdown, and write it to ``output`` if that is given."""
    text = "\n".join(lines)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
