"""Proposals judged without training per minute on two cores: this checkout, and commits beside it.

``python -m benchmarks.proposals [--beside COMMIT ...] [--rounds 5] [--each 4] [--output FILE]``

ResNet-20, two workers of one thread, 1,000 images of 32x32 pixels to re-estimate batch norms with
and 1,000 to judge on; the images are noise, which takes as long as any other. Checkouts take turns,
so that whatever else the machine does hits all. Where an earlier commit cannot judge without
training, it runs what its searches ran: a trial of no epochs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.surroundings import ROOT, publish, surroundings

GOAL = 60  #: Proposals per minute.
WORKERS = 2
WORKER = Path(__file__).with_name("worker.py")
CLASSES, PER_CLASS = 10, {"train": 200, "test": 100}  #: Half of ``train`` is validation.


class Rates(NamedTuple):
    """Proposals per minute of two workers."""

    wall: float
    cpu: float  #: Were two cores theirs alone.


class Side:
    """Two workers that run the code of one checkout."""

    def __init__(self, name: str, checkout: Path, images: Path, stack: ExitStack) -> None:
        self.name = name
        store = stack.enter_context(tempfile.TemporaryDirectory(prefix="proposals-"))
        self._workers = [
            stack.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        str(WORKER),
                        str(images),
                        f"{store}/{number}",
                        str(number),
                    ],
                    cwd=checkout,
                    env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(WORKERS)
        ]
        for worker in self._workers:
            self._answer(worker)

    def per_minute(self, each: int) -> Rates:
        """Let both workers judge ``each`` proposals at the same time; return how many a minute."""
        for worker in self._workers:
            assert worker.stdin
            print(each, file=worker.stdin, flush=True)
        taken = [[float(text) for text in self._answer(worker).split()] for worker in self._workers]
        wall, cpu = (
            60.0 * sum(each / seconds for seconds in kind) for kind in zip(*taken, strict=True)
        )
        return Rates(wall, cpu)

    def _answer(self, worker: "subprocess.Popen[str]") -> str:
        assert worker.stdout
        line = worker.stdout.readline()
        if not line:
            raise RuntimeError(f"A worker of {self.name} ended; what it said is above.")
        return line


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """Check a commit out beside this one, for as long as it is measured."""
    with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
        path = Path(folder) / "tree"
        add = ["git", "worktree", "add", "--quiet", "--detach", str(path), commit]
        subprocess.run(add, cwd=ROOT, check=True)
        try:
            yield path
        finally:
            remove = ["git", "worktree", "remove", "--force", str(path)]
            subprocess.run(remove, cwd=ROOT, check=True)


def draw_images(folder: Path) -> None:
    """Write noise as an image folder."""
    draw = np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for number in range(CLASSES):
            place = folder / split / str(number)
            place.mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")


def main() -> None:
    """Measure, print and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beside", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="images-")))
        draw_images(folder)
        trees = {name: stack.enter_context(checkout_of(name)) for name in options.beside}
        sides = [Side(name, tree, folder, stack) for name, tree in trees.items()]
        sides.append(Side("this checkout", ROOT, folder, stack))
        found: dict[str, list[Rates]] = {side.name: [] for side in sides}
        for turn in range(options.rounds):
            for side in sides if turn % 2 else sides[::-1]:  # none is always first
                found[side.name].append(side.per_minute(options.each))
    lines = [
        "# Proposals judged without training",
        "",
        "`python -m benchmarks.proposals`: ResNet-20, two workers of one thread, 1,000 images to "
        "re-estimate batch norms with and 1,000 to judge on; by turns, medians over "
        f"{options.rounds} rounds of {options.each} proposals a worker.",
        "",
        f"| code | proposals per minute (goal {GOAL}) | by CPU time | times the first, CPU time |",
        "|---|---:|---:|---:|",
    ]
    first = next(iter(found.values()))
    for name, rates in found.items():
        wall, cpu = (statistics.median(each) for each in zip(*rates, strict=True))
        ratio = statistics.median(
            one.cpu / other.cpu for one, other in zip(rates, first, strict=True)
        )
        lines.append(f"| {name} | {wall:.0f} | {cpu:.0f} | {ratio:.2f} |")
    lines += ["", "By CPU time: what the two workers would do, were two cores theirs alone."]
    publish([*lines, "", *surroundings(), ""], options.output)


if __name__ == "__main__":
    main()
