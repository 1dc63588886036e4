"""Files from elsewhere that all processes of a machine use: brought to it once, under a lock."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec

from tracking.artifacts import ArtifactStore
from tracking.private_files import make_file, make_folder, open_private
from workers.settings import content_hash

log = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between the processes of a machine; a killed holder lets go."""
    make_folder(path.parent)
    with open(path, "a", opener=open_private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFiles:
    """What trials on all machines share through the artifact store; it never changes."""

    artifacts: ArtifactStore
    cache_dir: Path  #: Of this machine.

    def read(self, path: str) -> bytes:
        """Return a file of the artifact store; from another machine it comes once.

        Raises:
            ArtifactNotFoundError: There is no such file.
        """
        if self.artifacts.folder is not None:
            return self.artifacts.read_bytes(path)
        with file_lock(self.cache_dir / "locks" / content_hash(path)):
            return self.artifacts.local_path(path, self.cache_dir).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Store a file for all machines, if the store takes it now: others can do without."""
        self.artifacts.without_waiting.write_bytes(path, data)


def fetched(url: str, folder: Path) -> Path:
    """Return a local copy of what is at ``url``, of the version that is there now.

    Args:
        url: Of fsspec: ``https://``, ``s3://``, ``gs://`` and others, whose credentials come from
            the environment.
        folder: Where this machine keeps such copies.

    Raises:
        Exception: Of as many kinds as there are stores.
    """
    files, path = fsspec.core.url_to_fs(url)
    version = content_hash(f"{url}:{files.ukey(path)}")
    copy = folder / f"fetched-{version}"
    with file_lock(copy.with_suffix(".lock")):
        if not copy.exists():
            partial = copy.with_suffix(".partial")
            make_file(partial)
            files.get_file(path, str(partial))
            partial.replace(copy)
            log.info("Fetched %s, %.0f MiB, to %s", url, copy.stat().st_size / 2**20, copy)
    return copy
