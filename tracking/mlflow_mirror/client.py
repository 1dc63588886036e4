"""MLflow behind a door: few calls, short time-outs, and two kinds of failure.

MLflow is imported on first use; by its defaults one call to a dead server blocks for 247 s.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tracking.artifacts import ArtifactNotFoundError, ArtifactStore
from tracking.errors import TrackingError, redact
from tracking.mlflow_mirror.mirror import (
    KEY,
    PARENT,
    DataInput,
    Point,
    RunImage,
    Status,
)
from tracking.mlflow_mirror.moved_store import follow_store
from tracking.mlflow_mirror.server import (
    OPENED_EACH_TIME,
    import_store,
    prepare_store,
    quiet_mlflow,
    sqlite_file,
)

TIMEOUT_S = 5
_ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT_S),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # which costs a request for each run
}
_SCHEMA_LOCK = 7_305_113_265  # any number, as long as every publisher uses it
_REFUSALS = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
)
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})


class MirrorError(TrackingError):
    """Something went wrong between the ledger and MLflow."""

    def __init__(self, uri: str, problem: str) -> None:
        super().__init__(uri, problem)
        self.uri, self.problem = uri, problem


class MlflowUnavailableError(MirrorError):
    """MLflow does not answer, or not now: the same call may do later."""

    def __str__(self) -> str:
        return (
            f"MLflow at {self.uri} cannot be used now: {self.problem}. The sweep goes on; what is "
            "missing there is sent when it answers, or by 'prunesweep publish'."
        )


class MlflowRefusedError(MirrorError):
    """MLflow will not take this, however often it is sent."""

    def __str__(self) -> str:
        return f"MLflow at {self.uri} refused: {self.problem}. The ledger has it all the same."


class MlflowMissingError(MlflowRefusedError):
    """What a call was about is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHandle:
    """A run in MLflow."""

    id: str
    artifact_uri: str
    is_deleted: bool  #: By a user; such a run takes nothing.
    status: str = "RUNNING"
    tags: Mapping[str, str] = field(default_factory=dict)  #: When it was looked at.


