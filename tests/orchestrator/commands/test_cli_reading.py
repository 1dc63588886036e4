"""Verbs that read: what they say of a hand-made ledger, and that they create and leak nothing."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cluster.connection import ClusterUnreachableError
from orchestrator.commands.cli import app
from orchestrator.commands.exits import exit_code
from orchestrator.commands.lookup import RecordsAt, command, find_sweep, find_trial
from orchestrator.errors import SpecError, SweepFailedError
from orchestrator.specification.settings import TrackingSettings
from orchestrator.sweep import Sweep
from search_spaces import TargetInfeasibleError
from tests.orchestrator.command_line import call, facts, write_spec
from tests.tracking.hand_made import HandMadeSweep, specification
from tracking import FencedError, OldLedgerError, Place, Role, TrialState
from tracking.processes import this_process
from workers.errors import DataError

HALF = "macs-50%"


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[HandMadeSweep]:
    """Two arms: l1 searched and re-run, fpgm with a failure; one trial pending."""
    made = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
    made.baseline()
    made.add("search", "l1", index=0, test=None, val=95.0)
    made.add("search", "l1", index=1, test=None, val=93.0)
    made.add("confirm", "l1", index=1, test=90.0, val=91.5)
    made.add("confirm", "l1", index=2, test=90.0, val=92.5)
    made.add("search", "fpgm", index=0, state=TrialState.FAILED, cause="DivergedError: lost it")
    made.add("search", "fpgm", index=1, state=TrialState.PENDING)
    yield made
    made.ledger.close()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class TestStatus:
    def test_lists_every_sweep_with_its_counts(self, sweep: HandMadeSweep, tmp_path: Path) -> None:
        sweep.ledger.create_sweep("other", specification("l1"), "hash")
        first, second = facts("status", "--store", tmp_path)
        assert (first["name"], first["trials"]["completed"]) == ("by-hand", 5)
        assert (first["trials"]["failed"], first["trials"]["pending"]) == (1, 1)
        assert (second["name"], sum(second["trials"].values())) == ("other", 0)
        text = call("status", "--store", tmp_path).stdout
        assert "1 pending, 5 completed, 1 failed" in text
        assert "no trials yet" in text

    def test_the_best_is_that_of_the_re_runs_and_the_trial_that_is_exported(
        self, sweep: HandMadeSweep, tmp_path: Path
    ) -> None:
        (best,) = facts("status", "by-hand", "--store", tmp_path)["best"]
        assert (best["arm"], best["target"], best["role"]) == ("l1", HALF, "confirm")
        assert (best["val_accuracy"], best["completed"], best["trial"]) == (92.5, 4, 5)
        text = call("status", "by-hand", "--store", tmp_path).stdout
        assert "92.50" in text
        assert "re-runs" in text
        with find_sweep("by-hand", RecordsAt(store=str(tmp_path))) as found:
            assert find_trial(found, f"best:l1:{HALF}").id == best["trial"]

    def test_before_the_re_runs_are_in_the_best_is_that_of_the_search(self, tmp_path: Path) -> None:
        made = HandMadeSweep(tmp_path, specification("l1"))
        made.add("search", "l1", index=0, test=None, val=93.0)
        made.add("search", "l1", index=1, test=None, val=95.0)
        made.add("confirm", "l1", index=1, state=TrialState.PENDING)
        made.ledger.close()
        (best,) = facts("status", "by-hand", "--store", tmp_path)["best"]
        assert (best["role"], best["trial"]) == ("search", 2)
        assert "search" in call("status", "by-hand", "--store", tmp_path).stdout
        with find_sweep("by-hand", RecordsAt(store=str(tmp_path))) as found:
            assert find_trial(found, f"best:l1:{HALF}").id == best["trial"]

    def test_a_running_trial_is_shown_with_its_last_report(
        self, sweep: HandMadeSweep, tmp_path: Path
    ) -> None:
        entry = Place(Role.CONTROL, arm="dense", index=1)
        _, trial = sweep.writer.want(entry, "uid-running", {})
        attempt = sweep.writer.start(trial.id, "gpu-node", 77)
        now = datetime.now(UTC)
        sweep.writer.report(trial.id, attempt, 1, {"val_accuracy": 50.0}, now)
        sweep.writer.report(trial.id, attempt, 2, {"val_accuracy": 61.0, "loss": float("nan")}, now)
        (running,) = facts("status", "by-hand", "--store", tmp_path)["running"]
        assert (running["trial"], running["node"], running["pid"]) == (trial.id, "gpu-node", 77)
        assert (running["step"], running["values"]) == (2, {"val_accuracy": 61.0, "loss": None})
        text = call("status", "by-hand", "--store", tmp_path).stdout
        assert "control dense #1 on gpu-node" in text

    def test_a_failure_is_shown_with_its_cause_and_the_way_on(
        self, sweep: HandMadeSweep, tmp_path: Path
    ) -> None:
        sweep.writer.set_state("completed")
        found = facts("status", "by-hand", "--store", tmp_path)
        (failure,) = found["failures"]
        assert (failure["arm"], failure["cause"]) == ("fpgm", "DivergedError: lost it")
        assert failure["error"].startswith("Traceback")
        assert found["next"] == f"prunesweep publish by-hand --store {tmp_path}"  # it would recur
        assert "search fpgm macs-50% #0: DivergedError: lost it" in " ".join(
            call("status", "by-hand", "--store", tmp_path).stdout.split()
        )

    @pytest.mark.parametrize(
        ("cause", "helps"),
        [
            ("lost: worker", True),
            ("OutOfMemoryError: CUDA out of memory", True),
            ("RuntimeError: shapes cannot be multiplied", False),  # all of the arm's failed of it
            ("DivergedError: again", False),
        ],
    )
    def test_a_retry_is_advised_where_it_can_help(
        self, sweep: HandMadeSweep, tmp_path: Path, cause: str, helps: bool
    ) -> None:
        for index in range(2):
            sweep.add("search", "bn", index=index, state=TrialState.FAILED, cause=cause)
        sweep.writer.set_state("completed")
        advice = facts("status", "by-hand", "--store", tmp_path)["next"]
        assert advice.startswith("prunesweep retry") == helps

    def test_a_sweep_with_an_arm_that_came_to_nothing_ends_with_1(
        self, sweep: HandMadeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep.add("search", "bn", state=TrialState.FAILED, cause="RuntimeError: no")
        monkeypatch.setattr(Sweep, "run", lambda *_, **__: sweep.compare())
        result = call("run", write_spec(tmp_path), "--store", tmp_path)
        assert "Failed: Every trial of bn failed: RuntimeError: no." in result.stdout
        assert result.exit_code == 1

    def test_what_mlflow_lacks_is_counted(self, sweep: HandMadeSweep, tmp_path: Path) -> None:
        assert facts("status", "by-hand", "--store", tmp_path)["mlflow_lacks"] == 8
        assert "lacks 8 record(s)" in call("status", "by-hand", "--store", tmp_path).stdout

    @pytest.mark.parametrize("alive", [True, False])
    def test_a_driver_that_is_gone_is_noticed(
        self, sweep: HandMadeSweep, tmp_path: Path, alive: bool
    ) -> None:
        process = replace(this_process(), pid=os.getpid() if alive else 2**22 + 1)
        sweep.ledger.take_over("by-hand", "its driver", process=process, by_force=True)
        found = facts("status", "by-hand", "--store", tmp_path)
        assert found["owner_alive"] is alive
        assert (found["next"] is None) is alive
        assert ("is gone" in call("status", "--store", tmp_path).stdout) is not alive


class TestCompare:
    def test_text_goes_to_standard_output(self, sweep: HandMadeSweep, tmp_path: Path) -> None:
        result = call("compare", "by-hand", "--store", tmp_path)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Still to come" in result.stdout

    @pytest.mark.parametrize(
        ("form", "start"), [("text", "by-hand"), ("md", "# by"), ("json", "{"), ("html", "<!doct")]
    )
    def test_every_format_goes_to_a_file(
        self, sweep: HandMadeSweep, tmp_path: Path, form: str, start: str
    ) -> None:
        to = tmp_path / "comparison"
        result = call("compare", "by-hand", "--format", form, "--to", to, "--store", tmp_path)
        assert (result.exit_code, result.stdout) == (0, "")
        assert to.read_text().lower().startswith(start)

    def test_json_is_the_same_by_either_option(self, sweep: HandMadeSweep, tmp_path: Path) -> None:
        one = facts("compare", "by-hand", "--store", tmp_path)
        other = call("compare", "by-hand", "--format", "json", "--store", tmp_path)
        assert one == json.loads(other.stdout)
        assert one["sweep"] == "by-hand"

    def test_a_file_that_cannot_be_written_is_named(
        self, sweep: HandMadeSweep, tmp_path: Path
    ) -> None:
        to = tmp_path / "nowhere" / "report.md"
        result = call("compare", "by-hand", "--format", "md", "--to", to, "--store", tmp_path)
        assert result.exit_code == 2
        assert f"{to} cannot be written: No such file or directory" in result.stderr


class TestExport:
    @pytest.mark.parametrize(
        ("trial", "says"),
        [
            ("99", "there is none"),
            ("nothing", "there is none"),
            ("uid-", "7 uids begin so"),
            ("7", "it is pending and has no network"),
            ("best:l2:macs-50%", "there are: l1:macs-50%"),
            ("best:l1", "there are: l1:macs-50%"),
        ],
    )
    def test_a_trial_that_cannot_be_exported_is_refused(
        self, sweep: HandMadeSweep, tmp_path: Path, trial: str, says: str
    ) -> None:
        to = tmp_path / "exported"
        result = call("export", "by-hand", trial, "--to", to, "--store", tmp_path)
        assert result.exit_code == 2
        assert says in result.stderr
        assert not to.exists()


class TestPlaces:
    @pytest.mark.parametrize(
        "verb",
        [
            ["status"],
            ["status", "x"],
            ["compare", "x"],
            ["resume", "x"],
            ["retry", "x"],
            ["publish", "x"],
            ["extend", "x", "--trials", "+1"],
            ["export", "x", "1", "--to", "exported"],
            ["ui"],
        ],
    )
    def test_a_store_that_is_not_there_is_not_created(
        self, tmp_path: Path, verb: list[str]
    ) -> None:
        result = call(*verb, "--store", tmp_path / "typo")
        assert result.exit_code == 2
        assert f"{tmp_path / 'typo'}" in result.stderr
        assert files(tmp_path) == []

    def test_an_unknown_sweep_is_told_from_its_nearest(
        self, sweep: HandMadeSweep, tmp_path: Path
    ) -> None:
        result = call("status", "by-hnd", "--store", tmp_path)
        assert result.exit_code == 2
        assert "did you mean 'by-hand'?" in result.stderr

    def test_store_and_ledger_come_from_the_environment(
        self, sweep: HandMadeSweep, tmp_path: Path
    ) -> None:
        by_store = call("status", PRUNESWEEP_STORE=str(tmp_path))
        by_ledger = call("status", PRUNESWEEP_LEDGER=f"sqlite:///{tmp_path}/ledger.db")
        assert "by-hand" in by_store.stdout
        assert "by-hand" in by_ledger.stdout

    def test_a_password_is_not_taken_from_the_command_line(self, tmp_path: Path) -> None:
        result = call("status", "--ledger", "postgresql://me:hush@db/x")
        assert result.exit_code == 2
        assert result.stderr.startswith("--ledger: has a password in it")
        assert "hush" not in result.output

    def test_a_password_from_the_environment_is_not_printed(self) -> None:
        result = call("status", "x", PRUNESWEEP_LEDGER="postgresql://me:hush@127.0.0.1:1/x")
        assert result.exit_code == 2
        assert "me:***@127.0.0.1:1" in result.stderr
        assert "hush" not in result.output

    def test_an_address_from_the_environment_is_kept_by_its_name(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRUNESWEEP_LEDGER", "postgresql://me:hush@db/x")
        place = RecordsAt(ledger="postgresql://me:hush@db/x")
        tracking = place.tracking(TrackingSettings(store="/runs"))
        assert (tracking.ledger, tracking.store) == ("${PRUNESWEEP_LEDGER}", "/runs")
        assert tracking.ledger_url == "postgresql://me:hush@db/x"
        assert place.overrides == ("tracking.ledger='${PRUNESWEEP_LEDGER}'",)
        assert command("resume", "x", tracking) == "prunesweep resume x --store /runs"

    def test_a_moved_store_is_read_where_it_is(self) -> None:
        stored = TrackingSettings(store="/old", ledger="sqlite:////old/ledger.db")
        tracking = RecordsAt(store="/new").tracking(stored)
        assert tracking.ledger_url == "sqlite:////new/ledger.db"
        assert tracking.artifacts_url == "/new/artifacts"

    def test_the_way_on_names_a_ledger_of_its_own(self) -> None:
        tracking = TrackingSettings(store="/my runs", ledger="postgresql://me:${PW}@db/x")
        before, _, after = command("resume", "x", tracking).partition(" ")
        assert before == 'PRUNESWEEP_LEDGER="postgresql://me:${PW}@db/x"'
        assert after == "prunesweep resume x --store '/my runs'"

    def test_a_stored_variable_that_is_not_set_is_named(self, tmp_path: Path) -> None:
        spec = {**specification("l1"), "tracking": {"mlflow": "${NO_SUCH_VARIABLE}"}}
        HandMadeSweep(tmp_path, spec).ledger.close()
        assert call("status", "by-hand", "--store", tmp_path).exit_code == 0
        result = call("publish", "by-hand", "--store", tmp_path)
        assert result.exit_code == 2
        assert "tracking.mlflow: environment variable NO_SUCH_VARIABLE is not set" in result.stderr

    def test_a_specification_of_another_version_is_refused(
        self, sweep: HandMadeSweep, tmp_path: Path
    ) -> None:
        result = call("resume", "by-hand", "--store", tmp_path)
        assert result.exit_code == 2
        assert "name: is required" in result.stderr


class TestMethods:
    def test_every_method_tells_its_settings_and_source(self) -> None:
        found = {entry["name"]: entry for entry in facts("methods")}
        norm = found["filter_norm"]
        assert "arXiv:1608.08710" in norm["source"]
        (p, *_) = norm["settings"]
        assert (p["name"], p["default"], p["values"]) == ("p", 1.0, "number, above 0")
        assert p["meaning"].startswith("Order of the norm")
        assert norm["aliases"]["l2"] == {"p": 2.0}

    def test_a_schedule_shows_the_settings_it_stands_for(self) -> None:
        (iterative,) = facts("methods", "iterative")
        settings = {entry["name"]: entry["default"] for entry in iterative["settings"]}
        assert (settings["share"], settings["rounds"]) == ("stairs", 3)

    def test_an_alias_leads_to_its_method(self) -> None:
        assert call("methods", "fpgm").stdout.startswith("geometric_median (method)")

    def test_an_unknown_method_is_told_from_its_nearest(self) -> None:
        result = call("methods", "tailor")
        assert result.exit_code == 2
        assert "did you mean 'taylor'?" in result.stderr

    def test_networks_are_listed_one_a_line(self) -> None:
        lines = call("models").stdout.splitlines()
        assert "digits_net" in lines
        assert "torchvision/resnet18" in lines
        assert facts("models")["models"][: len(lines) - 1] == lines[:-1]


class TestDoctor:
    def test_a_link_that_does_not_hold_ends_with_1(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        data = {"name": "image_folder", "path": str(tmp_path / "empty")}
        arguments = ("doctor", write_spec(tmp_path, data=data), "--store", tmp_path / "store")
        text, found = call(*arguments), call(*arguments, "--json")
        assert (text.exit_code, found.exit_code) == (1, 1)
        assert text.stdout.startswith("BROKEN data, network, checkpoint")
        broken, *others = json.loads(found.stdout)
        assert (broken["ok"], str(tmp_path / "empty") in broken["detail"]) == (False, True)
        assert [other["name"] for other in others if not other["ok"]] == []


class TestExits:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (SpecError([]), 2),
            (OldLedgerError("sqlite:///x.db", "0001", "0002"), 2),
            (ClusterUnreachableError("auto", "none"), 2),
            (SweepFailedError("x", "it broke"), 1),
            (FencedError("x", 1, 2, "another"), 1),
            (TargetInfeasibleError("macs", 0.9, (0.0, 0.5)), 2),
            (DataError("no images"), 2),
            (KeyError("a mistake of our own"), None),
        ],
    )
    def test_every_kind_of_error_has_its_code(self, error: Exception, code: int | None) -> None:
        assert exit_code(error) == code

    def test_debug_shows_where_an_error_comes_from(self, tmp_path: Path) -> None:
        result = call("--debug", "status", "--store", tmp_path / "typo")
        assert type(result.exception).__name__ == "NoLedgerError"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["extend", "x"], "say what to add"),
            (["extend", "x", "--seeds", "4,five"], "'five' is not a whole number"),
            (["resume", "x", "--workers", "0"], "greater than or equal to 1"),
            (["compare", "x", "--format", "pdf"], "pdf"),
        ],
    )
    def test_wrong_usage_ends_with_2(self, arguments: list[str], says: str) -> None:
        result = call(*arguments)
        assert result.exit_code == 2
        assert says in " ".join(result.stderr.split())

    def test_completion_knows_the_verbs(self) -> None:
        asked = {"COMP_WORDS": "prunesweep stat", "COMP_CWORD": "1"}
        environment = {"_PRUNESWEEP_COMPLETE": "complete_bash", **asked}
        result = CliRunner().invoke(app, [], env=environment, prog_name="prunesweep")
        assert result.stdout.split() == ["status"]
