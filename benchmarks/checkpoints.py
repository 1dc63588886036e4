"""What a checkpoint after an epoch costs: epochs of one trial with and without, in turns.

``python -m benchmarks.checkpoints [--rounds 3] [--output FILE]``

A trial writes a checkpoint after every other epoch, in this process, with one thread, to a folder
on this machine's disk. Epochs of the digits are as short as they get, and a checkpoint costs the
same however long an epoch was.
"""

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.surroundings import publish, surroundings
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.node.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.trial import run_trial

EPOCHS = 41
DATA = DataSettings()
MODELS = ("digits_net", "cifar_resnet20")


def epochs_of(model: str) -> tuple[list[float], list[float]]:
    """Train a network; return seconds from report to report, without and with a checkpoint."""
    spec = TrialSpec(
        kind="baseline",
        model=ModelSettings(name=model),
        data=DATA,
        data_hash=describe(DATA).data_hash,
        recipe=Recipe(epochs=EPOCHS, batch_size=128),
        seed=1,
    )
    moments: list[float] = []
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as name:
        node = Node(
            device=torch.device("cpu"),
            cache_dir=Path(name) / "cache",
            artifacts=ArtifactStore(f"{name}/artifacts"),
            checkpoint_epochs=2,  # written after the reports of the second, the fourth ...
        )
        run_trial(spec, node, lambda *_: moments.append(time.perf_counter()))
    seconds = [end - begin for begin, end in pairwise(moments)]
    return seconds[0::2], seconds[1::2]


def main() -> None:
    """Compare, print and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| network | epoch without, s | epoch with, s | ratio | added, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for model in MODELS:
        trials = [epochs_of(model) for _ in range(options.rounds)]
        without = statistics.median(value for first, _ in trials for value in first)
        pairs = [(a, b) for first, second in trials for a, b in zip(first, second, strict=True)]
        added = statistics.median(b - a for a, b in pairs)
        ratio = statistics.median(b / a for a, b in pairs)
        seconds = f"{without:.3f} | {without + added:.3f}"
        lines.append(f"| {model} | {seconds} | {ratio:.3f} | {added * 1000:.1f} |")
    note = f"Medians of {len(pairs)} pairs of neighbouring epochs each."
    publish([*lines, "", note, "", *surroundings(), ""], options.output)


if __name__ == "__main__":
    main()