class Mlflow:
    """The few calls a mirror needs. Every method raises only `MirrorError`.

    Args:
        uri: ``http(s)://`` of a server, or a database URL of a store used directly.
    """

    def __init__(self, uri: str) -> None:
        self.uri = redact(uri)
        self._raw_uri = uri
        self._file = sqlite_file(uri)
        self._opened: tuple[int, int] | None = None  #: The file that ids known here are of.
        self._connected: Any = None

    @property
    def is_direct(self) -> bool:
        """The store is a database, so nobody else decides where artifacts go."""
        return not self._raw_uri.startswith(("http://", "https://"))

    def forget(self) -> None:
        """Open anew what lies there by the next call, whatever it is."""
        self._connected = None

    def experiment(self, name: str, artifact_location: str | None) -> str:
        """Find or create the experiment of this name and return its id; a deleted one comes back.

        Args:
            name: Its name.
            artifact_location: Where a new one keeps artifacts; None leaves that to the server.
        """
        with self._calling() as client:
            found = client.get_experiment_by_name(name)
            if found is None:
                return str(client.create_experiment(name, artifact_location=artifact_location))
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def run(self, run_id: str) -> RunHandle:
        """Return the run of this id.

        Raises:
            MlflowMissingError: There is none.
        """
        with self._calling() as client:
            return _handle(client.get_run(run_id))

    def find(self, experiment_id: str, key: str) -> list[RunHandle]:
        """Return the runs of this key, deleted ones last."""
        with self._calling() as client:
            runs = client.search_runs(
                [experiment_id],
                f"tags.`{KEY}` = '{key}'",
                run_view_type=3,  # active and deleted
                max_results=10,
            )
        return sorted(map(_handle, runs), key=lambda run: (run.is_deleted, run.id))

    def search(self, experiment_id: str, tags: Mapping[str, str]) -> list[RunHandle]:
        """Return all runs with these tags, but for deleted ones."""
        found: list[RunHandle] = []
        token: str | None = ""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        with self._calling() as client:
            while token is not None:
                page = client.search_runs([experiment_id], condition, page_token=token or None)
                found += map(_handle, page)
                token = page.token or None
        return found

    def take_tag(self, run_id: str, key: str) -> None:
        """Remove a tag that is there."""
        with self._calling() as client:
            client.delete_tag(run_id, key)

    def follow(self, experiment_id: str, location: str) -> None:
        """Let an experiment in a local file keep its artifacts at ``location``, a ``file://``."""
        if self._file is not None and location.startswith("file:"):
            with self._calling():
                follow_store(self._file, experiment_id, location)

    def create(self, experiment_id: str, image: RunImage, parent: str | None) -> RunHandle:
        """Create a run, with its tags; it is running."""
        tags = {**image.tags, KEY: image.key, **({PARENT: parent} if parent else {})}
        with self._calling() as client:
            return _handle(
                client.create_run(
                    experiment_id, start_time=image.start_ms, tags=tags, run_name=image.name
                )
            )

    def log(
        self,
        run_id: str,
        points: Iterable[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send metrics, params and tags; what is there already is not added again.

        A param MLflow holds with another value, which it never changes, becomes a tag
        ``prunesweep.amended.NAME``.
        """
        with self._calling() as client:
            from mlflow.entities import Metric, Param, RunTag
            from mlflow.exceptions import MlflowException

            def send(params: Mapping[str, str], tags: Mapping[str, str]) -> None:
                client.log_batch(
                    run_id,
                    metrics=[
                        Metric(point.key, point.value, point.timestamp_ms, point.step)
                        for point in points
                    ],
                    params=[Param(key, value) for key, value in params.items()],
                    tags=[RunTag(key, value) for key, value in tags.items()],
                )

            points, params, tags = tuple(points), params or {}, tags or {}
            try:
                send(params, tags)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE" or not params:
                    raise
                held = client.get_run(run_id).data.params
                changed = {k: v for k, v in params.items() if held.get(k, v) != v}
                if not changed:
                    raise
                amended = {f"prunesweep.amended.{key}": value for key, value in changed.items()}
                send({k: v for k, v in params.items() if k not in held}, {**tags, **amended})

    def add_data(self, run_id: str, data: DataInput) -> None:
        """Note which data set a run is about; the same one is not added twice."""
        with self._calling() as client:
            from mlflow.entities import Dataset, DatasetInput

            dataset = Dataset(data.name, data.digest, "prunesweep", data.source)
            client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=[])])

    def experiments(self, prefix: str) -> dict[str, str]:
        """Return the experiments whose names begin with ``prefix``: id by name, newest first."""
        with self._calling() as client:
            found = client.search_experiments(filter_string=f"name LIKE '{prefix}%'")
            return {str(one.name): str(one.experiment_id) for one in found}

    def end(self, run_id: str, status: Status, end_ms: int | None) -> None:
        """Set the status, and the end of a run that has ended."""
        with self._calling() as client:
            if status == "RUNNING":
                client.update_run(run_id, status=status)
            else:
                client.set_terminated(run_id, status=status, end_time=end_ms)

    def delete(self, run_id: str) -> None:
        """Hide a run; MLflow keeps it for its garbage collection."""
        with self._calling() as client:
            client.delete_run(run_id)

    def restore(self, run_id: str) -> None:
        """Bring a run back that a user deleted."""
        with self._calling() as client:
            client.restore_run(run_id)

    def upload(self, run: RunHandle, image: RunImage, store: ArtifactStore) -> None:
        """Store the files of a run, replacing those there.

        Raises:
            MlflowRefusedError: A file to copy is missing, or this machine cannot write there.
        """
        with self._calling(), tempfile.TemporaryDirectory(prefix="prunesweep-") as folder:
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            target: Any = get_artifact_repository(run.artifact_uri, tracking_uri=self._raw_uri)
            for name, content in image.files.items():
                (Path(folder) / name).write_bytes(content)
                target.log_artifact(str(Path(folder) / name))
            for name, path in image.copies.items():
                downloaded = store.local_path(path, Path(folder) / "downloads")
                (Path(folder) / name).symlink_to(downloaded)  # uploaded under its own name
                target.log_artifact(str(Path(folder) / name))

    @contextmanager
    def _calling(self) -> Iterator[Any]:
        """Give the client, and sort what it raises."""
        try:
            if self._connected is None:
                self._connected, self._opened = self._connect(), self._identity
            elif self._opened != self._identity:
                self._connected = None
                raise MlflowMissingError(self.uri, "its file was removed or replaced")
            yield self._connected
        except MirrorError:
            raise
        except (ImportError, ArtifactNotFoundError) as error:
            raise MlflowRefusedError(self.uri, self._clean(error)) from None
        except Exception as error:
            code = getattr(error, "error_code", None)
            kind: type[MirrorError] = MlflowUnavailableError
            if code in _REFUSALS:
                kind = MlflowRefusedError
            elif code in _MISSING:
                kind = MlflowMissingError
            raise kind(self.uri, self._clean(error)) from None

    @property
    def _identity(self) -> tuple[int, int] | None:
        """Device and inode of a store's file; None: it is not there, or the store is no file."""
        try:
            found = self._file.stat() if self._file else None
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino) if found and found.st_size else None

    def _connect(self) -> Any:
        quiet_mlflow()
        os.environ.update(_ENVIRONMENT)
        if self._file is not None:
            os.environ.update(OPENED_EACH_TIME)
        if self.is_direct:
            import_store()
            prepare_store(self._raw_uri)
        from mlflow import MlflowClient

        if not self._raw_uri.startswith("postgresql"):
            return MlflowClient(self._raw_uri)
        url = sa.make_url(self._raw_uri).update_query_dict({"connect_timeout": str(TIMEOUT_S)})
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            # whoever comes first makes the tables; and MLflow itself tries to connect for 100 s
            connection.execute(sa.select(sa.func.pg_advisory_lock(_SCHEMA_LOCK)))
            return MlflowClient(url.render_as_string(hide_password=False))

    def _clean(self, error: Exception) -> str:
        text = str(error).replace(self._raw_uri, self.uri)
        try:
            password = sa.make_url(self._raw_uri).password
        except sa.exc.ArgumentError:
            password = None
        text = text.replace(str(password), "***") if password else text
        return f"{type(error).__name__}: {' '.join(text.split())}"[:500].rstrip(". ")


def _handle(run: Any) -> RunHandle:
    return RunHandle(
        id=str(run.info.run_id),
        artifact_uri=str(run.info.artifact_uri),
        is_deleted=run.info.lifecycle_stage == "deleted",
        status=str(run.info.status),
        tags=dict(run.data.tags),
    )
