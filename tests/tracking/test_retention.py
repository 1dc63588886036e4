"""Which weights nobody needs, and that nothing else is removed."""

from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.command_line import call, facts
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import Bench, specification
from tests.tracking.hand_made import HandMadeSweep
from tests.tracking.hand_made import specification as hand_made
from tracking.artifacts import ArtifactStore
from tracking.places import Role
from tracking.records import TrialState
from tracking.retention import remove, unneeded
from workers.results import Report
from workers.settings import TrialSpec


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def add(made: HandMadeSweep, store: ArtifactStore, name: str, role: str, **more: Any) -> None:
    path = store.write_bytes(f"weights/{name}.safetensors", name.encode())
    made.add(role, "l1", spec={"kind": "prune"}, weights=name, artifacts={"weights": path}, **more)


def names(made: HandMadeSweep, store: ArtifactStore) -> list[str]:
    found = unneeded(made.ledger, store, [sweep.name for sweep in made.ledger.sweeps()])
    return [Path(file.path).stem for file in found]


def test_a_search_is_needed_until_its_winner_was_re_run(
    tmp_path: Path, store: ArtifactStore
) -> None:
    made = HandMadeSweep(tmp_path, hand_made("l1"))
    add(made, store, "proposal", "search", index=0, test=None)
    add(made, store, "trained", "finalist", index=0, test=None)
    assert names(made, store) == []
    add(made, store, "first", "confirm", index=1, test=90.0)
    made.add("confirm", "l1", index=2, state=TrialState.PENDING)
    assert names(made, store) == []
    for trial in made.ledger.trials(1, TrialState.PENDING):
        made.writer.cancel([trial.id], "not wanted")
    assert names(made, store) == ["proposal", "trained"]
    made.ledger.close()


def test_what_is_listed_is_removed_only_when_told(tmp_path: Path, store: ArtifactStore) -> None:
    made = HandMadeSweep(tmp_path, hand_made("l1"))
    add(made, store, "proposal", "search", index=0, test=None)
    add(made, store, "first", "confirm", index=1, test=90.0)
    made.ledger.close()
    listed = facts("gc", "by-hand", "--store", tmp_path)
    assert [Path(f["path"]).stem for f in listed["files"]] == ["proposal"]
    assert listed["bytes"] == len("proposal")
    assert store.files("weights") == ["first.safetensors", "proposal.safetensors"]
    text = call("gc", "--all", "--store", tmp_path).stdout
    assert "--delete does that" in " ".join(text.split())
    assert facts("gc", "--all", "--delete", "--store", tmp_path)["deleted"]
    assert store.files("weights") == ["first.safetensors"]
    assert facts("gc", "--all", "--delete", "--store", tmp_path)["files"] == []
    gone = call("export", "by-hand", "1", "--to", tmp_path / "x", "--store", tmp_path)
    assert gone.exit_code == 2
    assert "`prunesweep gc`" in gone.stderr


def test_a_sweep_or_all_must_be_named(tmp_path: Path) -> None:
    for words in ([], ["sweep", "--all"]):
        assert call("gc", *words, "--store", tmp_path).exit_code == 2


def test_a_file_that_another_sweep_needs_stays(tmp_path: Path, store: ArtifactStore) -> None:
    made = HandMadeSweep(tmp_path, hand_made("l1"))
    add(made, store, "both", "search", index=0, test=None)
    add(made, store, "first", "confirm", index=1, test=90.0)
    assert names(made, store) == ["both"]
    same = {"weights": "weights/both.safetensors"}
    made.add("control", "random", index=1, test=90.0, artifacts=same)
    assert names(made, store) == []
    made.ledger.close()


def test_beside_a_running_driver_nothing_goes_that_is_needed_in_the_end(
    tmp_path: Path, store: ArtifactStore
) -> None:
    (tmp_path / "other").mkdir()
    undisturbed, swept = Bench(tmp_path), Bench(tmp_path / "other")
    undisturbed.drive(specification())
    removed: set[str] = set()

    def keeping_weights(spec: TrialSpec, report: Report) -> dict[str, Any]:
        path = store.write_bytes(f"weights/{spec.uid}.safetensors", b"weights")
        return {**simulate(spec, report), "artifacts": {"weights": path}}

    def collect(_log: object) -> bool:
        found = unneeded(swept.ledger, store, [swept.name])
        remove(store, found)
        removed.update(file.path for file in found)
        return False

    backend = SeededBackend(slots=2, runner=keeping_weights)
    assert swept.drive(specification(), backend, stop_when=collect).over
    assert swept.table() == undisturbed.table()
    assert removed
    for entry in swept.entries():
        path = f"weights/{swept.trial(entry).uid}.safetensors"
        assert store.exists(path) is (path not in removed)
        assert path not in removed or entry.place.role in {Role.SEARCH, Role.FINALIST}
