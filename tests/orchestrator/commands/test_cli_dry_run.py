"""``run --dry-run``: the trial matrix against what the ledger holds, with nothing written."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.specification.loading import load_spec
from tests.orchestrator.command_line import call, facts, write_spec
from tests.tracking.hand_made import result
from tests.workers.data.test_sources import fill
from tracking import Place, Role
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def begin(folder: Path, **changes: Any) -> tuple[Ledger, SweepWriter, dict[str, Any]]:
    """Enter the tiny sweep into a ledger, as a driver does."""
    spec = load_spec(write_spec(folder, **changes))
    ledger = Ledger.open(f"sqlite:///{folder}/ledger.db")
    ledger.create_sweep(spec.name, spec.model_dump(mode="json"), spec.spec_hash)
    stored = spec.model_dump(mode="json")
    return ledger, ledger.take_over(spec.name, "test"), stored


def run(
    writer: SweepWriter, stored: dict[str, Any], role: str, arm: str, target: str, **more: Any
) -> None:
    """Complete one trial of the sweep."""
    kind = "latency" if role == "latency" else "prune"
    spec = {key: stored[key] for key in ("model", "data", "recipe")} | {"kind": kind}
    entry = Place(Role(role), arm=arm, target=target, index=1)
    _, trial = writer.want(entry, f"{role}-{arm}-{target}", spec)
    writer.complete(trial.id, writer.start(trial.id, "node", 1), result(90.0, **more))


def line(found: dict[str, Any], role: str) -> dict[str, Any]:
    (only,) = (entry for entry in found["lines"] if entry["role"] == role)
    return {str(key): value for key, value in only.items()}


class TestDryRun:
    def test_says_what_would_run_and_writes_nothing(self, tmp_path: Path) -> None:
        spec = write_spec(tmp_path, recipe={"epochs": 3}, search={"trials": 5})
        before = contents(tmp_path)
        found = facts("run", spec, "--dry-run", "--store", tmp_path / "store")
        assert [(e["role"], e["trials"], e["epochs"]) for e in found["lines"]] == [
            ("baseline", 1, 3),
            ("search", 5, 0),
            ("finalist", 4, 3),
            ("confirm", 2, 3),
            ("latency", 1, 0),
        ]
        assert (found["trials"], found["to_run"], found["epochs_to_run"]) == (13, 13, 21)
        assert found["images_to_run"] == 21 * 180
        assert (found["ledger"], found["estimate"]) == (None, None)
        assert contents(tmp_path) == before
        assert not (tmp_path / "store").exists()

    def test_says_how_much_can_go(self, tmp_path: Path) -> None:
        spec = write_spec(tmp_path, search={"trials": 1, "max_ratio": 0.5})
        arguments = ("run", spec, "--dry-run", "--store", tmp_path / "store")
        prunable, inspected = facts(*arguments)["prunable"], facts("inspect", spec)
        share = inspected["policies"]["inside_blocks"]["macs_share"]
        assert (prunable["policy"], prunable["macs_share"]) == ("inside_blocks", share)
        assert f"At most {share:.1%} of the MACs can go" in call(*arguments).stdout

    def test_advises_to_measure_where_nothing_is_known(self, tmp_path: Path) -> None:
        text = call("run", write_spec(tmp_path), "--dry-run", "--store", tmp_path).stdout
        assert "prunesweep doctor" in text
        assert "3 epochs in all x 180 images = 540 images" in text

    def test_counts_what_the_ledger_holds_and_estimates_from_it(self, tmp_path: Path) -> None:
        ledger, writer, stored = begin(tmp_path, recipe={"epochs": 2}, resources={"workers": 2})
        run(writer, stored, "baseline", "", "", seconds_total=20.0)
        run(writer, stored, "confirm", "l1", "macs-50%", seconds_total=40.0)
        run(writer, stored, "latency", "l1", "macs-50%", seconds_total=7.0)
        ledger.close()
        before = contents(tmp_path)
        found = facts("run", tmp_path / "sweep.yaml", "--dry-run", "--store", tmp_path)
        assert line(found, "confirm")["completed"] == line(found, "confirm")["to_run"] == 1
        assert line(found, "baseline")["to_run"] == line(found, "latency")["to_run"] == 0
        assert found["estimate"]["seconds_per_epoch"] == 15.0  # median of 10 and 20
        assert found["estimate"]["wall_seconds"] == 15.0  # one trial of 2 epochs, 2 workers
        assert found["estimate"]["from_trials"] == 2
        assert contents(tmp_path) == before
        text = call("run", tmp_path / "sweep.yaml", "--dry-run", "--store", tmp_path).stdout
        assert "about 15 s on 2 worker(s)" in text
        assert "Test CPU" in text

    def test_says_what_a_method_computes_on_images_of_its_own(self, tmp_path: Path) -> None:
        arms = ["l1", {"method": "functionality", "settings": {"am_steps": 5}}]
        spec = write_spec(tmp_path, arms=arms)
        found = facts("run", spec, "--dry-run", "--store", tmp_path / "store")
        assert found["images_made"] == {"functionality": 5 * (64 + 64 + 128)}
        text = call("run", spec, "--dry-run", "--store", tmp_path / "store").stdout
        assert "functionality: 1,280 more image passes before it can choose" in text

    def test_another_network_says_nothing_of_this_one(self, tmp_path: Path) -> None:
        ledger, writer, stored = begin(tmp_path)
        other = {**stored, "model": {"name": "cifar_resnet20", "arguments": {}}}
        run(writer, other, "confirm", "l1", "macs-50%", seconds_total=40.0)
        ledger.close()
        found = facts("run", tmp_path / "sweep.yaml", "--dry-run", "--store", tmp_path)
        assert found["estimate"] is None

    def test_controls_from_scratch_and_points_of_a_front_are_found_on_their_line(
        self, tmp_path: Path
    ) -> None:
        controls = {"dense": False, "random": False, "uniform_l1": False, "scratch": True}
        ledger, writer, stored = begin(tmp_path, controls=controls)
        run(writer, stored, "control", "scratch:l1", "macs-50%")
        ledger.close()
        found = facts("run", tmp_path / "sweep.yaml", "--dry-run", "--store", tmp_path)
        assert line(found, "control")["completed"] == 1
        front = tmp_path / "front"
        front.mkdir()
        ledger, writer, stored = begin(front, targets=None, search={"trials": 2}, name="front")
        run(writer, stored, "confirm", "l1", "front-1")
        ledger.close()
        found = facts("run", front / "sweep.yaml", "--dry-run", "--store", front)
        assert line(found, "confirm")["completed"] == 1

    def test_a_changed_specification_under_the_same_name_is_refused(self, tmp_path: Path) -> None:
        begin(tmp_path)[0].close()
        spec = tmp_path / "sweep.yaml"
        result = call("run", spec, "recipe.epochs=7", "--dry-run", "--store", tmp_path)
        assert result.exit_code == 2
        assert "recipe.epochs: 1 -> 7" in result.stderr

    def test_data_to_be_downloaded_are_left_alone(self, tmp_path: Path) -> None:
        data = {"name": "mnist", "path": str(tmp_path / "images"), "download": True}
        spec = write_spec(tmp_path, data=data)
        found = facts("run", spec, "--dry-run", "--store", tmp_path)
        assert found["images_to_run"] is None
        assert not (tmp_path / "images").exists()

    @pytest.mark.parametrize(
        ("changes", "override", "says"),
        [
            ({"arms": ["l11"]}, "seeds=[1]", ["did you mean 'l1'?", "needs two or more"]),
            ({}, "targets.macs_reduction=0.9999", ["targets"]),
            ({}, "--workers=0", []),
            ({}, "tracking.store=${NO_SUCH_VARIABLE}", ["NO_SUCH_VARIABLE is not set"]),
        ],
    )
    def test_every_mistake_is_shown_and_nothing_written(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        changes: dict[str, Any],
        override: str,
        says: list[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        spec = write_spec(tmp_path, **changes)
        before = contents(tmp_path)
        for more in ([], ["--dry-run"]):
            result = call("run", spec, override, *more)
            assert result.exit_code == 2
            assert result.stdout == ""
            assert [text for text in says if text not in result.stderr] == []
        assert contents(tmp_path) == before

    def test_options_stand_for_overrides(self, tmp_path: Path) -> None:
        spec = write_spec(tmp_path)
        found = facts("run", spec, "--workers", "3", "--dry-run", "--store", tmp_path)
        assert found["workers"] == 3
        bad = call("run", spec, "--address", "not an address", "--dry-run", "--store", tmp_path)
        assert bad.exit_code == 2
        assert "resources.address" in bad.stderr

    def test_what_is_printed_is_json(self, tmp_path: Path) -> None:
        result = call("run", write_spec(tmp_path), "--dry-run", "--json", "--store", tmp_path)
        assert json.loads(result.stdout)["sweep"] == "tiny"


def test_images_are_counted_by_class_and_names_never_reach_the_terminal(tmp_path: Path) -> None:
    fill(tmp_path / "photos", classes=("cat", "dog\x1b[2J"))
    (tmp_path / "photos" / "cat" / "old.gif").touch()
    data = {"name": "image_folder", "path": str(tmp_path / "photos")}
    spec = write_spec(tmp_path, data=data, model="cifar_resnet20")
    shown = call("run", spec, "--dry-run", "--store", tmp_path / "store").stdout
    assert "cat 7+1+2" in shown
    assert r"dog\x1b[2J 7+1+2" in shown
    assert "left out: 1 .gif" in shown
    assert "\x1b" not in shown
