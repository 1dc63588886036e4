"""Sixty-four workers on a clock that only simulated trials move: are they busy, and if not, why."""

import random
from pathlib import Path

import pytest

from benchmarks.virtual import Stint, VirtualBackend, searching, utilisation
from orchestrator.loop.backend import Event, Finished, Reported, Stopped, Task
from tests.orchestrator.simulation import REPORTS, simulate
from tests.orchestrator.sweeps import OFF, Bench, specification
from workers.settings import TrialSpec

WORKERS = 64
ARMS = ("l1", "l2", "geometric_median", "random")


def still() -> float:
    """Return the time of a clock that stands still."""
    return 0.0


def minutes(spec: TrialSpec) -> float:
    """Return the length of a trial: about five minutes, some twice as long."""
    return 300.0 * random.Random(spec.uid).lognormvariate(0.0, 0.5)


def run_search(folder: Path, sampler: str, trials: int, window: int) -> list[Stint]:
    """Run eight searches on 64 workers and return what these did."""
    spec = specification(
        arms=list(ARMS),
        targets={"macs_reduction": [0.3, 0.5]},
        search={"sampler": sampler, "trials": trials, "window": window},
        controls=OFF,
    )
    backend = VirtualBackend(WORKERS, simulate, minutes, clock=still)
    assert Bench(folder).drive(spec, backend).over
    return backend.stints


def share_busy(stints: list[Stint]) -> float:
    """Return the workers' utilisation while there was something left to search."""
    return utilisation(stints, WORKERS, *searching(stints, WORKERS, seed=0))


@pytest.mark.parametrize(("sampler", "window"), [("nsga2", 32), ("random", 1)])
def test_sixty_four_workers_are_busy_when_the_windows_are_wide_enough_or_do_not_matter(
    tmp_path: Path, sampler: str, window: int
) -> None:
    stints = run_search(tmp_path, sampler, trials=40, window=window)
    assert sum(stint.kind == "prune" and stint.seed == 0 for stint in stints) > 300
    assert share_busy(stints) > 0.98


def test_windows_that_add_up_to_the_workers_leave_some_idle(tmp_path: Path) -> None:
    # The next proposal of a search waits for its oldest trial, not for any of them.
    stints = run_search(tmp_path, "nsga2", trials=20, window=8)
    assert 0.4 < share_busy(stints) < 0.9


class TestVirtualBackend:
    """Two workers, trials of 100 s that report three times."""

    @pytest.fixture
    def backend(self) -> VirtualBackend:
        return VirtualBackend(2, simulate, lambda _spec: 100.0, clock=still)

    def begin(self, backend: VirtualBackend, trial_id: int, spec: TrialSpec) -> Task:
        task = Task(trial_id=trial_id, attempt=1)
        backend.start(backend.free_slots().pop(), task, spec)
        return task

    @pytest.fixture
    def spec(self) -> TrialSpec:
        base = specification()
        return TrialSpec(
            kind="dense",
            model=base.model,
            data=base.data,
            data_hash="0",
            recipe=base.recipe,
            seed=0,
        )

    def test_time_passes_to_the_next_event_but_not_beyond_the_time_out(
        self, backend: VirtualBackend, spec: TrialSpec
    ) -> None:
        self.begin(backend, 1, spec)
        assert backend.wait(20.0) == []
        assert backend.now() == 20.0
        (event,) = backend.wait(20.0)
        assert isinstance(event, Reported)
        assert backend.now() == 100.0 / (REPORTS + 1)

    def test_no_time_is_skipped_while_a_proposal_is_being_made(self) -> None:
        looks = iter([True, True, True])
        backend = VirtualBackend(
            1, simulate, minutes, is_planning=lambda: next(looks, False), clock=still
        )
        backend.wait(10.0)
        assert next(looks, None) is None  # it looked until there was nothing to wait for
        assert backend.now() == 10.0

    def test_a_worker_is_free_when_its_trial_has_ended(
        self, backend: VirtualBackend, spec: TrialSpec
    ) -> None:
        self.begin(backend, 1, spec)
        self.begin(backend, 2, spec)
        assert backend.free_slots() == []
        heard: list[Event] = []
        while backend.running:
            heard += backend.wait(1000.0)
        assert [type(event) for event in heard][-2:] == [Finished, Finished]
        assert len(backend.free_slots()) == 2
        assert utilisation(backend.stints, 2, 0.0, 200.0) == 0.5

    def test_a_trial_told_to_stop_ends_at_its_next_report(
        self, backend: VirtualBackend, spec: TrialSpec
    ) -> None:
        task = self.begin(backend, 1, spec)
        backend.wait(1000.0)
        backend.stop(task)
        assert [type(event) for event in backend.wait(1000.0)] == [Reported, Stopped]
        assert (backend.running, backend.now(), backend.stints[0].ended) == (0, 50.0, 50.0)

    def test_an_abandoned_trial_is_not_heard_of_again(
        self, backend: VirtualBackend, spec: TrialSpec
    ) -> None:
        task = self.begin(backend, 1, spec)
        backend.wait(10.0)
        backend.abandon(task)
        assert len(backend.free_slots()) == 2
        assert backend.wait(1000.0) == []
