"""A folder of files that is there as a whole or not at all, whenever its writer is killed."""

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from workers.errors import WorkerError


class FolderTakenError(WorkerError, ValueError):
    """Something else lies where a folder of files is to be."""

    def __init__(self, folder: str, problem: str) -> None:
        super().__init__(folder, problem)
        self.folder, self.problem = folder, problem

    def __str__(self) -> str:
        return f"{self.folder}: {self.problem}"


def write_folder(
    folder: Path, files: Mapping[str, bytes], replaceable: Collection[str] = ()
) -> None:
    """Write files to ``folder``: beside it at first, then renamed. Written again, nothing changes.

    What a killed writer left beside it goes with the next one.

    Args:
        folder: Where they are to be; its parents are made.
        files: Content by name. All of them, so that they are in memory.
        replaceable: Names whose content may be another one where all other files are the same,
            and which may lie there without being written now.

    Raises:
        FolderTakenError: It holds something else, or is no folder.
        OSError: It cannot be written.
    """
    if _is_complete(folder, files, replaceable):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = _staged(folder)
    try:
        staged.mkdir()
        for name, content in files.items():
            with (staged / name).open("wb") as file:
                file.write(content)
                os.fsync(file.fileno())
        if folder.exists() and any(folder.iterdir()):
            for name in files:  # those there are the same, or may be replaced
                os.replace(staged / name, folder / name)
        else:
            os.replace(staged, folder)  # takes the place of an empty folder, too
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _is_complete(folder: Path, files: Mapping[str, bytes], replaceable: Collection[str]) -> bool:
    """Say whether all is there already; refuse a folder that holds anything else."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise FolderTakenError(str(folder), "this is not a folder; name a new one")
    there = {path.name: path for path in folder.iterdir()}
    same = {
        name: name in files and path.is_file() and path.read_bytes() == files[name]
        for name, path in there.items()
    }
    is_ours = all(same.get(name, False) for name in files if name not in replaceable)
    for name, path in there.items():
        if not same[name] and not (is_ours and name in replaceable and path.is_file()):
            raise FolderTakenError(
                str(folder), "the folder is not empty and holds something else; name another"
            )
    return all(same.get(name, False) for name in files)


def _staged(folder: Path) -> Path:
    """Return a name beside ``folder`` for this process; what dead ones left is removed."""
    stem = f".{hashlib.sha256(folder.name.encode(errors='surrogateescape')).hexdigest()[:16]}"
    for left in folder.parent.glob(f"{stem}.*.staged"):
        found = re.fullmatch(r"\.[0-9a-f]{16}\.(\d+)\.staged", left.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            shutil.rmtree(left, ignore_errors=True)
    return folder.with_name(f"{stem}.{os.getpid()}.staged")
