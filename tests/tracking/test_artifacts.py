import hashlib
import os
import pickle
import stat
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store import running_object_store
from tracking.artifacts import (
    ArtifactNotFoundError,
    ArtifactPathError,
    ArtifactStore,
    ArtifactUrlError,
)

ESCAPES = [
    "",
    "/etc/passwd",
    "..",
    "../sibling",
    "trials/../../sibling",
    "trials//plan.json",
    "./plan.json",
    "trials/",
    "..\\sibling",
    "s3://bucket/plan.json",
    "plan\0.json",
    "C:plan.json",
    "C:/plan.json",
    "//host/share/plan.json",
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with running_object_store() as url:
        yield url


@pytest.fixture(params=["folder", "file_url", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "s3":
        return ArtifactStore(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}")
    if request.param == "memory":
        return ArtifactStore(f"memory://store-{uuid.uuid4().hex}")
    prefix = "file://" if request.param == "file_url" else ""
    return ArtifactStore(f"{prefix}{tmp_path / 'a store'}")


@pytest.fixture
def remote() -> ArtifactStore:
    return ArtifactStore(f"memory://store-{uuid.uuid4().hex}")


class TestEveryStore:
    def test_gives_back_what_was_written(self, store: ArtifactStore) -> None:
        assert store.write_bytes("trials/3f2a/plan.json", b"{}") == "trials/3f2a/plan.json"
        assert store.read_bytes("trials/3f2a/plan.json") == b"{}"

    def test_replaces_a_file_as_a_whole(self, store: ArtifactStore) -> None:
        store.write_bytes("state", b"a long first version")
        store.write_bytes("state", b"short")
        assert store.read_bytes("state") == b"short"

    def test_copies_a_local_file_in(self, store: ArtifactStore, tmp_path: Path) -> None:
        source = tmp_path / "weights.safetensors"
        source.write_bytes(b"w" * 3_000_000)
        store.put_file(source, "weights/base.safetensors")
        assert store.read_bytes("weights/base.safetensors") == source.read_bytes()

    def test_knows_what_exists(self, store: ArtifactStore) -> None:
        store.write_bytes("trials/plan.json", b"{}")
        assert store.exists("trials/plan.json")
        assert not store.exists("trials")
        assert not store.exists("trials/other.json")

    def test_removes_a_file_and_does_not_mind_a_missing_one(self, store: ArtifactStore) -> None:
        store.write_bytes("state", b"1")
        store.remove("state")
        store.remove("state")
        assert not store.exists("state")

    def test_lists_the_files_of_a_folder_and_nothing_below_it(self, store: ArtifactStore) -> None:
        assert store.files("checkpoints/3f2a") == []
        for name in ("b", "a", "older/c"):
            store.write_bytes(f"checkpoints/3f2a/{name}", b"")
        assert store.files("checkpoints/3f2a") == ["a", "b"]
        assert store.files("checkpoints") == []

    def test_removes_a_folder_and_does_not_mind_a_missing_one(self, store: ArtifactStore) -> None:
        for name in ("3f2a/a", "3f2a/b", "3f2b/a"):
            store.write_bytes(f"checkpoints/{name}", b"")
        store.remove_folder("checkpoints/3f2a")
        store.remove_folder("checkpoints/3f2a")
        assert store.files("checkpoints/3f2a") == []
        assert store.files("checkpoints/3f2b") == ["a"]

    def test_hashes_content(self, store: ArtifactStore) -> None:
        data = os.urandom(2_500_000)
        store.write_bytes("weights", data)
        assert store.sha256("weights") == hashlib.sha256(data).hexdigest()

    def test_names_content_by_its_hash_once(self, store: ArtifactStore) -> None:
        path = store.write_content("weights", b"abc", ".safetensors")
        assert path == f"weights/{hashlib.sha256(b'abc').hexdigest()}.safetensors"
        assert store.write_content("weights", b"abc", ".safetensors") == path
        assert store.read_bytes(path) == b"abc"

    def test_gives_a_local_file(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.write_bytes("weights/base", b"abc")
        assert store.local_path("weights/base", tmp_path / "cache").read_bytes() == b"abc"

    def test_says_which_file_is_missing(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(ArtifactNotFoundError, match=r"'weights/base' is not in the store"):
            store.read_bytes("weights/base")
        with pytest.raises(ArtifactNotFoundError):
            store.sha256("weights/base")
        with pytest.raises(ArtifactNotFoundError):
            store.local_path("weights/base", tmp_path)

    @pytest.mark.parametrize("path", ESCAPES)
    def test_refuses_a_path_that_leaves_it(
        self, store: ArtifactStore, tmp_path: Path, path: str
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"x")
        for use in (
            lambda: store.write_bytes(path, b"x"),
            lambda: store.put_file(source, path),
            lambda: store.read_bytes(path),
            lambda: store.exists(path),
            lambda: store.remove(path),
            lambda: store.sha256(path),
            lambda: store.local_path(path, tmp_path),
        ):
            with pytest.raises(ArtifactPathError, match="must be relative"):
                use()

    def test_travels_to_another_process(self, store: ArtifactStore) -> None:
        store.write_bytes("state", b"1")
        copy = pickle.loads(pickle.dumps(store))
        assert copy.url == store.url
        assert copy.read_bytes("state") == b"1"


class TestLocalStore:
    def test_readers_never_see_half_a_file(self, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path)
        versions = [bytes([digit]) * 500_000 for digit in range(40)]
        store.write_bytes("state", versions[0])

        def write() -> None:
            for version in versions:
                store.write_bytes("state", version)

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            assert store.read_bytes("state") in versions
        writer.join()

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path)
        store.write_bytes("state", b"old")
        with pytest.raises(TypeError):
            store.write_bytes("state", "not bytes")  # type: ignore[arg-type]
        assert store.read_bytes("state") == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["state"]

    def test_a_file_can_be_written_in_another_folder_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def replace(source: Path, target: Path) -> None:
            seen.append(source.parent)
            source.rename(target)

        monkeypatch.setattr("tracking.artifacts.os.replace", replace)
        store = ArtifactStore(tmp_path)
        store.write_bytes("weights/one", b"1", staging="under way/3f2a")
        store.write_bytes("no folder", b"")
        store.write_bytes("weights/two", b"2", staging="no folder")
        assert seen[0] == tmp_path / "under way" / "3f2a"
        assert [store.read_bytes(f"weights/{name}") for name in ("one", "two")] == [b"1", b"2"]
        assert store.files("under way/3f2a") == []

    def test_what_is_being_written_is_not_listed(self, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path)
        store.write_bytes("trials/whole", b"")
        (tmp_path / "trials" / f".{uuid.uuid4().hex}.tmp").write_bytes(b"half")
        assert store.files("trials") == ["whole"]

    @pytest.mark.parametrize(("folder", "file"), [(0o755, 0o600), (0o2770, 0o660)])
    def test_files_are_their_owners_alone_unless_the_folder_is_shared(
        self, tmp_path: Path, folder: int, file: int
    ) -> None:
        tmp_path.chmod(folder)
        before = os.umask(0)
        try:
            ArtifactStore(tmp_path).write_bytes("state", b"")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == file

    def test_hands_out_its_own_file(self, tmp_path: Path) -> None:
        store = ArtifactStore(tmp_path / "store")
        store.write_bytes("weights", b"abc")
        assert store.local_path("weights", tmp_path / "cache") == tmp_path / "store" / "weights"
        assert not (tmp_path / "cache").exists()


class TestRemoteStore:
    def test_downloads_a_file_once(self, remote: ArtifactStore, tmp_path: Path) -> None:
        remote.write_bytes("weights/base", b"abc")
        first = remote.local_path("weights/base", tmp_path)
        remote.remove("weights/base")
        assert remote.local_path("weights/base", tmp_path) == first
        assert first.read_bytes() == b"abc"

    def test_two_stores_share_a_cache_without_mixing(self, tmp_path: Path) -> None:
        stores = [ArtifactStore(f"memory://store-{uuid.uuid4().hex}") for _ in range(2)]
        for number, store in enumerate(stores):
            store.write_bytes("weights", str(number).encode())
        files = [store.local_path("weights", tmp_path).read_text() for store in stores]
        assert files == ["0", "1"]

    def test_a_url_nobody_can_open_is_refused_at_the_door(self) -> None:
        with pytest.raises(ArtifactUrlError, match="nosuch://bucket"):
            ArtifactStore("nosuch://bucket/folder")

    def test_passwords_are_not_shown(self) -> None:
        with pytest.raises(ArtifactUrlError) as caught:
            ArtifactStore("nosuch://user:secret@bucket/folder")
        assert "secret" not in str(caught.value)
        assert "bucket/folder" in str(caught.value)
