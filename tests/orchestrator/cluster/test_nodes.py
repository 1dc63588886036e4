"""Sweeps on machines that come and go, or are cut off: nodes and networks made on this one."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT
from tests.orchestrator.hosts import Network, NoNamespacesError, network
from tests.orchestrator.processes import PATIENCE_S, RealSweep
from tests.orchestrator.ray_cluster import HERE, RayCluster, running_cluster
from tests.orchestrator.simulation import SECONDS
from tests.orchestrator.sweeps import BASE, Bench, specification, without_device
from tracking.records import AttemptRecord, Loss, Outcome

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,  # test_chaos runs a sweep on two nodes in every run
    pytest.mark.timeout(1800),
]

TRIAL_S = 1.0  #: Trials sleep, so that throughput is not a matter of CPUs.
JOIN_S = 20.0  #: Longest until a node that has joined has a trial.
RATE_S = 10.0  #: Trials are counted for so long.
LOOK_S = 0.2  #: Between two looks at the ledger.

NODES = {"PYTHONPATH": str(ROOT), SECONDS: str(TRIAL_S)}
#: A machine that does not answer is given up after some 15 s instead of 65.
IMPATIENCE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}

SHORT = {**BASE, "tracking": {"mlflow": "off"}}
LONG = {
    **SHORT,
    "targets": {"macs_reduction": [0.3, 0.6]},
    "search": {"trials": 40, "window": 4, "sampler": "random"},
}
ENDLESS = {
    **LONG,
    "search": {"trials": 1000, "window": 4, "sampler": "random"},
    "resources": {"workers": 4},
}


def quiet(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Return what the sweep comes to without Ray."""
    bench = Bench(folder)
    assert bench.drive(specification(**fields)).over
    return without_device(bench.content())


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head, and two nodes with a worker's room each."""
    with running_cluster(nodes=0, host=HERE, **NODES) as running:
        for _ in range(2):
            running.add_node(cpus=1)
        yield running


class Watch:
    """A sweep under way, and its ledger."""

    def __init__(self, sweep: RealSweep, driver: "subprocess.Popen[bytes]") -> None:
        self.sweep, self._driver = sweep, driver

    def until(self, condition: Callable[[list[AttemptRecord]], bool], what: str) -> None:
        """Wait for something to become true of the attempts so far."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self.sweep.attempts()):
            assert self._driver.poll() is None, f"over before {what}: {self.sweep.words()}"
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(LOOK_S)

    def until_completed(self, more: int) -> None:
        """Wait until so many more trials have ended."""
        goal = more + len(ended(self.sweep.attempts()))
        self.until(lambda attempts: len(ended(attempts)) >= goal, f"{goal} trials")

    def finish(self) -> None:
        """Wait for the sweep's end."""
        assert self._driver.wait(PATIENCE_S) == 0, self.sweep.words()


@contextmanager
def driven(sweep: RealSweep) -> Iterator[Watch]:
    """Drive a sweep beside the block, and no longer than that."""
    with sweep.driver() as process:
        yield Watch(sweep, process)


def ended(attempts: Sequence[AttemptRecord]) -> set[int]:
    return {a.trial_id for a in attempts if a.outcome is Outcome.COMPLETED}


def rate(attempts: Sequence[AttemptRecord], since: datetime) -> float:
    """Return how many trials ended per second, from a moment on."""
    end = since + timedelta(seconds=RATE_S)
    moments = [a.ended_at for a in attempts if a.outcome is Outcome.COMPLETED]
    return sum(at is not None and since <= at < end for at in moments) / RATE_S


def most_at_once(attempts: Sequence[AttemptRecord]) -> int:
    """Return how many ran at the same moment, at most."""
    now = datetime.now(UTC)
    return max(
        sum(a.started_at <= moment < (a.ended_at or now) for a in attempts)
        for moment in (attempt.started_at for attempt in attempts)
    )


def test_a_sweep_spreads_over_the_nodes_and_its_table_is_the_same(
    tmp_path: Path, cluster: RayCluster
) -> None:
    sweep = RealSweep(tmp_path, SHORT, cluster=cluster)
    with driven(sweep) as watch:
        watch.until(lambda attempts: len({a.pid for a in attempts}) == 2, "two workers")
        nodes = {attempt.pid: attempt.node for attempt in sweep.attempts()}
        for node in cluster.nodes:
            assert len(nodes.keys() & node.processes()) == 1
        watch.finish()
    work = Counter(attempt.node for attempt in sweep.attempts())
    assert work.keys() == set(nodes.values())
    assert len(work) == 2
    assert min(work.values()) >= 3
    assert without_device(sweep.bench().content()) == quiet(tmp_path, SHORT)


