import errno
import hashlib
import logging
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import workers.training.trial_checkpoints
from methods import State
from tracking.artifacts import ArtifactStore
from workers.training.trial_checkpoints import (
    Checkpoint,
    CheckpointMismatchError,
    TrialCheckpoints,
    checkpoint_folder,
)

UID = "3f2a"
FOLDER = checkpoint_folder(UID)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "memory":
        return ArtifactStore(f"memory://store-{uuid.uuid4().hex}")
    return ArtifactStore(tmp_path / "a store")


def checkpoint(step: int, **parts: State) -> Checkpoint:
    return Checkpoint(act="recover", first_step=0, step=step, epoch=step // 10, parts=parts)


def attempt(store: ArtifactStore, number: int = 1, *, epochs: int = 1) -> TrialCheckpoints:
    return TrialCheckpoints(store, UID, attempt=number, epochs=epochs)


def steps(store: ArtifactStore) -> list[int]:
    return [int(name.partition("-")[0]) for name in store.files(FOLDER)]


def found(store: ArtifactStore, number: int = 2) -> int | None:
    """Return the step that another attempt would go on from."""
    resume = attempt(store, number).resume
    return resume.step if resume else None


def test_what_was_kept_comes_back(store: ArtifactStore) -> None:
    parts: dict[str, State] = {
        "network": {"a.weight": torch.randn(3, 2).bfloat16(), "count": torch.tensor(7)},
        "method": {"gone": torch.tensor([True, False]), "means": [0.1, 1e-30], "is_frozen": True},
        "trial": {"plan": None, "name/with/slashes": torch.arange(3)},
        "nothing": {},
    }
    attempt(store).write(checkpoint(20, **parts))
    resume = attempt(store, 2).resume
    assert resume is not None
    assert (resume.act, resume.first_step, resume.step, resume.epoch) == ("recover", 0, 20, 2)
    assert {name: {*part} for name, part in resume.parts.items()} == {
        name: {*part} for name, part in parts.items()
    }
    assert resume.parts["method"]["means"] == [0.1, 1e-30]
    assert resume.parts["method"]["is_frozen"] is True
    for name, key in (("network", "a.weight"), ("network", "count"), ("method", "gone")):
        value = resume.parts[name][key]
        assert torch.equal(value, parts[name][key])
        assert value.dtype == parts[name][key].dtype


def test_without_any_a_trial_begins_at_its_beginning(store: ArtifactStore) -> None:
    assert attempt(store).resume is None


def test_the_two_newest_are_kept(store: ArtifactStore) -> None:
    kept = attempt(store)
    for step in (10, 20, 30, 40):
        kept.write(checkpoint(step))
    assert steps(store) == [30, 40]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: bytes([content[0] ^ 1]) + content[1:],
    ],
    ids=["half", "empty", "last bit", "first bit"],
)
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    store: ArtifactStore, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    kept = attempt(store)
    for step in (10, 20):
        kept.write(checkpoint(step, network={"weight": torch.ones(5)}))
    before, newest = (f"{FOLDER}/{name}" for name in store.files(FOLDER))
    store.write_bytes(newest, damage(store.read_bytes(newest)))
    assert found(store) == 10
    assert f"{newest} is passed over: it is torn or damaged" in caplog.text
    store.write_bytes(before, damage(store.read_bytes(before)))
    assert found(store) is None


def test_what_is_torn_does_not_displace_what_is_whole(store: ArtifactStore) -> None:
    first = attempt(store)
    for step in (80, 90):
        first.write(checkpoint(step))
    for name in store.files(FOLDER):
        store.write_bytes(f"{FOLDER}/{name}", b"torn")
    second = attempt(store, 2)
    second.write(checkpoint(10))
    assert steps(store) == [10]
    assert found(store, 3) == 10


class Bomb:
    exploded = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return explode, ()


def explode() -> None:
    Bomb.exploded = True


def test_a_pickle_is_never_loaded(store: ArtifactStore) -> None:
    content = pickle.dumps(Bomb())
    digest = hashlib.sha256(content).hexdigest()[:16]
    store.write_bytes(f"{FOLDER}/0000000010-a0001-{digest}.safetensors", content)
    assert found(store) is None
    assert not Bomb.exploded


@pytest.mark.parametrize("name", ["notes.txt", "0000000010-a0001-xyz.safetensors"])
def test_other_files_are_left_alone(store: ArtifactStore, name: str) -> None:
    store.write_bytes(f"{FOLDER}/{name}", b"?")
    kept = attempt(store)
    kept.write(checkpoint(10))
    assert kept.resume is None
    assert store.exists(f"{FOLDER}/{name}")


