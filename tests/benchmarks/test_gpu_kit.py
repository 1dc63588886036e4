"""The kit for a GPU, run in miniature on the CPU where nothing of a driver can be imported."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from benchmarks.gpu.__main__ import STAGES, main
from benchmarks.gpu.correct import problems_of
from benchmarks.gpu.mps import MpsUnavailableError, mps
from benchmarks.gpu.rows import stored, train
from benchmarks.gpu.setting import Setting
from benchmarks.loops import Case
from tests.checkout import ROOT
from workers.settings import Recipe

#: What a worker must do without: none of it is installed on a machine that is only lent.
OF_A_DRIVER = ("ray", "mlflow", "optuna", "sqlalchemy", "alembic", "sklearn", "pandas")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    blocked = folder / "blocked"
    blocked.mkdir()
    for name in OF_A_DRIVER:
        (blocked / f"{name}.py").write_text(f"raise ImportError('{name} is not for a worker')\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.gpu", *STAGES, "--miniature"),
            *("--results", str(folder), "--page", str(folder / "gpu.md")),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(blocked), str(ROOT))),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.integration
@pytest.mark.timeout(900)  # of CPU it takes a minute
class TestMiniature:
    def result(self, results: Path, stage: str) -> dict[str, Any]:
        stored = json.loads((results / f"{stage}.json").read_text())
        assert stored["miniature"]
        assert stored["left_out"] == []
        found: dict[str, Any] = stored["result"]
        return found

    def test_every_method_is_held_against_the_cpu(self, results: Path) -> None:
        found = self.result(results, "correct")
        assert found["problems"] == []
        assert {"filter_norm", "weight_gates", "stripe_wise", "ghfp"} == found["methods"].keys()
        for row in found["methods"].values():  # the device is the CPU
            assert row["other_filters"] == row["loss_of_two_runs"] == row["loss_when_resumed"] == 0
            assert row["device_accuracy"] > 50

    def test_a_session_is_held_against_a_bare_loop(self, results: Path) -> None:
        found = self.result(results, "worker")
        assert {(row["shape"], row["precision"]) for row in found["rows"]} == {
            (shape, precision)
            for shape in ("dense", "half of the MACs")
            for precision in ("float32", "bfloat16")
        }
        assert all(row["session_images_per_s"] > 0 for row in found["rows"])

    def test_processes_train_beside_each_other(self, results: Path) -> None:
        found = self.result(results, "packing")
        assert [row["processes"] for row in found["rows"]] == [2]
        assert found["rows"][0]["trials_per_hour"] > 0
        assert "CUDA" in found["without_mps"]

    def test_pruned_networks_are_timed_beside_the_dense_one(self, results: Path) -> None:
        rows = self.result(results, "latency")["rows"]
        assert {(row["how"], row["batch"]) for row in rows} == {
            (how, batch) for how in ("eager", "compiled") for batch in (1, 4)
        }
        assert all(row[name]["median_ms"] > 0 for row in rows for name in ("filters", "stripes"))

    def test_published_rows_have_a_dense_control_of_their_own(self, results: Path) -> None:
        found = self.result(results, "rows")
        assert {"dense control 1", "L1 1", "FPGM 1", "SCOP 1"} <= found["rows"].keys()
        assert found["rows"]["L1 1"]["macs_reduction"] == pytest.approx(0.5, abs=0.02)
        kept = [path.name for path in (results / "artifacts" / "weights").iterdir()]
        assert len(kept) == 2  # the checkpoint and the baseline: what trials start from

    def test_the_page_has_every_stage_and_says_that_it_is_a_miniature(self, results: Path) -> None:
        page = (results / "gpu.md").read_text()
        assert page.count("\n## ") == len(STAGES)
        assert "measures nothing" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_stages_are_skipped_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "worker", "--results", str(tmp_path / "results")])
    assert main() == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def test_a_trial_for_which_the_time_ran_out_goes_on_in_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, two = tmp_path / "one", tmp_path / "two"
    enough = Setting(device=torch.device("cpu"), folder=one, artifacts=one, miniature=True)
    short = replace(enough, seconds=0.0, folder=two, artifacts=two)
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.05, augmentation="shift_flip")
    case = Case(model=enough.model(""), data=enough.cifar(), recipe=recipe)
    spec = case.spec(weights=enough.published())
    short.published()

    train("trial", spec, enough)
    train("trial", spec, short)
    assert stored(short, "trial", spec) is None
    assert short.node().artifacts.files(f"checkpoints/{spec.uid}")
    train("trial", spec, replace(short, seconds=100.0))

    at_once, in_two = stored(enough, "trial", spec), stored(short, "trial", spec)
    assert at_once is not None
    assert in_two is not None
    assert at_once["test_accuracy"] == in_two["test_accuracy"]
    assert stored(short, "trial", spec.model_copy(update={"seed": 7})) is None


def test_a_stage_leaves_out_what_would_not_end_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("benchmarks.gpu.setting.time.time", lambda: now[0])
    cpu = torch.device("cpu")
    setting = Setting(
        device=cpu, folder=tmp_path, artifacts=tmp_path, seconds=100.0, started=now[0]
    )
    done = []
    for name, part in setting.in_time([("a", 1), ("b", 2), ("c", 3)]):
        done.append(part)
        now[0] += 60.0
        assert name not in setting.left_out
    assert done == [1]
    assert setting.left_out == ["b", "c"]


class TestProblems:
    ROW: ClassVar[dict[str, Any]] = {
        "method": "filter_norm",
        "learns_to_choose": False,
        "other_filters": 0.0,
        "test_images": 600,
        "cpu_accuracy": 80.0,
        "device_accuracy": 80.5,
        "bfloat16_accuracy": 79.5,
        "loss": 0.5,
        "loss_of_two_runs": 0.001,
        "loss_when_resumed": 0.002,
    }

    def test_noise_is_none(self) -> None:
        assert problems_of(self.ROW) == []

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"other_filters": 0.01}, "filters"),
            ({"method": "taylor", "other_filters": 0.2}, "filters"),
            ({"device_accuracy": 70.0}, "device"),
            ({"bfloat16_accuracy": 70.0}, "bfloat16"),
            ({"loss_when_resumed": 0.1}, "resumed"),
        ],
    )
    def test_what_is_no_noise_is_named(self, change: dict[str, Any], named: str) -> None:
        (problem,) = problems_of({**self.ROW, **change})
        assert named in problem

    def test_methods_that_look_at_images_may_differ_in_a_few_filters(self) -> None:
        assert problems_of({**self.ROW, "method": "taylor", "other_filters": 0.01}) == []


def test_mps_is_for_cuda() -> None:
    with pytest.raises(MpsUnavailableError, match="CUDA"), mps(torch.device("cpu"), wanted=True):
        pass
