import os
import subprocess
import sys
from pathlib import Path

import pytest

import methods.base
from methods import create
from methods.errors import MethodError
from tests.checkout import ROOT

METHOD = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods import Filters, PruningMethod, register


@register()
@dataclass(frozen=True, kw_only=True)
class PeakWeight(PruningMethod):
    """Score each filter by its largest weight."""

    name: ClassVar[str] = "{name}"
    source: ClassVar[str] = "an outside package"

    def score(self, filters: Filters) -> Tensor:
        return filters.weight.abs().amax(dim=(1, 2, 3))
'''

CONTRACT = """
from methods import create
from methods.testing import PruningMethodContract
from peak_weight import PeakWeight


class TestPeakWeight(PruningMethodContract):
    method = PeakWeight()


def test_it_is_known_by_name() -> None:
    assert create("peak_weight") == PeakWeight()
"""


def install(folder: Path, module: str, code: str) -> None:
    """Lay a package into ``folder`` as an installer does."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[prunesweep.methods]\n{module} = {module}\n")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the packages in ``folder`` are installed."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.integration
def test_an_outside_method_is_found_by_name_and_passes_the_contract(tmp_path: Path) -> None:
    install(tmp_path, "peak_weight", METHOD.format(name="peak_weight"))
    (tmp_path / "test_peak_weight.py").write_text(CONTRACT)
    ran = python(
        tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir=."
    )
    assert ran.returncode == 0, ran.stdout
    assert "failed" not in ran.stdout
    assert int(ran.stdout.split(" passed")[0].split()[-1]) > 70


@pytest.mark.integration
def test_the_contract_catches_a_method_that_breaks_it(tmp_path: Path) -> None:
    broken = METHOD.format(name="peak_weight").replace(
        "return filters.weight.abs()", "filters.weight.mul_(2)\n        return filters.weight.abs()"
    )
    install(tmp_path, "peak_weight", broken)
    (tmp_path / "test_peak_weight.py").write_text(CONTRACT)
    ran = python(
        tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "-k", "plain"
    )
    assert ran.returncode == 1
    assert "test_the_network_is_left_as_found_unless_trained[plain]" in ran.stdout


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (METHOD.format(name="filter_norm"), "belongs to methods.criteria.filter_norm.FilterNorm"),
        (METHOD.format(name="l1"), "belongs to methods.criteria.filter_norm.FilterNorm"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
    ],
    ids=["takes a name", "takes an alias", "cannot be imported"],
)
def test_an_outside_method_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    install(tmp_path, "peak_weight", code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "peak_weight", raising=False)
    monkeypatch.setattr(methods.base, "_loaded", False)  # as in a process that begins
    with pytest.raises(MethodError) as caught:
        create("l1")
    assert str(caught.value).startswith("The installed package 'peak_weight' offers")
    assert reason in str(caught.value)
