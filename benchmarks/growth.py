"""How the cost of a trial grows with the trials a sweep has already: it should not.

One sweep of no-op trials from none to thousands, by the whole real line, with the random sampler,
whose own cost is flat; MLflow off, so that the loop alone is seen. Then what TPE adds per proposal,
which grows by its nature.

    python -m benchmarks.growth [--sizes 100 1000 5000] [--output FILE]
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.noop.sweep import run, specification
from benchmarks.sampler import measure
from benchmarks.surroundings import publish, surroundings
from orchestrator.cluster.connection import connect

WINDOW = 100  #: Trials the cost is averaged over, from each size on.
ASKS = 10


def main() -> None:
    """Run the sweep, print what a trial costs at each size and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec = specification(Path(folder), max(options.sizes) + WINDOW + 1, "random", workers=2)
        connect(spec.resources)
        stopwatch = run(spec, mlflow=False)["stopwatch"]
    lines = [
        "# Growth",
        "",
        "`python -m benchmarks.growth`; random sampler, MLflow off, 50 ratios, three reports",
        "",
        *surroundings(),
        "",
        "| trials in the ledger | ms per trial | CPU ms per trial, driver | "
        "CPU ms TPE takes per proposal |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for size in options.sizes:
        part = (size, size + WINDOW + 1)
        wall_ms = stopwatch.per_trial(stopwatch.wall_s, *part)
        cpu_ms = stopwatch.per_trial(stopwatch.cpu_s, *part)
        _, tpe_ms = measure("tpe", size, 50, ASKS)
        lines.append(f"| {size} | {wall_ms:.1f} | {cpu_ms:.1f} | {tpe_ms:.0f} |")
    publish([*lines, ""], options.output)


if __name__ == "__main__":
    main()
