"""How long the command line takes to answer, as a ratio to ``python -c "import torch"``.

CPU time of the process and its children, the least of some runs: other work on the machine does not
count, and the ratio holds on another one.

    python -m benchmarks.quickness [--runs 3] [--output FILE]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import sqlalchemy as sa
import typer.main

from benchmarks.surroundings import publish, surroundings
from orchestrator.commands.cli import app
from tests.browser.made_up import Records, made_up_records
from tracking.ledger.ledger import Ledger
from tracking.ledger.tables import entries, sweeps, trials

SMALL, LARGE = (3, 1, 20), (29, 6, 55)  #: Arms, targets and proposals: 79 and 10,324 trials.
#: The command as it is installed: completion goes by its name.
COMMAND = "import sys; sys.argv[0] = 'prunesweep'; import prunesweep; prunesweep.main()"
SPECIFICATION = """\
name: quick
model: digits_net
arms: [l1]
targets: {macs_reduction: 0.5}
recipe: {epochs: -1}
"""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Something a person types."""

    what: str
    words: Sequence[str]
    environment: Mapping[str, str]
    code: int = 0  #: It ends with.


def calls(folder: Path) -> Iterator[Call]:
    """Yield what is measured, in a folder that holds a small and a large sweep."""
    plain: dict[str, str] = {}
    for verb in (None, *typer.main.get_command(app).commands):  # type: ignore[attr-defined]
        words = [verb] if verb else []
        yield Call(what=" ".join([*words, "--help"]), words=[*words, "--help"], environment=plain)
    yield Call(what="a verb mistyped", words=["runn"], environment=plain, code=2)
    completing = {
        "_PRUNESWEEP_COMPLETE": "complete_bash",
        "COMP_WORDS": "prunesweep re",
        "COMP_CWORD": "1",
    }
    yield Call(what="completion of a verb", words=[], environment=completing)
    for verb in ("methods", "models"):
        yield Call(what=verb, words=[verb], environment=plain)
    for name, size in (("small", SMALL), ("large", LARGE)):
        store = str(folder / name)
        sweep = f"made-up-{size[0]}-arms"
        for verb in ("status", "compare"):
            what = f"{verb} of a {name} sweep"
            yield Call(what=what, words=[verb, sweep, "--store", store], environment=plain)
    wrong = ["run", str(folder / "sweep.yaml"), "--store", str(folder / "none")]
    yield Call(what="run with a bad value", words=wrong, environment=plain, code=2)


def fill(folder: Path, records: Records) -> None:
    """Write a made-up sweep into a ledger as it stands."""
    folder.mkdir()
    with Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger, ledger.database.write() as at:
        at.execute(sa.insert(sweeps), [_row(records.sweep, sweeps)])
        at.execute(sa.insert(trials), [_row(trial, trials) for trial in records.trials])
        at.execute(
            sa.insert(entries),
            [{**_row(e, entries), **_row(e.place, entries)} for e in records.entries],
        )


def _row(record: object, table: sa.Table) -> dict[str, object]:
    names = {field.name for field in fields(record)}  # type: ignore[arg-type]
    return {name: getattr(record, name) for name in names & set(table.c.keys())}


def cpu_s(command: Sequence[str], environment: Mapping[str, str], code: int) -> float:
    """Run a command; return the seconds of CPU that it and its children took."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == code, (command, process.returncode, told.decode())
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, print the ratios and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each command; the least counts")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()

    def least(command: Sequence[str], environment: Mapping[str, str], code: int) -> float:
        return min(cpu_s(command, environment, code) for _ in range(options.runs))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(SPECIFICATION)
        fill(folder / "small", made_up_records(*SMALL))
        fill(folder / "large", made_up_records(*LARGE))
        torch_s = least([sys.executable, "-c", "import torch"], {}, 0)
        found = []
        for call in calls(folder):
            command = [sys.executable, "-c", COMMAND, *call.words]
            found.append((call.what, least(command, call.environment, call.code)))
            print(f"{found[-1][0]}: {found[-1][1]:.2f} s", file=sys.stderr, flush=True)
    helps = [seconds for what, seconds in found if what.endswith("--help")]
    rows = [(f"`--help`, the slowest of {len(helps)}", max(helps))]
    rows += [(what, seconds) for what, seconds in found if not what.endswith("--help")]
    lines = [
        "# How quickly the command line answers",
        "",
        f"`python -m benchmarks.quickness --runs {options.runs}`: CPU time beside that of",
        '`python -c "import torch"`, the least of the runs. The small sweep has 3 arms and 79',
        "trials, the large one 29 arms at 6 targets and 10,324 trials.",
        "",
        "| | CPU s | ratio to `import torch` |",
        "| --- | ---: | ---: |",
        f"| `import torch` | {torch_s:.2f} | 1 |",
        *(f"| {what} | {seconds:.2f} | {seconds / torch_s:.2f} |" for what, seconds in rows),
        "",
        *surroundings(),
        "",
    ]
    publish(lines, options.output)


if __name__ == "__main__":
    main()
