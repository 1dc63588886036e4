"""The programs that `deploy/` calls take the arguments they are given there.

MLflow's server is started with its own in `test_mlflow.py`.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
from ray.scripts.scripts import cli as ray

from orchestrator.cluster.job_package import pack
from orchestrator.commands.cli import app
from tests.deploy.files import DEPLOY, read
from tests.orchestrator.command_line import call

PROGRAMS: dict[str, Any] = {
    "prunesweep": typer.main.get_command(app),
    "ray": ray,
}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield every call of one of the programs, and the file it stands in."""
    for name, service in read("compose.yaml")["services"].items():
        if service.get("command", [""])[0] in PROGRAMS:
            yield f"compose.yaml {name}", service["command"]
    yield "rayjob.yaml", shlex.split(read("kuberay/rayjob.yaml")["spec"]["entrypoint"])
    up = read("ray-cluster.yaml")
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for line in up[key]:
            yield f"ray-cluster.yaml {key}", shlex.split(line.rpartition("&&")[2])
    script = (DEPLOY / "slurm.sh").read_text().replace("\\\n", " ")
    for line in re.findall(
        r"^(?!#).*?\b((?:ray start|prunesweep run) .*) &$", script, re.MULTILINE
    ):
        yield "slurm.sh", shlex.split(re.sub(r'"?\$(\w+|\{.*?\}|\(\(.*?\)\))"?', "7", line))
    pages = [DEPLOY / "README.md", DEPLOY.parent / "docs" / "cluster.md"]
    for page in (*pages, *DEPLOY.rglob("*.yaml")):
        for line in page.read_text().splitlines():
            if found := re.match(r"[#$ ]*((?:prunesweep|ray) [a-z]+ [^|`.]*[^|`]*)$", line):
                yield page.name, shlex.split(found[1], comments=True)


ALL = list(commands())


@pytest.mark.parametrize(("where", "words"), ALL, ids=[where for where, _ in ALL])
def test_a_command_takes_its_arguments(where: str, words: list[str]) -> None:
    program, verb, *arguments = words
    understood = parse(words)
    assert understood.command is PROGRAMS[program].commands[verb]
    assert understood.args == []  # nothing is left over
    given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert given <= {
        name for p in understood.command.params for name in (*p.opts, *p.secondary_opts)
    }


def parse(words: list[str]) -> click.Context:
    program, verb, *arguments = words
    command = PROGRAMS[program].get_command(click.Context(PROGRAMS[program]), verb)
    assert command is not None, f"{program} has no {verb}"
    context: click.Context = command.make_context(verb, list(arguments))
    return context


@pytest.mark.parametrize(
    "line",
    [
        "prunesweep submit sweep.yaml --adress http://head:8265",
        "prunesweep submmit sweep.yaml",
        "ray start --heads",
    ],
)
def test_a_mistake_is_found(line: str) -> None:
    with pytest.raises((click.UsageError, AssertionError, Exception), match=r"(?i)no such|has no"):
        parse(shlex.split(line))


def test_calls_were_found_in_every_file() -> None:
    files = {where.split()[0] for where, _ in ALL}
    assert files >= {"compose.yaml", "rayjob.yaml", "ray-cluster.yaml", "slurm.sh", "README.md"}
    assert {words[0] for _, words in ALL} == PROGRAMS.keys()


def test_the_sweep_can_be_sent_as_it_is(tmp_path: Path) -> None:
    package = pack(DEPLOY / "sweep.yaml", (), tmp_path)
    assert package.needs == ("MLFLOW_TRACKING_URI", "PRUNESWEEP_LEDGER")
    assert package.files == ("sweep.yaml",)


def test_every_node_has_the_variables_the_sweep_needs(tmp_path: Path) -> None:
    needs = pack(DEPLOY / "sweep.yaml", (), tmp_path).needs
    for name in ("ray-head", "ray-worker"):
        environment = read("compose.yaml")["services"][name]["environment"]
        assert environment.keys() >= set(needs)
    assert all(name in (DEPLOY / "README.md").read_text() for name in needs)


def test_the_sweep_plans_its_trials(tmp_path: Path) -> None:
    result = call(
        "run",
        DEPLOY / "sweep.yaml",
        "--dry-run",
        "--json",
        PRUNESWEEP_LEDGER=f"sqlite:///{tmp_path}/ledger.db",
        MLFLOW_TRACKING_URI="http://127.0.0.1:5000",
    )
    assert result.exit_code == 0, result.stderr
