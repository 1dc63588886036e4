"""What the ledger costs: milliseconds per whole trial, and milliseconds to read a sweep.

Each cost is given as it passed / as this process computed; on a busy machine only the second says
something about the code.

A trial is wanted, started, reports three times five values and completes; it has 50 ratios.

    python -m benchmarks.ledger [URL]

Without a URL, on SQLite in a temporary folder.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tracking.ledger.ledger import Ledger
from tracking.ledger.outbox import Outbox
from tracking.ledger.writer import SweepWriter
from tracking.places import Place, Role

SIZES = (100, 1000, 5000)  #: Trials in the ledger when the cost is taken.
BATCH = 50  #: Trials timed at each size, in each way.
RATIOS = {f"layer{i}.conv1": 0.3 + i / 1000 for i in range(50)}
SPEC: dict[str, Any] = {"kind": "prune", "method": "l1", "seed": 0, "ratios": RATIOS}


def run_trial(writer: SweepWriter, index: int) -> None:
    entry = Place(Role.SEARCH, arm="l1", index=index)
    trial = writer.want(entry, f"uid-{index}", SPEC, proposal={"params": RATIOS})[1]
    attempt = writer.start(trial.id, "node", 1)
    for step in range(3):
        values = {f"metric {n}": 1.0 / (n + 1) for n in range(5)}
        writer.report(trial.id, attempt, step, values, datetime.now(UTC))
    writer.complete(trial.id, attempt, {"val_accuracy": 90.0, "kept": {"layer1": 7}})


def timed(action: Callable[[], object], parts: int = 1) -> str:
    """Run once; return milliseconds per part: wall / CPU of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{wall / parts * 1000:.1f} / {cpu / parts * 1000:.1f}"


def run_trials(writer: SweepWriter, indices: range, *, together: bool) -> None:
    with writer.transaction() if together else nullcontext():
        for index in indices:
            run_trial(writer, index)


def main(url: str) -> None:
    name = f"benchmark {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    with Ledger.open(url) as ledger:
        sweep = ledger.create_sweep(name, {}, "benchmark")
        writer = ledger.take_over(name, "benchmark")
        outbox = Outbox(ledger)
        print(ledger.url)
        print("trials   trial, batched  trial, six transactions        read all  read 200 dirty")
        done = 0
        for size in SIZES:
            run_trials(writer, range(done, size), together=True)
            middle, done = size + BATCH, size + 2 * BATCH
            batched, single = (
                partial(run_trials, writer, range(size, middle), together=True),
                partial(run_trials, writer, range(middle, done), together=False),
            )
            print(
                f"{size:6}  {timed(batched, BATCH):>15}  {timed(single, BATCH):>23}"
                f"  {timed(lambda: ledger.trials(sweep.id)):>14}"
                f"  {timed(lambda: outbox.dirty_trials(sweep.id)):>14}"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(f"sqlite:///{folder}/ledger.db")
