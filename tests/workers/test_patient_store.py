"""An artifact store that is away for a while: waited for, said, and told from a missing file."""

import errno
from pathlib import Path

import pytest

from tracking.artifacts import ArtifactNotFoundError, StoreUnreachableError
from workers.patient_store import PatientStore


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, heard: list[str]) -> PatientStore:
    store = PatientStore(str(tmp_path / "store"), 60.0, heard.append)
    store.prepare()
    store.write_bytes("weights/a", b"1")
    return store


@pytest.mark.parametrize("call", ["write", "read", "exists"])
def test_a_folder_that_is_away_is_waited_for_and_not_made_anew(
    store: PatientStore, heard: list[str], tmp_path: Path, call: str
) -> None:
    away, place = tmp_path / "away", tmp_path / "store"
    place.rename(away)

    def bring_back(problem: str) -> None:
        heard.append(problem)
        away.rename(place)

    store.tell = bring_back
    if call == "write":
        store.write_bytes("weights/b", b"2")
    elif call == "read":
        assert store.read_bytes("weights/a") == b"1"
    else:
        assert store.exists("weights/a")
    assert store.read_bytes("weights/a") == b"1"
    assert len(heard) == 1
    assert "cannot be reached or written" in heard[0]
    assert "Waiting for it, 60 s at most." in heard[0]


def test_a_file_that_is_not_there_is_no_outage(store: PatientStore, heard: list[str]) -> None:
    assert not store.exists("weights/none")
    with pytest.raises(ArtifactNotFoundError):
        store.read_bytes("weights/none")
    assert heard == []


def test_a_read_only_store_is_waited_for(
    store: PatientStore, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, refusals = PatientStore._replace, [OSError(errno.EROFS, "Read-only file system")]

    def replace(*arguments: object, **options: object) -> None:
        if refusals:
            raise refusals.pop()
        write(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PatientStore, "_replace", replace)
    store.write_bytes("weights/c", b"3")
    assert store.read_bytes("weights/c") == b"3"
    assert len(heard) == 1
    assert "Read-only file system" in heard[0]


def test_patience_ends(tmp_path: Path, store: PatientStore) -> None:
    impatient = store.without_waiting
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(StoreUnreachableError, match="as if the store were away"):
        impatient.write_bytes("weights/b", b"2")
    assert not (tmp_path / "store").exists()
