"""Every machine of a cluster is looked at before trials go there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.cluster.machines import inspect_machines, verdict_of
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.sweeps import specification
from workers.node.inspection import Inspection
from workers.settings import DataSettings


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    running.add_node(num_cpus=1)
    running.add_node(num_cpus=1)
    running.wait_for_nodes()
    ray.init(address=running.address, log_to_driver=False)
    yield running
    ray.shutdown()
    running.shutdown()  # type: ignore[no-untyped-call]


def says(**changes: object) -> Inspection:
    answer = {
        "data_hash": "d-1",
        "versions": {"torch": "2.15"},
        "commit": "0123abc",
        "free_bytes": 5 * 10**9,
        "seconds": 1.5,
    }
    return Inspection(**{**answer, **changes})  # type: ignore[typeddict-item]


class TestVerdict:
    def test_machines_that_agree_are_in_order(self) -> None:
        ok, detail = verdict_of({"a#1": says(), "b#2": says(seconds=7.0, free_bytes=10**9)})
        assert ok
        assert detail == (
            "2 with the same images, versions and code; the slowest read its images in 7.0 s, the "
            "fullest has 1.0 GB free"
        )

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"data_hash": "d-2"},
                "different images: most have checksum d-1; c#3 has checksum d",
            ),
            ({"versions": {"torch": "2.14"}}, "different versions: most have torch 2.15; c#3 has"),
            ({"commit": None}, "different code: most have commit 0123abc; c#3 has commit None"),
        ],
    )
    def test_the_one_that_differs_is_named(self, changes: dict[str, object], words: str) -> None:
        ok, detail = verdict_of({"a#1": says(), "b#2": says(), "c#3": says(**changes)})
        assert not ok
        assert words in detail

    def test_one_that_cannot_read_its_images_says_why(self) -> None:
        ok, detail = verdict_of({"a#1": says(), "b#2": "DataError: there is no folder"})
        assert not ok
        assert detail == "b#2: DataError: there is no folder"

    def test_a_cluster_without_room_for_a_worker_is_no_cluster(self) -> None:
        assert verdict_of({}) == (False, "No machine of the cluster has a CPU for a worker.")


@pytest.mark.integration
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestARealCluster:
    def spec(self, folder: Path) -> SweepSpec:
        return specification(tracking={"store": str(folder / "store"), "mlflow": "off"})

    def test_each_that_can_hold_a_worker_prepares_the_images(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        found = inspect_machines(self.spec(tmp_path))
        assert len(found) == 2
        assert verdict_of(found)[0]
        assert list((tmp_path / "store" / "artifacts").rglob("*.*")) == []

    def test_what_one_cannot_read_is_told(self, cluster: Cluster, tmp_path: Path) -> None:
        data = DataSettings(name="image_folder", path=str(tmp_path / "gone"))
        gone = self.spec(tmp_path).model_copy(update={"data": data})
        ok, detail = verdict_of(inspect_machines(gone))
        assert not ok
        assert detail.count("gone") >= 2
