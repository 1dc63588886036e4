import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from tests.tracking.hand_made import HandMadeSweep, specification
from tests.tracking.postgres import PostgresServer, running_postgres
from tracking.artifacts import ArtifactStore
from tracking.ledger.ledger import Ledger
from tracking.ledger.outbox import Outbox
from tracking.ledger.writer import SweepWriter
from tracking.mlflow_mirror.addresses import NotShownError, addresses_of
from tracking.mlflow_mirror.client import Mlflow, MlflowUnavailableError, RunHandle
from tracking.mlflow_mirror.mirror import KEY, sweep_key
from tracking.mlflow_mirror.publisher import Publisher
from tracking.mlflow_mirror.publisher_process import start_publisher
from tracking.mlflow_mirror.server import MlflowServer, default_uri, prepare_store, start_server
from tracking.mlflow_mirror.sole_publisher import sole_publisher
from tracking.places import Place, Role
from tracking.records import Loss, SweepState, TrialState

pytestmark = pytest.mark.integration

SPEC = {
    "name": "first",
    "model": {"name": "digits_cnn"},
    "arms": [{"name": "l1", "method": "filter_norm"}],
    "search": {"trials": 4},
    "tracking": {"store": "./prunesweep-data"},
}
TRIAL = {
    "kind": "prune",
    "seed": 7,
    "method": "filter_norm",
    "schedule": {"name": "one_shot"},
    "recipe": {"epochs": 3, "milestones": [0.5, 0.75]},
    "target": {"axis": "macs", "reduction": 0.5},
    "ratios": {f"layer{block}.conv1": 0.01 * block for block in range(1, 55)},
}
RESULT = {
    "test_accuracy": 91.5,
    "val_accuracy": 90.25,
    "macs": 1000,
    "params": 300,
    "seconds_total": 1.5,
    "plan": {"kept": {"layer1.conv1": [0, 2]}},
    "artifacts": {"weights": "trials/a/weights.safetensors"},
    "latency": [
        {
            "batch_size": 8,
            "median_ms": 1.25,
            "p90_ms": 1.5,
            "base_median_ms": 2.5,
            "base_p90_ms": 3.0,
        }
    ],
    "notes": {"whole_cluster_share": 0.125},
}
EPOCHS = 3


class Bench:
    """A store with a ledger, one sweep and its writer."""

    def __init__(self, folder: Path, name: str = "first") -> None:
        self.folder, self.name = folder, name
        self.ledger_url = f"sqlite:///{folder}/ledger.db"
        self.ledger = Ledger.open(self.ledger_url)
        self.outbox = Outbox(self.ledger)
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.artifacts.write_bytes("trials/a/weights.safetensors", b"weights")
        if name not in {sweep.name for sweep in self.ledger.sweeps()}:
            self.ledger.create_sweep(name, {**SPEC, "name": name}, "hash")
        self.writer = self.ledger.take_over(name, "test", by_force=True)

    def publisher(self, uri: str, **settings: Any) -> Publisher:
        return Publisher(self.ledger, uri, self.artifacts, sweep=self.name, **settings)


@pytest.fixture(scope="module")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one empty MLflow store: its migrations take seconds."""
    folder = tmp_path_factory.mktemp("fresh")
    prepare_store(default_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture
def bench(tmp_path: Path, fresh_store: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "a store")
    shutil.copy(fresh_store, made.folder)
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    with start_server(default_uri(folder), folder / "artifacts") as started:
        yield started


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, bench: Bench) -> str:
    if request.param == "sqlite":
        return default_uri(bench.folder)
    url: str = request.getfixturevalue("server").url
    return url


def want(writer: SweepWriter, number: int, uid: str | None = None) -> int:
    entry = Place(Role.SEARCH, arm="l1", target="macs-50%", index=number)
    return writer.want(entry, uid or f"uid{number}", {**TRIAL, "number": number})[1].id


def report(writer: SweepWriter, trial: int, attempt: int, steps: int = EPOCHS) -> None:
    for step in range(steps):
        at = datetime.now(UTC) + timedelta(seconds=step)
        writer.report(trial, attempt, step, {"loss": 1.0 / (step + 1), "val_accuracy": step}, at)


def run_trial(writer: SweepWriter, number: int) -> int:
    trial = want(writer, number)
    attempt = writer.start(trial, "node", 1)
    report(writer, trial, attempt)
    writer.complete(trial, attempt, RESULT)
    return trial


@contextmanager
def client_of(uri: str) -> Iterator[Any]:
    with Mlflow(uri)._calling() as client:
        yield client


def runs_of(bench: Bench, uri: str) -> list[Any]:
    """Return the sweep's runs, by key; sweeps of other tests may share the server."""
    sweep = bench.ledger.sweep(bench.name)
    with client_of(uri) as client:
        runs = client.search_runs([sweep.experiment_id], max_results=1000)
    mine = [run for run in runs if run.data.tags[KEY].startswith(sweep_key(sweep))]
    return sorted(mine, key=lambda run: str(run.data.tags[KEY]))


