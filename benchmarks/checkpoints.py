"""What a checkpoint after every epoch costs a trial: training beside the same without.

``python -m benchmarks.checkpoints [--rounds 5] [--output FILE]``

One trial is run with and without checkpoints, in turns, in this process and with one thread; the
store is a folder on this machine's disk. Epochs are as short as they get, since a checkpoint costs
the same however long an epoch was.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.surroundings import publish, surroundings
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.trial import run_trial

EPOCHS = 20
DATA = DataSettings()
MODELS = ("digits_net", "cifar_resnet20")


def seconds_of(model: str, checkpoint_epochs: int) -> float:
    """Train a network on the digits; return how long an epoch took."""
    spec = TrialSpec(
        kind="baseline",
        model=ModelSettings(name=model),
        data=DATA,
        data_hash=describe(DATA).data_hash,
        recipe=Recipe(epochs=EPOCHS, batch_size=128),
        seed=1,
    )
    moments = []
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as name:
        node = Node(
            device=torch.device("cpu"),
            cache_dir=Path(name) / "cache",
            artifacts=ArtifactStore(f"{name}/artifacts"),
            checkpoint_epochs=checkpoint_epochs,
        )
        run_trial(spec, node, lambda *_: moments.append(time.perf_counter()))
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def main() -> None:
    """Compare, print and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| network | epoch without, s | epoch with, s | ratio | added, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for model in MODELS:
        seconds_of(model, 0)  # warms up
        pairs = []
        for number in range(options.rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            found = {epochs: seconds_of(model, epochs) for epochs in order}
            pairs.append((found[0], found[1]))
        without = statistics.median(first for first, _ in pairs)
        with_them = statistics.median(second for _, second in pairs)
        ratio = statistics.median(second / first for first, second in pairs)
        added = statistics.median(second - first for first, second in pairs) * 1000
        lines.append(f"| {model} | {without:.3f} | {with_them:.3f} | {ratio:.3f} | {added:.1f} |")
    note = f"Medians of {options.rounds} pairs of trials of {EPOCHS} epochs."
    publish([*lines, "", note, "", *surroundings()], options.output)


if __name__ == "__main__":
    main()