def test_a_node_is_used_while_it_is_there(tmp_path: Path, cluster: RayCluster) -> None:
    sweep = RealSweep(tmp_path, ENDLESS, cluster=cluster)
    begun = datetime.now(UTC)
    with driven(sweep) as watch:
        watch.until(lambda attempts: len({a.pid for a in attempts}) == 2, "two workers")
        start = datetime.now(UTC)
        settled = (min(a.started_at for a in sweep.attempts()) - begun).total_seconds()
        watch.until_completed(round(2 * RATE_S / TRIAL_S))
        before = sweep.attempts()

        node = cluster.add_node(cpus=2)
        joined = datetime.now(UTC)
        old = {attempt.node for attempt in before}
        watch.until(lambda attempts: any(a.node not in old for a in attempts), "the new node")
        first = min(a.started_at for a in sweep.attempts() if a.node not in old)
        watch.until(lambda attempts: most_at_once(attempts) == 4, "four trials at once")
        since = datetime.now(UTC)
        watch.until(lambda _: datetime.now(UTC) - since > timedelta(seconds=RATE_S), "a while")
        after = sweep.attempts()

        cluster.kill_node(node)
        watch.until(lambda attempts: len(losses(attempts)) == 2, "the loss of the node")
        lost = losses(sweep.attempts())
        orphans = {attempt.trial_id for attempt in lost}
        watch.until(lambda attempts: orphans <= ended(attempts), "its trials to end elsewhere")
    waited = (first - joined).total_seconds()
    rates = rate(before, start), rate(after, since)
    print(
        f"a trial {waited:.1f} s after the node ({settled:.1f} s after the driver), {rates} per s"
    )
    assert most_at_once(before) == 2
    assert waited < max(JOIN_S, settled)  # as long as all took to begin, where others keep it busy
    assert rates[1] > 1.5 * rates[0]

    assert {attempt.loss for attempt in lost} == {Loss.NODE}
    assert {attempt.node for attempt in lost}.isdisjoint(old)


@pytest.fixture
def hosts() -> Iterator[Network]:
    try:
        with network(3) as made:
            yield made
    except NoNamespacesError as error:
        pytest.skip(str(error))


def test_a_host_that_is_cut_off_costs_time_and_nothing_else(tmp_path: Path, hosts: Network) -> None:
    head, near, far = hosts.hosts
    with running_cluster(nodes=0, host=head, **NODES, **IMPATIENCE) as cluster:
        cluster.add_node(cpus=1, host=near)
        gone = cluster.add_node(cpus=1, host=far)
        sweep = RealSweep(tmp_path, LONG, cluster=cluster)
        with driven(sweep) as watch:
            watch.until(lambda attempts: len(nodes_of(attempts)) == 2, "both hosts")
            assert {name.partition("/")[0] for name in nodes_of(sweep.attempts())} == {
                near.address,
                far.address,
            }
            watch.until_completed(6)
            hosts.cut(far)
            cut = datetime.now(UTC)
            watch.until(lambda attempts: bool(losses(attempts)), "the loss")
            noticed = datetime.now(UTC)
            watch.until_completed(3)  # by the host that is left

            hosts.mend(far)
            mended = datetime.now(UTC)
            watch.until(lambda _: gone.process.poll() is not None, "Ray to end there by itself")
            print(f"Ray ended there after {(datetime.now(UTC) - mended).total_seconds():.1f} s")
            cluster.kill_node(gone)
            cluster.add_node(cpus=1, host=far)
            watch.until(lambda attempts: len(nodes_of(attempts)) == 3, "the host to join again")
            watch.finish()
    print(f"noticed {(noticed - cut).total_seconds():.1f} s after the cut")
    (lost,) = losses(sweep.attempts())
    assert lost.loss in {Loss.NODE, Loss.HUNG}
    assert lost.node.startswith(f"{far.address}/")
    joined = [a for a in sweep.attempts() if a.started_at > noticed and far.address in a.node]
    assert {attempt.outcome for attempt in joined} == {Outcome.COMPLETED}
    assert lost.node not in nodes_of(joined)
    assert without_device(sweep.bench().content()) == quiet(tmp_path, LONG)


def nodes_of(attempts: Sequence[AttemptRecord]) -> set[str]:
    return {attempt.node for attempt in attempts}


def losses(attempts: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    return [attempt for attempt in attempts if attempt.outcome is Outcome.LOST]