def children_of(bench: Bench, uri: str) -> list[Any]:
    return [run for run in runs_of(bench, uri) if "mlflow.parentRunId" in run.data.tags]


def picture(bench: Bench, uri: str) -> list[Any]:
    """Return everything MLflow holds of the sweep, every metric row included."""
    with client_of(uri) as client:
        return [
            (
                run.info.run_id,
                run.info.run_name,
                run.info.status,
                run.info.start_time,
                run.info.end_time,
                run.data.tags,
                run.data.params,
                {
                    key: [
                        (point.step, point.value, point.timestamp)
                        for point in client.get_metric_history(run.info.run_id, key)
                    ]
                    for key in run.data.metrics
                },
                [file.path for file in client.list_artifacts(run.info.run_id)],
            )
            for run in runs_of(bench, uri)
        ]


class TestPublisher:
    def test_shows_a_trial_as_the_ledger_has_it(self, bench: Bench, uri: str) -> None:
        trial = run_trial(bench.writer, 3)
        bench.writer.set_state(SweepState.COMPLETED)
        publisher = bench.publisher(uri)
        assert publisher.publish_once() == 2
        assert publisher.trouble is None
        assert publisher.is_up_to_date()
        parent, child = runs_of(bench, uri)
        assert (parent.info.run_name, parent.info.status) == ("first", "FINISHED")
        assert parent.data.params["search.trials"] == "4"
        assert parent.data.tags["prunesweep.spec_hash"] == "hash"
        assert "l1" in parent.data.tags["mlflow.note.content"]
        record = bench.outbox.attempts_of(trial)[0]
        assert record.ended_at is not None
        assert child.info.run_id == record.run_id
        assert child.info.run_name == "l1 macs-50% #3"
        assert child.info.status == "FINISHED"
        assert child.info.start_time == int(record.started_at.timestamp() * 1000)
        assert child.info.end_time == int(record.ended_at.timestamp() * 1000)
        tags = child.data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["prunesweep.trial"] == "uid3"
        assert tags["prunesweep.roles"] == "search"
        assert tags["prunesweep.is_result"] == "true"
        assert tags["prunesweep.outcome"] == "completed"
        assert tags["prunesweep.artifact.weights"] == "trials/a/weights.safetensors"
        params = child.data.params
        assert params["ratio.layer54.conv1"] == "0.54"
        assert params["recipe.epochs"] == "3"
        assert params["recipe.milestones"] == "[0.5, 0.75]"
        metrics = child.data.metrics
        assert "test_accuracy" not in metrics
        assert metrics["val_accuracy"] == 90.25
        assert (metrics["macs"], metrics["flops"]) == (1000, 2000)
        assert metrics["latency.batch_8.median_ms"] == 1.25
        assert metrics["note.whole_cluster_share"] == 0.125
        with client_of(uri) as client:
            history = client.get_metric_history(child.info.run_id, "loss")
            plan = client.download_artifacts(child.info.run_id, "plan.json")
            files = client.list_artifacts(child.info.run_id)
        assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
        points = bench.outbox.metrics_of(trial, 1)
        reported = [int(at.at.timestamp() * 1000) for at in points if at.key == "loss"]
        assert [point.timestamp for point in history] == reported
        assert json.loads(Path(plan).read_text()) == RESULT["plan"]
        assert [file.path for file in files] == ["plan.json"]

    def test_sending_again_adds_nothing(self, bench: Bench, uri: str) -> None:
        run_trial(bench.writer, 0)
        first = bench.publisher(uri)
        first.publish_all()
        before = picture(bench, uri)
        sweep = bench.ledger.sweep("first")
        bench.outbox.reset(sweep.id)
        assert first.publish_all() == 2
        assert picture(bench, uri) == before
        bench.outbox.reset(sweep.id)
        assert bench.publisher(uri).publish_all() == 2
        assert picture(bench, uri) == before

    def test_a_publisher_killed_before_it_noted_a_run_finds_it(
        self, bench: Bench, uri: str
    ) -> None:
        trial = run_trial(bench.writer, 0)
        bench.publisher(uri).publish_all()
        before = picture(bench, uri)
        bench.outbox.reset(bench.ledger.sweep("first").id)
        forgotten = sa.text("UPDATE ledger_attempt SET run_id = NULL")
        with bench.ledger.database.write() as connection:
            connection.execute(forgotten)
            connection.execute(sa.text("UPDATE ledger_sweep SET run_id=NULL, experiment_id=NULL"))
        bench.publisher(uri).publish_all()
        assert picture(bench, uri) == before
        assert bench.outbox.attempts_of(trial)[0].run_id is not None

    def test_curves_grow_while_a_trial_runs(self, bench: Bench, uri: str) -> None:
        trial = want(bench.writer, 0)
        attempt = bench.writer.start(trial, "node", 1)
        publisher = bench.publisher(uri)
        for step in range(3):
            at = datetime.now(UTC)
            bench.writer.report(trial, attempt, step, {"loss": float(step)}, at)
            publisher.publish_once()
            (child,) = children_of(bench, uri)
            assert child.info.status == "RUNNING"
            with client_of(uri) as client:
                history = client.get_metric_history(child.info.run_id, "loss")
            assert [point.value for point in history] == [float(i) for i in range(step + 1)]

    def test_a_lost_attempt_ends_killed_and_its_curve_stays_its_own(
        self, bench: Bench, uri: str
    ) -> None:
        trial = want(bench.writer, 0)
        publisher = bench.publisher(uri)
        lost = bench.writer.start(trial, "node-a", 1)
        report(bench.writer, trial, lost, steps=2)
        publisher.publish_all()
        assert bench.writer.lose(trial, lost, Loss.NODE, "node-a went away") is TrialState.PENDING
        again = bench.writer.start(trial, "node-b", 1)
        report(bench.writer, trial, again)
        publisher.publish_all()
        bench.writer.complete(trial, again, RESULT)
        publisher.publish_all()
        first, second = children_of(bench, uri)
        assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
        assert first.data.tags["prunesweep.outcome"] == "lost"
        assert first.data.tags["prunesweep.error"] == "node-a went away"
        assert first.data.tags["prunesweep.is_result"] == "false"
        assert second.data.tags["prunesweep.is_result"] == "true"
        assert second.info.run_name == "l1 macs-50% #0 (attempt 2)"
        assert "test_accuracy" not in first.data.metrics
        with client_of(uri) as client:
            steps = [
                len(client.get_metric_history(run.info.run_id, "loss")) for run in (first, second)
            ]
        assert steps == [2, 3]

    def test_a_failed_trial_shows_its_error_until_it_is_tried_again(
        self, bench: Bench, uri: str
    ) -> None:
        trial = want(bench.writer, 0)
        publisher = bench.publisher(uri)
        bench.writer.fail(trial, bench.writer.start(trial, "n", 1), "x" * 9000 + "Boom", "Boom")
        publisher.publish_all()
        (child,) = children_of(bench, uri)
        assert child.info.status == "FAILED"
        assert child.data.tags["prunesweep.error"].endswith("Boom")
        assert child.data.tags["prunesweep.is_result"] == "true"
        bench.writer.retry_failed()
        bench.writer.complete(trial, bench.writer.start(trial, "n", 1), RESULT)
        publisher.publish_all()
        first, second = children_of(bench, uri)
        assert first.data.tags["prunesweep.is_result"] == "false"
        assert second.data.tags["prunesweep.is_result"] == "true"

    def test_a_stopped_trial_does_not_pass_for_a_finished_one(self, bench: Bench, uri: str) -> None:
        trial = want(bench.writer, 0)
        bench.writer.stop(trial, bench.writer.start(trial, "n", 1), None, "not promising")
        bench.publisher(uri).publish_all()
        (child,) = children_of(bench, uri)
        assert child.info.status == "KILLED"
        assert child.data.tags["prunesweep.outcome"] == "stopped"
        assert child.data.tags["prunesweep.cause"] == "not promising"
        assert child.data.tags["prunesweep.is_result"] == "true"

    def test_a_reused_trial_is_one_run_that_says_so(self, bench: Bench, uri: str) -> None:
        source = run_trial(bench.writer, 0)
        bench.ledger.create_sweep("second", {**SPEC, "name": "second"}, "hash")
        want(bench.ledger.take_over("second", "test"), 5, "uid0")
        publisher = Publisher(bench.ledger, uri, bench.artifacts)
        publisher.publish_all()
        bench.name = "second"
        (child,) = children_of(bench, uri)
        assert child.data.tags["prunesweep.reused_from"] == str(source)
        assert child.data.tags["prunesweep.is_result"] == "true"
        assert child.info.status == "FINISHED"
        assert child.data.metrics["val_accuracy"] == 90.25

    def test_an_entry_that_joins_later_is_added_to_the_tags(self, bench: Bench, uri: str) -> None:
        run_trial(bench.writer, 0)
        publisher = bench.publisher(uri)
        publisher.publish_all()
        other = Place(Role.CONTROL, arm="uniform_l1", target="macs-50%", index=7)
        bench.writer.want(other, "uid0", {**TRIAL, "number": 0})
        publisher.publish_all()
        (child,) = children_of(bench, uri)
        assert child.data.tags["prunesweep.roles"] == "control,search"
        assert child.data.tags["prunesweep.arm"] == "l1,uniform_l1"
        assert child.info.run_name == "l1 macs-50% #0"

    def test_an_extended_sweep_shows_old_and_new(self, bench: Bench, uri: str) -> None:
        publisher = bench.publisher(uri)
        bench.writer.set_state(SweepState.COMPLETED)
        publisher.publish_all()
        bench.writer.amend_spec({**SPEC, "search": {"trials": 9}}, "hash2")
        bench.writer.set_state(SweepState.RUNNING)
        publisher.publish_all()
        assert not publisher.refused
        (parent,) = runs_of(bench, uri)
        assert parent.info.status == "RUNNING"
        assert parent.data.params["search.trials"] == "4"
        assert parent.data.tags["prunesweep.amended.search.trials"] == "9"
        assert parent.data.tags["prunesweep.spec_hash"] == "hash2"

    def test_the_report_and_wanted_weights_are_copied(self, bench: Bench, uri: str) -> None:
        run_trial(bench.writer, 0)
        publisher = bench.publisher(uri, weights_artifacts=True)
        for version in (b"one", b"two"):
            bench.artifacts.write_bytes("sweeps/first/report.html", version)
            bench.writer.set_artifacts({"report.html": "sweeps/first/report.html"})
            publisher.publish_all()
            parent, child = runs_of(bench, uri)
            with client_of(uri) as client:
                report = client.download_artifacts(parent.info.run_id, "report.html")
            assert Path(report).read_bytes() == version
        with client_of(uri) as client:
            weights = client.download_artifacts(child.info.run_id, "weights.safetensors")
        assert Path(weights).read_bytes() == b"weights"

    def test_the_parent_has_verdicts_and_data_and_arms_are_found(self, tmp_path: Path) -> None:
        made = HandMadeSweep(tmp_path, specification("l1", "fpgm", seeds=[1, 2]))
        data = {"kind": "prune", "data": {"name": "digits"}, "data_hash": "d" * 32}
        made.baseline()
        for arm, test in (("l1", 91.0), ("fpgm", 89.0)):
            for seed in (1, 2):
                made.add("confirm", arm, index=seed, test=test + seed, spec=data, artifacts={})
        url = default_uri(tmp_path)
        publisher = Publisher(
            made.ledger, url, ArtifactStore(tmp_path / "artifacts"), sweep=made.name
        )
        publisher.publish_all()
        assert (publisher.trouble, publisher.refused) == (None, {})
        record = made.ledger.sweep(made.name)
        with client_of(url) as client:
            parent = client.get_run(record.run_id)
            tag = "tags.`prunesweep.arm.l1` = 'true'"
            found = client.search_runs([record.experiment_id], filter_string=tag)
            verdict = "metrics.`macs-50pct.accuracy_mean/l1` > 92"
            assert len(client.search_runs([record.experiment_id], filter_string=verdict)) == 1
        assert len(found) == 2
        assert {run.data.metrics["test_accuracy"] for run in found} == {92.0, 93.0}
        assert parent.data.metrics["macs-50pct.accuracy_mean/fpgm"] == 90.5
        assert "prunesweep.verdict.macs-50pct/l1" in parent.data.tags
        assert "| l1 |" in parent.data.tags["mlflow.note.content"]
        (dataset,) = parent.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "d" * 32)
        (line,) = addresses_of(url, made.name)
        assert line == f"{url}/#/experiments/{record.experiment_id}"
        assert addresses_of(url, None) == [url, f"{made.name}: {line}"]
        with pytest.raises(NotShownError, match=made.name):
            addresses_of(url, "other")
        made.ledger.close()

    def test_a_missing_file_does_not_hold_up_the_rest(
        self, bench: Bench, uri: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.artifacts.remove("trials/a/weights.safetensors")
        run_trial(bench.writer, 0)
        publisher = bench.publisher(uri, weights_artifacts=True)
        publisher.publish_all()
        assert publisher.is_up_to_date()
        assert "'trials/a/weights.safetensors' is not in the store" in caplog.text

    def test_names_and_values_mlflow_would_refuse_are_made_to_fit(
        self, bench: Bench, uri: str
    ) -> None:
        trial = want(bench.writer, 0)
        attempt = bench.writer.start(trial, "n", 1)
        values = {"top-1 [%]": 1.0, "../up": 2.0, "a//b": 3.0, "broken": float("nan")}
        bench.writer.report(trial, attempt, 0, values, datetime.now(UTC))
        publisher = bench.publisher(uri)
        publisher.publish_all()
        assert not publisher.refused
        (child,) = children_of(bench, uri)
        assert child.data.metrics["top-1 ___"] == 1.0
        assert {"___up", "a__b", "broken"} <= child.data.metrics.keys()

    def test_more_values_than_one_batch_takes_all_arrive(self, bench: Bench, uri: str) -> None:
        trial = want(bench.writer, 0)
        attempt = bench.writer.start(trial, "n", 1)
        with bench.writer.transaction():
            for step in range(150):
                values = {f"value{key}": float(step) for key in range(10)}
                bench.writer.report(trial, attempt, step, values, datetime.now(UTC))
        bench.publisher(uri).publish_all()
        (child,) = children_of(bench, uri)
        with client_of(uri) as client:
            counts = [
                len(client.get_metric_history(child.info.run_id, f"value{key}"))
                for key in range(10)
            ]
        assert counts == [150] * 10

    def test_runs_a_user_deleted_stay_deleted(self, bench: Bench, uri: str) -> None:
        run_trial(bench.writer, 0)
        bench.publisher(uri).publish_all()
        (child,) = children_of(bench, uri)
        with client_of(uri) as client:
            client.delete_run(child.info.run_id)
        bench.outbox.reset(bench.ledger.sweep("first").id)
        publisher = bench.publisher(uri)
        publisher.publish_all()
        assert publisher.is_up_to_date()
        assert not publisher.refused
        assert children_of(bench, uri) == []

    def test_one_trial_mlflow_will_not_take_does_not_hold_up_the_others(
        self, bench: Bench, uri: str
    ) -> None:
        trials = [run_trial(bench.writer, number) for number in range(3)]
        publisher = bench.publisher(uri)
        with bench.ledger.database.write() as connection:
            connection.execute(  # before 1970: a time MLflow has no room for
                sa.text("UPDATE ledger_metric SET at = '1950-01-01 00:00:00' WHERE trial_id = :id"),
                {"id": trials[0]},
            )
        publisher.publish_all()
        assert publisher.is_up_to_date()
        assert list(publisher.refused) == [f"trial {trials[0]}"]
        published = [bench.ledger.trial(trial).published_rev for trial in trials]
        assert [rev > 0 for rev in published] == [False, True, True]


class TestAStoreThatWasReplaced:
    def test_everything_is_sent_to_the_new_one(self, bench: Bench) -> None:
        for number in range(3):
            run_trial(bench.writer, number)
        bench.publisher(default_uri(bench.folder)).publish_all()
        other = default_uri(bench.folder / "other")
        bench.writer.set_state(SweepState.COMPLETED)
        publisher = bench.publisher(other)
        publisher.publish_all()
        assert publisher.is_up_to_date()
        assert len(children_of(bench, other)) == 3

    def test_one_that_was_removed_is_noticed_though_nothing_is_new(self, bench: Bench) -> None:
        uri = default_uri(bench.folder)
        run_trial(bench.writer, 0)
        bench.publisher(uri).publish_all()
        (bench.folder / "mlflow.db").rename(bench.folder / "gone.db")
        other = default_uri(bench.folder / "new")
        publisher = bench.publisher(other)
        publisher.look()
        assert publisher.publish_all() == 2
        assert len(children_of(bench, other)) == 1

    def test_a_file_that_is_removed_while_it_is_written_is_made_anew(self, bench: Bench) -> None:
        uri, stop = default_uri(bench.folder), Event()
        publisher = bench.publisher(uri)
        run_trial(bench.writer, 0)
        publisher.publish_all()
        (bench.folder / "mlflow.db").unlink()
        run_trial(bench.writer, 1)
        publisher.publish_all()  # notices
        publisher.publish_all()
        assert len(children_of(bench, uri)) == 2
        (bench.folder / "mlflow.db").unlink()  # and nothing more is to be sent
        stop.set()
        assert publisher.run_forever(stop)
        assert len(children_of(bench, uri)) == 2


class TestOutage:
    def test_costs_time_outs_and_nothing_else(self, bench: Bench) -> None:
        run_trial(bench.writer, 0)
        with socket.socket() as silent:  # accepts, never answers
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            publisher = bench.publisher(f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}")
            began = time.monotonic()
            assert publisher.publish_once() == 0
            assert time.monotonic() - began < 15.0
        assert publisher.trouble is not None
        assert "secret" not in publisher.trouble
        assert "the sweep goes on" in publisher.trouble.lower()

    def test_a_refused_connection_is_noticed_at_once(self, bench: Bench) -> None:
        run_trial(bench.writer, 0)
        publisher = bench.publisher("http://127.0.0.1:9")
        publisher.publish_once()  # imports MLflow
        began = time.monotonic()
        assert publisher.publish_once() == 0
        assert time.monotonic() - began < 1.0
        assert not publisher.is_up_to_date()

    def test_waiting_grows_and_ends_with_the_outage(
        self, bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run_trial(bench.writer, 0)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        publisher = bench.publisher(f"http://127.0.0.1:{port}")
        stop = Event()
        thread = Thread(target=publisher.run_forever, args=(stop,), kwargs={"grace_s": 30.0})
        thread.start()
        try:
            time.sleep(4.0)
            assert publisher.trouble
            folder = tmp_path / "late"
            with start_server(default_uri(folder), folder / "artifacts", port=port) as server:
                stop.set()
                thread.join(60.0)
                assert not thread.is_alive()
                assert publisher.is_up_to_date()
                assert len(children_of(bench, server.url)) == 1
        finally:
            stop.set()
            thread.join(60.0)
        warnings = [
            record.message for record in caplog.records if "cannot be used" in record.message
        ]
        assert len(warnings) == 1

    def test_a_server_that_froze_while_it_created_a_run_leaves_one_run(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        folder = tmp_path / "frozen"
        with start_server(default_uri(folder), folder / "artifacts") as server:
            publisher = bench.publisher(server.url)
            publisher.publish_all()
            run_trial(bench.writer, 0)
            group = server.process.pid
            with Mlflow(server.url)._calling() as client:
                experiment = bench.ledger.sweep("first").experiment_id
                assert client.get_experiment(experiment) is not None
            real = publisher._mlflow.find

            def find_then_freeze(experiment_id: str, key: str) -> Any:
                found = real(experiment_id, key)
                os.killpg(group, signal.SIGSTOP)
                return found

            publisher._mlflow.find = find_then_freeze  # type: ignore[method-assign]
            assert publisher.publish_once() == 0
            assert publisher.trouble
            os.killpg(group, signal.SIGCONT)
            publisher._mlflow.find = real  # type: ignore[method-assign]
            stop = Event()
            stop.set()
            assert publisher.run_forever(stop, grace_s=60.0)
            time.sleep(1.0)
            assert len(children_of(bench, server.url)) == 1

    def test_a_run_created_by_a_call_nobody_answered_is_dropped_again(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = default_uri(bench.folder)
        publisher = bench.publisher(uri)
        publisher.publish_all()
        run_trial(bench.writer, 0)
        mlflow = publisher._mlflow
        create, lost = mlflow.create, []

        def create_without_answer(*arguments: Any) -> RunHandle:
            lost.append(create(*arguments))
            raise MlflowUnavailableError(uri, "timed out")

        with monkeypatch.context() as patch:
            patch.setattr(mlflow, "create", create_without_answer)
            publisher.publish_once()
        with monkeypatch.context() as patch:
            patch.setattr(mlflow, "find", lambda *_: [])  # it shows up only later
            publisher.publish_once()
        assert len(children_of(bench, uri)) == 2
        stop = Event()
        stop.set()
        assert publisher.run_forever(stop)
        (child,) = children_of(bench, uri)
        assert child.info.run_id != lost[0].id
        assert child.data.metrics["val_accuracy"] == 90.25


def environment_of(bench: Bench, uri: str) -> dict[str, Any]:
    return {
        "ledger_url": bench.ledger_url,
        "tracking_uri": uri,
        "artifacts_url": str(bench.folder / "artifacts"),
        "sweep": bench.name,
        "log_file": str(bench.folder / "publisher.log"),
    }


def wait_for(what: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


class TestPublisherProcess:
    def test_killed_again_and_again_it_still_ends_exact(self, bench: Bench) -> None:
        uri = default_uri(bench.folder)
        trials = [run_trial(bench.writer, number) for number in range(40)]
        sweep = bench.ledger.sweep("first")
        for share in (1, 12, 25):
            process = start_publisher(**environment_of(bench, uri))

            def sent() -> int:
                records = bench.ledger.trials(sweep.id)
                return sum(trial.published_rev > 0 for trial in records)

            wait_for(lambda sent=sent, share=share: sent() >= share)
            process.kill()
            process.wait()
        assert sent() < 40
        process = start_publisher(**environment_of(bench, uri))
        wait_for(lambda: not bench.outbox.dirty_trials(sweep.id))
        process.terminate()
        assert process.wait(60) == 0, (bench.folder / "publisher.log").read_text()
        children = children_of(bench, uri)
        assert len(children) == 40
        assert {run.data.tags["prunesweep.trial"] for run in children} == {
            f"uid{number}" for number in range(40)
        }
        assert {run.info.status for run in children} == {"FINISHED"}
        ids = {run.info.run_id for run in children}
        assert {bench.outbox.attempts_of(trial)[0].run_id for trial in trials} == ids
        with sa.create_engine(uri, poolclass=sa.NullPool).connect() as connection:
            rows = connection.execute(sa.text("SELECT run_uuid FROM metrics")).scalars().all()
        per_trial = 2 * EPOCHS + 10  # of each epoch, and of the result but its test accuracy
        assert Counter(run for run in rows if run in ids) == dict.fromkeys(ids, per_trial)

    def test_sigterm_sends_what_is_left_first(self, bench: Bench) -> None:
        uri = default_uri(bench.folder)
        process = start_publisher(**environment_of(bench, uri))
        wait_for(lambda: not bench.outbox.dirty_sweeps())
        for number in range(5):
            run_trial(bench.writer, number)
        process.terminate()
        assert process.wait(60) == 0
        assert len(children_of(bench, uri)) == 5

    def test_ends_when_mlflow_does_not_come_back(self, bench: Bench) -> None:
        run_trial(bench.writer, 0)
        environment = environment_of(bench, "http://127.0.0.1:9")
        process = start_publisher(**environment, grace_s=2.0)
        log = bench.folder / "publisher.log"
        wait_for(lambda: "cannot be used now" in log.read_text())
        process.terminate()
        assert process.wait(60) == os.EX_TEMPFAIL

    def test_outlives_its_parent_only_to_finish(self, bench: Bench) -> None:
        uri = default_uri(bench.folder)
        for number in range(10):
            run_trial(bench.writer, number)
        settings = environment_of(bench, uri)
        script = (
            "import os, time; "
            "from tracking.mlflow_mirror.publisher_process import start_publisher; "
            f"print(start_publisher(**{settings!r}).pid, flush=True); "
            "time.sleep(1); os._exit(9)"
        )
        parent = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        pid = int(parent.stdout)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=120.0)
        assert bench.outbox.dirty_trials() == []
        assert len(children_of(bench, uri)) == 10

    def test_its_command_line_shows_no_password(self, bench: Bench) -> None:
        process = start_publisher(**environment_of(bench, "http://user:secret@127.0.0.1:9"))
        try:
            wait_for(Path(f"/proc/{process.pid}/cmdline").read_bytes)
            shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        finally:
            process.kill()
            process.wait()
        assert b"tracking.mlflow_mirror.publisher_process" in shown
        assert b"secret" not in shown


class TestSolePublisher:
    def test_the_second_waits_for_the_first(self, ledger: Ledger, ledger_url: str) -> None:
        stop = Event()
        stop.set()
        with sole_publisher(ledger_url, "first", Event()) as first:
            assert first()
            assert first()
            with sole_publisher(ledger_url, "first", stop) as second:
                assert not second()
            with sole_publisher(ledger_url, "other", stop) as other:
                assert other()
        with sole_publisher(ledger_url, "first", stop) as second:
            assert second()

    def test_a_lock_that_is_removed_along_with_the_ledger_holds_again(self, tmp_path: Path) -> None:
        url, stop = f"sqlite:///{tmp_path}/ledger.db", Event()
        stop.set()
        with sole_publisher(url, "a sweep", stop) as first:
            assert first()
            for part in tmp_path.glob("ledger.db*"):
                part.unlink()
            with sole_publisher(url, "a sweep", stop) as second:
                assert second()
                assert not first()
            assert first()

    def test_it_is_noticed_that_a_server_that_was_killed_forgets_who_was_first(self) -> None:
        stop = Event()
        stop.set()
        with running_postgres() as server, ExitStack() as others:
            url = server.new_database()
            with sole_publisher(url, "sweep", stop) as first:
                assert first()
                server.end(signal.SIGKILL)
                assert not first()
                with sole_publisher(url, "sweep", stop) as early:  # waits for the server, too
                    assert not early()
                server.start()
                second = others.enter_context(sole_publisher(url, "sweep", stop))
                assert second()
                assert not first()
                others.close()
                assert first()

    def test_without_the_right_nothing_is_sent(self, bench: Bench) -> None:
        run_trial(bench.writer, 0)
        uri, alone = default_uri(bench.folder), [False]
        store = ArtifactStore(bench.folder / "artifacts")
        publisher = Publisher(bench.ledger, uri, store, may_publish=lambda: alone[0])
        assert publisher.publish_all() == 0
        assert "Another process" in str(publisher.trouble)
        alone[0] = True
        assert publisher.publish_all() > 0
        assert publisher.trouble is None
        assert len(children_of(bench, uri)) == 1


class TestMlflow:
    def test_processes_that_open_a_fresh_store_together_all_succeed(self, tmp_path: Path) -> None:
        uri = default_uri(tmp_path / "fresh")
        script = (
            "import sys; from tracking.mlflow_mirror.client import Mlflow; "
            f"print(Mlflow({uri!r}).experiment('prunesweep/' + sys.argv[1], None))"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", script, str(number)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        outputs = [process.communicate(timeout=120) for process in processes]
        assert sorted(int(out) for out, _ in outputs) == [1, 2]

    def test_publishes_to_a_database_of_its_own(
        self, bench: Bench, postgres: PostgresServer
    ) -> None:
        run_trial(bench.writer, 0)
        uri = postgres.new_database()
        publisher = bench.publisher(uri)
        publisher.publish_all()
        assert publisher.trouble is None
        (child,) = children_of(bench, uri)
        assert child.data.metrics["val_accuracy"] == 90.25
        assert child.info.artifact_uri.startswith((bench.folder / "artifacts").as_uri())

    def test_an_unreachable_database_is_noticed_within_seconds(self) -> None:
        began = time.monotonic()
        with pytest.raises(MlflowUnavailableError) as caught:
            Mlflow("postgresql+psycopg://user:secret@127.0.0.1:9/mlflow").experiment("x", None)
        assert time.monotonic() - began < 10.0
        assert "secret" not in str(caught.value)
