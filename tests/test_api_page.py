"""The page that documents the public names: its examples run, in order, as a user runs them."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prunesweep
from tests.checkout import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_public_name_is_on_the_page_and_can_be_imported() -> None:
    for name in prunesweep.__all__:
        assert f"`{name}`" in PAGE
        assert getattr(prunesweep, name) is not None
    with pytest.raises(AttributeError, match="'prunesweep' has no attribute 'gone'"):
        prunesweep.__getattr__("gone")


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import prunesweep; print(set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    new = ast.literal_eval(done.stdout)
    assert not {name.partition(".")[0] for name in new} & {*prunesweep.PACKAGES, "torch", "ray"}


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
def test_its_examples_run(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = ""
    for number, (language, code) in enumerate(BLOCKS):
        if language == "bash":
            program, *arguments = code.split()
            said += run("-m", program, *arguments)
        else:
            (tmp_path / f"example_{number}.py").write_text(code)
            said += run(f"example_{number}.py")
    assert "geometric_median" in said
    assert "arms" in said  # of the specification that is wrong
