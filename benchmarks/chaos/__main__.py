"""A sweep of real trials while a saboteur kills what it runs on, against the same sweep left alone.

Killed, at random: workers, machines of the cluster (a raylet with all its processes),
the driver (which a supervisor starts again), the MLflow server and PostgreSQL, which holds both the
ledger and MLflow's store. All run on this machine; the head of the cluster is left alone.

Besides: other commands at the same sweep (`extend`, `export`, a second driver), each killed after a
while, and SIGHUP and SIGTERM to the driver. With ``--file`` the ledger is a file, which is moved
away and back, and removed: then the driver has to have saved it.

    python -m benchmarks.chaos [--trials 200] [--kills 30] [--every 2] [--seed 20261122] [--file]

ends with status 1 if anything is wrong with the sweep at its end.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.chaos.checks import Effort, effort
from benchmarks.chaos.disturbances import COMMANDS, FILE_KINDS
from benchmarks.chaos.experiment import SweepRun, fields_for, run_sweep, verdicts
from benchmarks.chaos.saboteur import Sabotage
from benchmarks.chaos.world import running_world
from benchmarks.surroundings import publish, surroundings

MIX = ("worker", "worker", "worker", "machine", "driver", "mlflow", "postgres")
DISTURBED = (*MIX, *COMMANDS)


def report(
    outcome: SweepRun,
    quiet: SweepRun,
    problems: Mapping[str, list[str]],
    options: argparse.Namespace,
) -> Iterator[str]:
    """Yield a page of Markdown."""
    spent = effort(outcome.records)
    yield "# A sweep under sabotage"
    yield ""
    yield f"`python -m benchmarks.chaos --trials {options.trials} --workers {options.workers}"
    file = " --file" if options.file else ""
    yield f"--kills {options.kills} --every {options.every:g} --seed {options.seed}{file}`"
    yield ""
    yield from surroundings()
    yield ""
    yield f"- {spent.trials} trials in {outcome.seconds:.0f} s; {quiet.seconds:.0f} s left alone"
    yield from _numbers(outcome, spent)
    yield ""
    yield "| in the end | |"
    yield "| --- | --- |"
    for claim, found in problems.items():
        yield f"| {claim} | {'; '.join(found[:5]) or 'yes'} |"


def _numbers(outcome: SweepRun, spent: Effort) -> Iterator[str]:
    kills = Counter(strike.kind for strike in outcome.strikes)
    yield f"- {kills.total()} kills: {_listed(kills)}"
    ends = Counter(
        "killed" if ended.status < 0 else f"ended with status {ended.status}"
        for ended in outcome.exits
    )
    yield f"- {len(outcome.exits)} drivers: {_listed(ends)}"
    yield f"- {spent.attempts} attempts, lost: {_listed(spent.lost) or 'none'}"
    yield f"- {spent.retried} trials retried"
    yield f"- {spent.epochs} epochs reported, {spent.recomputed} of them recomputed"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))


def main() -> None:
    """Run the sweep twice, check it and print what befell it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3, help="each on a machine of its own")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--every", type=float, default=2.0, help="average pause, in seconds")
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--file", action="store_true", help="keep the ledger in a file")
    parser.add_argument("--folder", type=Path, help="keep everything here; a temporary one without")
    parser.add_argument("--output", type=Path, help="also write the page to this file")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    resources = {"workers": options.workers, "device": "cpu"}
    fields = {**fields_for(options.trials), "resources": resources}
    if options.file:
        fields["recovery"] = {**fields["recovery"], "ledger_outage_s": 60.0}
    mix = (*DISTURBED, *(FILE_KINDS if options.file else ()))
    sabotage = Sabotage(mix=mix, kills=options.kills, every_s=options.every, seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        with running_world(folder, options.workers) as world:
            quiet = run_sweep(world, folder / "quiet", fields)
            outcome = run_sweep(world, folder / "sabotaged", fields, sabotage, in_file=options.file)
            problems = verdicts(outcome, quiet.records, world.mlflow.url)
            publish([*report(outcome, quiet, problems, options)], options.output)
            for run in (quiet, outcome):
                run.records.ledger.close()
    raise SystemExit(any(problems.values()))


if __name__ == "__main__":
    main()
