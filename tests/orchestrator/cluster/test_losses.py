"""What a real Ray cluster tells of trials that do not come to their end, and what we make of it."""

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.loop.backend import Event, Failed, Finished, Lost, Reported, Stopped, Task
from orchestrator.specification.settings import ResourceSettings
from tests.orchestrator.doomed import FATES, GROUP, GROUPS, LIMIT, RUNNER, stand_in
from tracking.records import Loss

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(300),
    # of the processes that Ray's own test cluster leaves behind
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs no trials; nodes are added by the tests."""
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(address=running.address, log_to_driver=False)
    yield running
    ray.shutdown()
    running.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Any]:
    added = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield added
    if added in cluster.worker_nodes:
        cluster.remove_node(added)


@pytest.fixture
def backend(node: Any, tmp_path: Path) -> Iterator[RayBackend]:
    made = RayBackend(
        ResourceSettings(workers=1, device="cpu"), str(tmp_path), str(tmp_path), runner=RUNNER
    )
    yield made
    made.close()


def begin(backend: RayBackend, fate: str, attempt: int = 1) -> Task:
    """Start a trial on the first free worker."""
    task = Task(trial_id=1, attempt=attempt)
    while not (slots := backend.free_slots()):
        backend.wait(1.0)
    spec = stand_in(FATES.index(fate))
    backend.start(slots[0], task, spec)
    return task


def end(backend: RayBackend, seconds: float = 120.0) -> Event:
    """Wait for what ends the trial."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in backend.wait(1.0):
            if not isinstance(event, Reported):
                return event
    raise TimeoutError("nothing was heard of the trial's end")


def hear(backend: RayBackend) -> None:
    """Wait for a report."""
    while not any(isinstance(event, Reported) for event in backend.wait(1.0)):
        pass


def test_a_result_an_error_and_a_crash_are_told_apart(backend: RayBackend) -> None:
    begin(backend, "error")
    failed = end(backend)
    assert isinstance(failed, Failed)
    assert failed.cause == "ValueError: this trial is wrong"
    begin(backend, "crash")
    lost = end(backend)
    assert isinstance(lost, Lost)
    assert lost.loss is Loss.WORKER
    assert "worker process" in lost.reason
    begin(backend, "result")  # by the worker that took its place
    assert isinstance(end(backend), Finished)


@pytest.mark.skipif(
    not (GROUPS / "cgroup.procs").exists(), reason="no memory control groups to be killed in"
)
def test_a_worker_that_the_kernel_kills_for_memory_is_no_crash(backend: RayBackend) -> None:
    try:
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"no right to make a control group: {error}")
    try:
        begin(backend, "memory")
        lost = end(backend)
    finally:
        time.sleep(0.5)  # until the kernel has buried it
        GROUP.rmdir()
    assert isinstance(lost, Lost)
    assert lost.loss is Loss.MEMORY
    begin(backend, "crash", attempt=2)  # what was counted once is not counted again
    again = end(backend)
    assert isinstance(again, Lost)
    assert again.loss is Loss.WORKER


def test_a_silent_trial_is_abandoned_and_its_worker_replaced(backend: RayBackend) -> None:
    task = begin(backend, "silence")
    hear(backend)
    backend.abandon(task)
    assert backend.running == 0
    begin(backend, "result", attempt=2)
    found = end(backend)
    assert isinstance(found, Finished)
    assert found.task.attempt == 2


def test_a_trial_is_stopped_where_it_reports(backend: RayBackend) -> None:
    task = begin(backend, "reports")
    hear(backend)
    backend.stop(Task(trial_id=1, attempt=9))  # nobody's
    hear(backend)
    backend.stop(task)
    assert end(backend) == Stopped(task=task)
    begin(backend, "result", attempt=2)  # by the same worker
    assert isinstance(end(backend), Finished)


def test_a_machine_that_dies_is_no_crash(cluster: Cluster, node: Any, backend: RayBackend) -> None:
    begin(backend, "reports")
    hear(backend)
    cluster.remove_node(node, allow_graceful=False)
    lost = end(backend)
    assert isinstance(lost, Lost)
    assert lost.loss is Loss.NODE


@pytest.mark.slow
def test_a_machine_that_is_drained_gets_no_new_trial(
    cluster: Cluster, node: Any, backend: RayBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cluster.ray_backend.DRAIN_CHECK_S", 0.0)
    task = begin(backend, "reports")
    hear(backend)
    _drain(cluster, node.node_id, seconds=30)
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    backend.stop(task)  # it may come to its end
    assert end(backend) == Stopped(task=task)
    begin(backend, "result", attempt=2)
    assert isinstance(end(backend), Finished)
    assert {seat.node_id for seat in backend._seats} == {other.node_id}
    cluster.remove_node(other)


@pytest.mark.slow
def test_a_machine_that_is_taken_back_is_told_from_one_that_dies(
    cluster: Cluster, node: Any, backend: RayBackend
) -> None:
    begin(backend, "reports")
    hear(backend)
    _drain(cluster, node.node_id, seconds=1)
    time.sleep(2.0)
    cluster.remove_node(node, allow_graceful=False)  # as whoever announced it does
    lost = end(backend)
    assert isinstance(lost, Lost)
    assert lost.loss is Loss.PREEMPTED


def _drain(cluster: Cluster, node_id: str, seconds: float) -> None:
    """Announce that a machine is taken back, as an autoscaler does."""
    raylet = importlib.import_module("ray._raylet")
    messages = importlib.import_module("ray.core.generated.autoscaler_pb2")
    client = raylet.GcsClient(address=cluster.gcs_address)
    deadline_ms = int((time.time() + seconds) * 1000)
    reason = messages.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = client.drain_node(node_id, reason, "taken back", deadline_ms)
    assert accepted, why
