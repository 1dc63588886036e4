"""A mirror whose ledger is made anew, comes back, or is copied with its store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tracking.mlflow_mirror.test_publisher import Bench, client_of, run_trial
from tracking.mlflow_mirror.mirror import IS_RESULT, SUPERSEDED
from tracking.mlflow_mirror.server import MlflowServer, default_uri, prepare_store, start_server
from tracking.records import SweepState

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh")
    prepare_store(default_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    with start_server(default_uri(folder), folder / "artifacts") as started:
        yield started


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, fresh: Path) -> str:
    if request.param == "server":
        url: str = request.getfixturevalue("server").url
        return url
    shutil.copy(fresh, tmp_path)
    return default_uri(tmp_path)


def begun(folder: Path, name: str, uri: str) -> Bench:
    """Return a sweep of two trials that MLflow shows."""
    bench = Bench(folder, name)
    for number in range(2):
        run_trial(bench.writer, number)
    publish(bench, uri)
    return bench


def publish(bench: Bench, uri: str) -> None:
    publisher = bench.publisher(uri)
    publisher.publish_all()
    assert publisher.is_up_to_date()


def results(bench: Bench, uri: str) -> dict[str, int]:
    """Return how many results MLflow shows in the experiment, by the parent run's id."""
    sweep = bench.ledger.sweep(bench.name)
    with client_of(uri) as client:
        runs = client.search_runs([sweep.experiment_id], f"tags.`{IS_RESULT}` = 'true'")
    parents = [run.data.tags["mlflow.parentRunId"] for run in runs]
    return {parent: parents.count(parent) for parent in parents}


def parent_of(bench: Bench) -> str:
    return str(bench.ledger.sweep(bench.name).run_id)


def remove(bench: Bench) -> None:
    bench.ledger.close()
    for part in bench.folder.glob("ledger.db*"):
        part.unlink()


def test_a_ledger_made_anew_does_not_show_every_trial_twice(tmp_path: Path, uri: str) -> None:
    first = begun(tmp_path / "store", "anew", uri)
    before = parent_of(first)
    remove(first)
    second = begun(tmp_path / "store", "anew", uri)
    assert results(second, uri) == {parent_of(second): 2}
    with client_of(uri) as client:
        former = client.get_run(before)
    assert former.data.tags[SUPERSEDED].startswith("anew/")
    assert former.info.status == "KILLED"
    second.ledger.close()


def test_put_back_it_counts_again(tmp_path: Path, uri: str) -> None:
    first = begun(tmp_path / "store", "back", uri)
    first.ledger.close()
    (tmp_path / "store" / "ledger.db").rename(tmp_path / "kept.db")
    remove(first)  # what would tell that one was there
    second = begun(tmp_path / "store", "back", uri)
    second.ledger.close()
    (tmp_path / "kept.db").replace(tmp_path / "store" / "ledger.db")
    first.writer.set_state(SweepState.COMPLETED)
    publish(first, uri)
    publish(first, uri)
    assert results(first, uri) == {parent_of(first): 2}
    first.ledger.close()


def test_a_sweep_of_the_same_name_in_another_ledger_is_left_alone(tmp_path: Path, uri: str) -> None:
    mine = begun(tmp_path / "mine", "shared", uri)
    theirs = begun(tmp_path / "theirs", "shared", uri)
    assert results(mine, uri) == {parent_of(mine): 2, parent_of(theirs): 2}


@pytest.mark.parametrize("old_stays", [True, False])
def test_files_of_a_store_that_was_copied_go_to_the_new_place(
    tmp_path: Path, fresh: Path, old_stays: bool
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    shutil.copy(fresh, old)
    bench = begun(old, "copied", default_uri(old))
    run = bench.ledger.attempts(bench.ledger.sweep("copied").id)[0].run_id
    bench.ledger.close()
    shutil.copytree(old, new)
    if not old_stays:
        shutil.rmtree(old)
    files = sorted(old.rglob("*"))
    moved = Bench(new, "copied")
    run_trial(moved.writer, 2)
    publish(moved, default_uri(new))
    assert sorted(old.rglob("*")) == files
    with client_of(default_uri(new)) as client:
        for shown in client.search_runs([moved.ledger.sweep("copied").experiment_id]):
            assert shown.info.artifact_uri.startswith(new.as_uri())
        assert [file.path for file in client.list_artifacts(run)] == ["plan.json"]
    moved.ledger.close()
