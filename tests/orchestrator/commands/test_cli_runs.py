"""The command line for real: sweeps of seconds in processes of their own, with Ray and MLflow."""

import json
import os
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands.lookup import NoLedgerError, open_existing
from tests.orchestrator.command_line import (
    PATIENCE_S,
    call,
    ended,
    facts,
    finish,
    press_ctrl_c,
    started,
    write_spec,
)
from tracking import SweepState, TrialState
from workers.rebuild import load_pruned

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a tiny sweep has run to its end; what it printed is in ``out`` and ``err``."""
    folder = tmp_path_factory.mktemp("sweep")
    code, out, err = ended(folder, "run", write_spec(folder))
    assert code == 0, err
    (folder / "out").write_text(out)
    (folder / "err").write_text(err)
    return folder


@pytest.fixture
def store(folder: Path) -> Path:
    return folder / "prunesweep-data"


@pytest.mark.slow  # test_smoke runs a sweep from the command line in every run
class TestFinishedSweep:
    def test_facts_are_on_standard_output_and_progress_on_standard_error(
        self, folder: Path, store: Path
    ) -> None:
        out, err = (folder / "out").read_text(), (folder / "err").read_text()
        assert out.startswith("tiny (completed)")
        report, ui = out.splitlines()[-2:]
        assert Path(report.removeprefix("Report: ")).read_text().startswith("<!doctype html>")
        assert ui == f"MLflow: prunesweep ui tiny --store {store}"
        data, *_, progress = err.splitlines()
        assert data.startswith("Data: 180 training")
        assert progress.startswith("tiny: 4 of 4 done")
        assert "Traceback" not in err

    def test_status_knows_all_of_it(self, store: Path) -> None:
        found = facts("status", "tiny", "--store", store)
        assert (found["state"], found["trials"]["completed"]) == ("completed", 4)
        assert (found["mlflow_lacks"], found["failures"], found["next"]) == (0, [], None)

    def test_running_it_again_finds_everything_done(self, folder: Path, store: Path) -> None:
        before = facts("compare", "tiny", "--store", store)
        code, out, err = ended(folder, "run", "sweep.yaml", "--json", "--quiet")
        assert (code, err) == (0, "")
        again = json.loads(out)
        assert again["comparison"] == before
        with open_existing(f"sqlite:///{store}/ledger.db") as ledger:
            attempts = ledger.attempts(ledger.sweep("tiny").id)
        assert {attempt.n for attempt in attempts} == {1}

    def test_the_best_network_is_exported_and_loads(self, store: Path, tmp_path: Path) -> None:
        to = tmp_path / "network"
        found = facts("export", "tiny", "best:l1:macs-50%", "--to", to, "--store", store)
        (best,) = facts("status", "tiny", "--store", store)["best"]
        assert (found["trial"], found["uid"]) == (best["trial"], best["uid"])
        assert not load_pruned(to).training
        by_uid = facts("export", "tiny", best["uid"][:12], "--to", tmp_path / "b", "--store", store)
        assert by_uid["trial"] == best["trial"]
        assert facts("export", "tiny", str(best["trial"]), "--to", to, "--store", store)["files"]
        for taken in (store / "ledger.db", Path("/dev/null"), store):
            result = call("export", "tiny", str(best["trial"]), "--to", taken, "--store", store)
            assert result.exit_code == 2
            assert "Traceback" not in result.stderr

    def test_a_latency_has_no_network_to_export(self, store: Path, tmp_path: Path) -> None:
        with open_existing(f"sqlite:///{store}/ledger.db") as ledger:
            (entry,) = (e for e in ledger.entries(1) if e.place.role == "latency")
        number = str(entry.trial_id)
        result = call("export", "tiny", number, "--to", tmp_path / "x", "--store", store)
        assert result.exit_code == 2
        assert "leaves no network" in result.stderr

    def test_publishing_finds_nothing_left(self, folder: Path, store: Path) -> None:
        code, out, err = ended(folder, "publish", "tiny", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert (found["sent"], found["left"], found["trouble"]) == (0, 0, None)

    def test_the_ui_answers_until_ctrl_c(self, folder: Path) -> None:
        with started(folder, "ui") as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert answer.status == 200
            press_ctrl_c(process)
            code, _, err = finish(process)
        assert code == 0
        assert "Traceback" not in err
        with pytest.raises(OSError):
            urllib.request.urlopen(url, timeout=5)

    def test_seeds_are_added_to_what_has_run(self, folder: Path, store: Path) -> None:
        code, out, err = ended(folder, "extend", "tiny", "--seeds", "7", "--json", "--quiet")
        assert code == 0, err
        assert json.loads(out)["comparison"]["seeds"] == [1, 2, 7]
        assert facts("status", "tiny", "--store", store)["trials"]["completed"] == 5

    @pytest.mark.parametrize(
        ("option", "value", "says"),
        [
            ("--trials", "0", "search.trials: is 0; must be at least 1"),
            ("--seeds", "2", "seeds: names a seed twice"),
        ],
    )
    def test_what_cannot_be_added_is_refused(
        self, store: Path, option: str, value: str, says: str
    ) -> None:
        result = call("extend", "tiny", option, value, "--store", store)
        assert (result.exit_code, result.stdout) == (2, "")
        assert says in result.stderr


def test_ctrl_c_leaves_a_sweep_that_resumes(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, search={"trials": 4}, tracking={"mlflow": "off"})
    store = tmp_path / "prunesweep-data"
    with started(tmp_path, "run", spec) as process:
        _until_completed(2, store, process)
        press_ctrl_c(process)
        code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == f"Stopped. To go on: prunesweep resume tiny --store {store}"
    assert "Traceback" not in err
    stopped = facts("status", "tiny", "--store", store)
    assert (stopped["state"], stopped["trials"]["running"]) == ("interrupted", 0)
    assert stopped["next"] == f"prunesweep resume tiny --store {store}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, out, err = ended(elsewhere, "resume", "tiny", "--store", store, "--json")
    assert code == 0, err
    resumed = facts("status", "tiny", "--store", store)
    assert (resumed["state"], resumed["trials"]["completed"]) == ("completed", 12)
    with open_existing(f"sqlite:///{store}/ledger.db") as ledger:
        completed = [a for a in ledger.attempts(1) if a.outcome == "completed"]
    assert len(completed) == len({attempt.trial_id for attempt in completed}) == 12
    assert os.listdir(elsewhere) == []


@pytest.mark.slow
def test_a_sweep_that_fails_ends_with_1_and_is_retried(tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.touch()
    model = {"name": "tests.orchestrator.flaky:FlakyNet", "arguments": {"trouble": str(trouble)}}
    spec = write_spec(tmp_path, model=model, tracking={"mlflow": "off"})
    code, out, err = ended(tmp_path, "run", spec)
    assert (code, out) == (1, "")
    assert "The sweep 'tiny' cannot go on: The dense baseline could not be trained" in err
    store = tmp_path / "prunesweep-data"
    failed: dict[str, Any] = facts("status", "tiny", "--store", store)
    assert failed["state"] == "failed"
    assert "the network is in trouble" in failed["failures"][0]["cause"]
    assert failed["next"] == f"prunesweep retry tiny --store {store}"
    trouble.unlink()
    code, out, err = ended(tmp_path, "retry", "tiny")
    assert code == 0, err
    assert out.startswith("tiny (completed)")


def test_a_cluster_that_is_not_there_ends_with_2_and_nothing_written(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    code, out, err = ended(tmp_path, "run", spec, "--address", "127.0.0.1:1")
    assert (code, out) == (2, "")
    says = err.splitlines()[-1]
    assert says.startswith("resources.address: no Ray cluster answers at '127.0.0.1:1'")
    assert os.listdir(tmp_path) == ["sweep.yaml"]


def _until_completed(count: int, store: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until ``count`` trials have completed, and ``process`` still runs."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, finish(process)
        with suppress(NoLedgerError), open_existing(f"sqlite:///{store}/ledger.db") as ledger:
            found = ledger.sweeps()
            if found and ledger.counts(found[0].id)[TrialState.COMPLETED] >= count:
                assert found[0].state is SweepState.RUNNING
                return
        time.sleep(0.2)
    raise TimeoutError(f"not {count} trials within {PATIENCE_S} s")
