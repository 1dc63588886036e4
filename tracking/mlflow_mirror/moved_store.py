"""Where an MLflow store in a file looks for its artifacts, once it was copied or moved."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

log = logging.getLogger("tracking.mlflow_mirror.publisher")


def follow_store(file: Path, experiment_id: str, location: str) -> None:
    """Let an MLflow store in a file find its artifacts where the store is now.

    MLflow notes absolute places and has no call to change them, so that files of a store that was
    copied or moved would go back to the old place. A run whose files stayed there keeps its place.

    Args:
        file: MLflow's SQLite file.
        experiment_id: An experiment in it.
        location: ``file://`` URL under which its runs' artifacts belong.
    """
    with closing(sqlite3.connect(file, timeout=30.0)) as connection, connection:
        ask = "SELECT artifact_location FROM experiments WHERE experiment_id = ?"
        before = connection.execute(ask, (experiment_id,)).fetchone()
        if before is None or before[0] == location or not before[0].startswith("file:"):
            return
        ask = "SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?"
        for run, uri in connection.execute(ask, (experiment_id,)).fetchall():
            if not uri.startswith(f"{before[0]}/"):
                continue
            moved = location + uri.removeprefix(before[0])
            if _folder(moved).exists() or not _folder(uri).exists():
                change = "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?"
                connection.execute(change, (moved, run))
        change = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
        connection.execute(change, (location, experiment_id))
    log.warning("the store has moved: MLflow's artifacts are in %s from now on", location)


def _folder(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))
