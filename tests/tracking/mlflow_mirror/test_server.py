import base64
import json
import socket
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tracking.artifacts import ArtifactStore
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.publisher import Publisher
from tracking.mlflow_mirror.server import (
    MlflowServerError,
    default_uri,
    prepare_store,
    server_command,
    server_environment,
    start_server,
    why_silent,
)
from tracking.places import Place, Role


def test_listens_on_loopback_with_one_worker() -> None:
    command = " ".join(server_command("127.0.0.1", 5000))
    assert "--host 127.0.0.1 --port 5000 --workers 1" in command


def test_the_store_is_named_where_nobody_else_can_read_it() -> None:
    uri = "postgresql+psycopg://user:secret@host/mlflow"
    assert "secret" not in " ".join(server_command("127.0.0.1", 5000))
    environment = server_environment(uri, "s3://bucket/mlflow")
    assert environment["MLFLOW_BACKEND_STORE_URI"] == uri
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "postgresql+psycopg://user@127.0.0.1:9/mlflow"]
)
def test_other_stores_than_files_are_left_alone(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened() -> None:
        raise AssertionError("a store was opened")

    monkeypatch.setattr("tracking.mlflow_mirror.server.import_store", opened)
    monkeypatch.chdir(tmp_path)
    prepare_store(uri)
    assert not list(tmp_path.iterdir())
    with pytest.raises(AssertionError, match="a store was opened"):
        prepare_store("sqlite:///mlflow.db")


@pytest.mark.integration
def test_a_store_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.fresh").write_bytes(b"half a database")
    prepare_store(default_uri(tmp_path))
    made = (tmp_path / "mlflow.db").read_bytes()
    assert made.startswith(b"SQLite format 3")
    prepare_store(default_uri(tmp_path))
    assert (tmp_path / "mlflow.db").read_bytes() == made


@pytest.mark.integration
def test_shows_what_was_published_without_it_files_included(tmp_path: Path) -> None:
    folder = tmp_path / "a store"
    uri = default_uri(folder)
    with Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
        ledger.create_sweep("grid", {}, "hash")
        writer = ledger.take_over("grid", "test")
        trial = writer.want(Place(Role.BASELINE, index=0), "uid", {"seed": 0})[1].id
        plan = {"kept": {"conv1": [0, 1]}}
        writer.complete(trial, writer.start(trial, "node", 1), {"macs": 5, "plan": plan})
        publisher = Publisher(ledger, uri, ArtifactStore(folder / "artifacts"))
        publisher.publish_all()
        assert publisher.trouble is None
        sweep = ledger.sweep("grid")
    with start_server(uri, folder / "artifacts" / "uploads") as server:

        def call(path: str, body: dict[str, Any] | None = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{server.url}/{path}", data, headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)

        search = {"experiment_ids": [sweep.experiment_id]}
        runs = call("api/2.0/mlflow/runs/search", search)["runs"]
        assert {run["info"]["run_name"] for run in runs} == {"grid", "baseline seed 0"}
        child = next(run for run in runs if run["info"]["run_id"] != sweep.run_id)
        query = urllib.parse.urlencode({"run_id": child["info"]["run_id"], "path": "plan.json"})
        assert call(f"get-artifact?{query}") == plan
        assert server.process.poll() is None
    assert server.wait() is not None


@pytest.mark.integration
def test_a_taken_port_is_an_error_that_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(MlflowServerError, match=f"127.0.0.1:{port} .* choose another port"),
            start_server(default_uri(tmp_path), tmp_path, port=port, timeout_s=60.0),
        ):
            pass


def test_a_password_in_the_url_is_sent_and_never_said() -> None:
    asked: list[str | None] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(200 if self.headers["Authorization"] else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host = f"127.0.0.1:{server.server_port}"
        assert why_silent(f"http://{host}") == "Unauthorized"
        assert why_silent(f"http://me:hu%40sh@{host}/") is None
        server.shutdown()
        thread.join()
    assert asked == [None, "Basic " + base64.b64encode(b"me:hu@sh").decode()]
    for wrong in (f"http://me:hush@{host}", "http://me:hush@[nowhere", "http://me:hush@host:port"):
        assert "hush" not in (why_silent(wrong) or "")