class TestAttempts:
    def test_the_furthest_counts_whoever_wrote_it(self, store: ArtifactStore) -> None:
        given_up, current = attempt(store, 1), attempt(store, 2)
        current.write(checkpoint(10))
        given_up.write(checkpoint(30))
        assert found(store, 3) == 30

    def test_one_that_was_given_up_removes_nothing_of_a_later_one(
        self, store: ArtifactStore
    ) -> None:
        given_up, current = attempt(store, 1), attempt(store, 2)
        given_up.write(checkpoint(10))
        current.write(checkpoint(20))
        for step in (30, 40, 50):
            given_up.write(checkpoint(step))
        assert steps(store) == [20, 40, 50]
        given_up.remove()
        assert steps(store) == [20]

    def test_a_later_one_removes_what_it_leaves_behind(self, store: ArtifactStore) -> None:
        first = attempt(store, 1)
        for step in (10, 20):
            first.write(checkpoint(step))
        second = attempt(store, 2)
        second.write(checkpoint(30))
        assert steps(store) == [20, 30]
        second.write(checkpoint(40))
        assert steps(store) == [30, 40]

    def test_the_last_one_leaves_nothing(self, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path)
        attempt(store, 1).write(checkpoint(10))
        (tmp_path / FOLDER / f".{uuid.uuid4().hex}.tmp").write_bytes(b"cut short")
        second = attempt(store, 2)
        second.write(checkpoint(20))
        second.remove()
        second.remove()
        assert not (tmp_path / FOLDER).exists()


class TestIntervals:
    def test_one_is_due_after_so_many_epochs(self, store: ArtifactStore) -> None:
        kept = attempt(store, epochs=2)
        assert [step for step in range(0, 50, 5) if kept.is_due(step, 10)] == [
            20,
            25,
            30,
            35,
            40,
            45,
        ]
        kept.write(checkpoint(25))
        assert [step for step in range(25, 60, 5) if kept.is_due(step, 10)] == [45, 50, 55]

    def test_none_is_due_before_the_one_gone_on_from_was_passed(self, store: ArtifactStore) -> None:
        attempt(store, 1).write(checkpoint(30))
        second = attempt(store, 2)
        assert not second.is_due(30, 10)
        assert second.is_due(40, 10)
        second.begin_again()
        assert second.is_due(10, 10)

    def test_zero_epochs_means_never(self, store: ArtifactStore) -> None:
        assert not attempt(store, epochs=0).is_due(1000, 10)


class FullStore(ArtifactStore):
    def write_bytes(self, path: str, data: bytes, *, staging: str | None = None) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", path)


class AbsentStore(ArtifactStore):
    def files(self, folder: str) -> list[str]:
        raise ConnectionError("no route to the store")


def test_a_full_disk_is_told_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempt(ArtifactStore(tmp_path)).write(checkpoint(10))
    kept = attempt(FullStore(tmp_path), 2)
    for step in (20, 30, 40):
        kept.write(checkpoint(step))
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [r.getMessage() for r in warnings] == [
        f"Checkpoints in {FOLDER} cannot be written: [Errno 28] No space left on device: "
        f"'{FOLDER}/{name_of(20)}'"
    ]
    assert found(ArtifactStore(tmp_path), 3) == 10  # what there was is not given up for it


def name_of(step: int) -> str:
    digest = hashlib.sha256(checkpoint(step).to_bytes()).hexdigest()[:16]
    return f"{step:010d}-a0002-{digest}.safetensors"


def test_a_store_out_of_reach_ends_nothing(tmp_path: Path) -> None:
    kept = attempt(AbsentStore(tmp_path))
    assert kept.resume is None
    kept.write(checkpoint(10))
    kept.remove()


def test_what_other_code_wrote_is_not_gone_on_from(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.training.trial_checkpoints, "code_version", lambda: "one")
    attempt(store, 1).write(checkpoint(90))
    monkeypatch.setattr(workers.training.trial_checkpoints, "code_version", lambda: "one-dirty")
    assert found(store) == 90  # a file beside the code, such as a result, is no other code
    monkeypatch.setattr(workers.training.trial_checkpoints, "code_version", lambda: "two")
    second = attempt(store, 2)
    assert second.resume is None
    second.write(checkpoint(10))
    assert steps(store) == [10]


def test_the_error_survives_the_trip_from_a_worker() -> None:
    error = CheckpointMismatchError("KeyError: 'next'")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
