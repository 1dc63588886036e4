"""Workers share GPUs on a real Ray cluster; the GPUs are only counted, none is there."""

import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.cluster.ray_backend import RayBackend
from orchestrator.loop.backend import Event, Failed, Finished, Lost, Reported, Slot, Task
from orchestrator.specification.settings import ResourceSettings
from tests.orchestrator.doomed import stand_in
from tests.orchestrator.packed import HALF_NEEDED, RUNNER, SIXTH, THIRD, TOO_LARGE
from tracking.records import Loss

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs no trials, and one machine with one GPU, started as `ray up` starts it."""
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(address=running.address, log_to_driver=False)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        running.add_node(num_cpus=8, num_gpus=1)
    running.wait_for_nodes()
    yield running
    ray.shutdown()
    running.shutdown()  # type: ignore[no-untyped-call]


class Bench:
    """A backend on that machine, and what is done with it."""

    def __init__(self, folder: Path, **resources: object) -> None:
        self.folder = folder
        settings = ResourceSettings.model_validate(resources)
        self.backend = RayBackend(settings, str(folder), str(folder), runner=RUNNER)
        self._started = 0

    def free(self, wanted: int) -> list[Slot]:
        """Wait for so many free workers."""
        deadline = time.monotonic() + 200
        while len(slots := self.backend.free_slots()) < wanted:
            assert time.monotonic() < deadline, f"{len(slots)} workers are free, not {wanted}"
            self.backend.wait(0.2)
        return slots

    def begin(self, seed: int, *, alone: bool = False) -> Task:
        """Start a trial on the first free worker."""
        self._started += 1
        task = Task(trial_id=self._started, attempt=1)
        spec = stand_in(seed)
        self.backend.start(self.free(1)[0], task, spec, alone=alone)
        return task

    def end(self) -> Event:
        """Wait for what ends a trial."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for event in self.backend.wait(1.0):
                if not isinstance(event, Reported):
                    return event
        raise TimeoutError("nothing was heard of the trial's end")

    def result(self, seed: int, *, alone: bool = False) -> dict[str, float]:
        """Run a trial to its end."""
        self.begin(seed, alone=alone)
        ended = self.end()
        assert isinstance(ended, Finished), ended
        return ended.result


@pytest.fixture
def bench(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(tmp_path, **getattr(request, "param", {}))
    yield made
    made.backend.close()


def gpus_left() -> float:
    """Return what Ray has not given to a worker, once it has noticed."""
    time.sleep(1.0)
    return float(ray.available_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("bench", [{"workers": 4, "cpus_per_worker": 0.5}], indirect=True)
def test_the_first_trial_has_a_gpu_to_itself_and_then_as_many_share_it_as_fit(
    bench: Bench,
) -> None:
    (bench.folder / "busy").touch()
    first = bench.begin(THIRD)
    assert (bench.backend.running, bench.backend.free_slots(), gpus_left()) == (1, [], 0.0)
    (bench.folder / "busy").unlink()
    ended = bench.end()
    assert isinstance(ended, Finished)
    assert (ended.task, ended.result["share"]) == (first, 1.0)
    assert ended.result["threads"] == 1  # of half a CPU
    bench.free(3)
    assert gpus_left() < 0.001
    assert len(bench.backend.free_slots()) == 3  # of four workers
    (bench.folder / "busy").touch()
    for _ in range(3):
        bench.begin(THIRD)
    assert bench.backend.running == 3
    (bench.folder / "busy").unlink()


@pytest.mark.parametrize("bench", [{"workers": 2}], indirect=True)
def test_a_trial_that_runs_out_of_memory_is_tried_again_with_twice_the_share(
    bench: Bench,
) -> None:
    assert bench.result(SIXTH, alone=True)["share"] == 1.0
    assert bench.result(SIXTH)["share"] == 1.0  # what runs alone says nothing of the others
    bench.free(2)
    task = bench.begin(HALF_NEEDED)
    lost = bench.end()
    assert lost == Lost(
        task=task,
        loss=Loss.DEVICE_MEMORY,
        reason="GPU memory ran out in a share of 0.1666; workers get 0.3333 from now on",
    )
    bench.begin(HALF_NEEDED)
    assert isinstance(bench.end(), Lost)
    assert bench.result(HALF_NEEDED)["share"] == 1.0  # twice a third is no part of a GPU
    bench.begin(TOO_LARGE)
    failed = bench.end()
    assert isinstance(failed, Failed)
    assert failed.cause.startswith("OutOfMemoryError: the trial does not fit into a whole GPU; use")
    assert "CUDA out of memory in a share of 1" in failed.error


@pytest.mark.parametrize(
    "bench", [{"workers": 1, "gpu_share": 0.25, "cpus_per_worker": 2}], indirect=True
)
def test_a_share_that_was_set_is_kept_and_named_where_it_is_too_small(bench: Bench) -> None:
    assert bench.result(SIXTH) == {"pid": ANY, "share": 0.25, "threads": 2}  # as many as CPUs
    assert bench.backend.device_of_first_worker().endswith(", 2 CPU threads")
    assert bench.result(SIXTH)["share"] == 0.25
    bench.begin(HALF_NEEDED)
    failed = bench.end()
    assert isinstance(failed, Failed)
    assert failed.cause.startswith("OutOfMemoryError: the trial does not fit into resources.gpu_")
    assert bench.result(SIXTH)["share"] == 0.25  # by the same worker
