"""Real drivers, real workers, real MLflow: killed, lost, out of reach."""

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.orchestrator.processes import RealSweep, until
from tests.orchestrator.simulation import REPORTS, RUNNER
from tests.orchestrator.sweeps import BASE, Bench, specification, without_device
from tracking.mlflow_mirror.server import default_uri, start_server
from tracking.places import Role
from tracking.records import Outcome, TrialState
from workers.node.actor import TRIAL_RUNNER

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,  # test_chaos kills one of each in every run
    pytest.mark.timeout(3000),
    # MLflow's own habits, met while it is imported or called
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

#: Proposals that are judged without training, finalists that are trained, and all that follows.
FIELDS = {
    **BASE,
    "targets": {"macs_reduction": [0.3, 0.6]},
    "search": {"trials": 4, "window": 3, "proxy": True, "finalists": 2},
}
PLACES = 51
REPORTING = {"baseline", "prune", "dense", "scratch"}  #: Kinds of trials that train.


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same sweep, simulated in this process without a disturbance."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    assert bench.drive(specification(**FIELDS)).over
    return bench.content()


class Runs:
    """The runs that MLflow shows of a sweep."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name("prunesweep/sweep")
        assert experiment is not None
        self.all = list(self._client.search_runs([experiment.experiment_id], max_results=1000))
        self.parents = [run for run in self.all if "prunesweep.is_parent" in run.data.tags]
        self.attempts = [run for run in self.all if "prunesweep.trial" in run.data.tags]
        self.results = [
            run for run in self.attempts if run.data.tags["prunesweep.is_result"] == "true"
        ]

    def curve(self, run: Any, key: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self._client.get_metric_history(run.info.run_id, key)]

    def check_against(self, bench: Bench) -> None:
        """Check that MLflow shows what the ledger holds: no more, no less."""
        trials = {trial.id: trial for trial in bench.trials()}
        attempts = bench.ledger.attempts(bench.ledger.sweep(bench.name).id)
        status = {Outcome.COMPLETED: "FINISHED", Outcome.LOST: "KILLED"}
        shown = Counter(
            (r.data.tags["prunesweep.trial"], r.data.tags["prunesweep.attempt"], r.info.status)
            for r in self.attempts
        )
        assert shown == Counter(
            (trials[a.trial_id].uid, str(a.n), status[a.outcome or Outcome.FAILED])
            for a in attempts
        )
        assert [run.info.status for run in self.parents] == ["FINISHED"]
        uids = Counter(run.data.tags["prunesweep.trial"] for run in self.results)
        assert uids == Counter(trial.uid for trial in trials.values())
        by_uid = {run.data.tags["prunesweep.trial"]: run for run in self.results}
        for trial in trials.values():
            run = by_uid[trial.uid]
            assert run.info.status == "FINISHED"
            points = [
                (point.step, point.value)
                for point in bench.ledger.metrics(trial.id)
                if point.key == "train_loss"
            ]
            assert len(points) == (REPORTS if trial.spec["kind"] in REPORTING else 0)
            assert self.curve(run, "train_loss") == points
            roles = {*run.data.tags["prunesweep.roles"].split(",")}
            counts = roles & {"baseline", "confirm", "control"}
            if counts and trial.result and "test_accuracy" in trial.result:
                assert run.data.metrics["test_accuracy"] == trial.result["test_accuracy"]


class TestKilledDriver:
    @pytest.mark.parametrize(
        "shares",
        [(0.2, 0.7), (0.0, 0.3, 0.6, 0.9)],
        ids=["twice", "four times"],
    )
    def test_the_sweep_ends_as_if_nothing_had_happened(
        self, tmp_path: Path, expected: dict[str, Any], shares: tuple[float, ...]
    ) -> None:
        sweep, draw = RealSweep(tmp_path, FIELDS, seconds=0.4), random.Random(20261122)
        finished: list[dict[str, int]] = []
        for share in shares:
            moment = self.moment(sweep, share, draw.random() * 0.5)
            sweep.kill_driver_when(moment)
            begun, trials = sweep.begun_bodies(), sweep.bench().trials()
            done = [trial.uid for trial in trials if trial.state is TrialState.COMPLETED]
            finished.append({uid: begun[uid] for uid in done})
        assert sweep.run() == 0, sweep.words()
        bench = sweep.bench()
        assert without_device(bench.content()) == without_device(expected)
        trials = bench.trials()
        assert len(trials) == len(expected["trials"])
        assert len(bench.entries()) == PLACES
        assert {trial.state for trial in trials} == {TrialState.COMPLETED}
        outcomes = Counter(attempt.outcome for attempt in sweep.attempts())
        assert outcomes.keys() <= {Outcome.COMPLETED, Outcome.LOST}
        assert outcomes[Outcome.COMPLETED] == len(trials)
        assert all(t.losses == 0 for t in trials)
        self.check_work(sweep, finished)
        sweep.publish()
        runs = Runs(default_uri(sweep.store))
        runs.check_against(bench)
        print(f"{outcomes[Outcome.LOST]} attempts lost, {len(runs.attempts)} runs in MLflow")

    @staticmethod
    def moment(sweep: RealSweep, share: float, later: float) -> Callable[[], bool]:
        """Say when so many trials have ended, and some of the next ones have gone so far."""
        goal, since = round(share * PLACES), [0.0]

        def reached() -> bool:
            enough = sum(sweep.ended_bodies().values()) >= goal and bool(sweep.begun_bodies())
            if enough and not since[0]:
                since[0] = time.monotonic()
            return enough and time.monotonic() - since[0] >= later

        return reached

    @staticmethod
    def check_work(sweep: RealSweep, finished: list[dict[str, int]]) -> None:
        """Check that what was recorded before a kill never ran again, and count what did.

        Args:
            sweep: The sweep, at its end.
            finished: At each kill, the trials recorded by then and how often they had begun.
        """
        begun, ended = sweep.begun_bodies(), sweep.ended_bodies()
        assert all(len(before) < len(after) for before, after in pairwise(finished))
        for recorded in finished:
            assert recorded == {uid: begun[uid] for uid in recorded}
        assert set(ended) == {trial.uid for trial in sweep.bench().trials()}
        # Workers outlive their driver by a second, in which a body may end that nobody records:
        # one per kill and worker, and no more work than that is done twice.
        again = sum(ended.values()) - len(ended)
        assert again <= 2 * len(finished)
        print(f"{again} of {len(ended)} bodies ran to their end twice")


class TestKilledWorker:
    def test_its_trial_runs_again_and_the_table_is_the_same(
        self, tmp_path: Path, expected: dict[str, Any]
    ) -> None:
        fields = {**FIELDS, "tracking": {"mlflow": "off"}}
        sweep, killed = RealSweep(tmp_path, fields, seconds=1.5), list[int]()
        with ThreadPoolExecutor(1) as thread:
            driven = thread.submit(sweep.run)
            for goal in (3, 12):
                killed.append(self.kill_one(sweep, goal, killed))
            assert driven.result() == 0, sweep.words()
        bench = sweep.bench()
        lost = [trial for trial in bench.trials() if trial.losses]
        assert [trial.id for trial in lost] == sorted(killed)
        assert {(t.attempt, t.losses) for t in lost} == {(2, 1)}
        assert without_device(bench.content()) == without_device(expected)
        for trial in lost:
            assert sweep.begun_bodies()[trial.uid] == 2
            assert f"lost trial {trial.id} (worker), which runs again" in sweep.words()

    @staticmethod
    def kill_one(sweep: RealSweep, goal: int, spared: list[int]) -> int:
        """Kill the worker of a trial whose body has begun, once ``goal`` others have ended."""
        until(lambda: sum(sweep.ended_bodies().values()) >= goal, "trials to end")
        while True:
            begun, ended = sweep.begun_bodies(), sweep.ended_bodies()
            uids = {trial.id: trial.uid for trial in sweep.bench().trials()}
            for attempt in sweep.attempts():
                uid = uids[attempt.trial_id]
                runs = attempt.outcome is None and begun[uid] > ended[uid]
                if runs and attempt.trial_id not in spared:
                    os.kill(attempt.pid, signal.SIGKILL)
                    return attempt.trial_id


class TestMlflowOutOfReach:
    def test_the_sweep_does_not_notice_and_all_is_shown_later(
        self, tmp_path: Path, expected: dict[str, Any]
    ) -> None:
        with socket.socket() as taken:  # nobody listens there, and nobody else takes it
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            sweep = RealSweep(tmp_path, {**FIELDS, "tracking": {"mlflow": url}})
            assert sweep.run() == 0, sweep.words()
        bench = sweep.bench()
        assert without_device(bench.content()) == without_device(expected)
        assert {trial.published_rev for trial in bench.trials()} == {0}
        with start_server(default_uri(tmp_path), tmp_path / "served", port=port):
            sweep.publish()
            Runs(url).check_against(bench)
        assert all(trial.published_rev == trial.rev for trial in sweep.bench().trials())


class TestWorkersThatCannotStart:
    def test_the_driver_says_why_and_ends(self, tmp_path: Path) -> None:
        sweep = RealSweep(tmp_path, FIELDS, runner="no.such:thing")
        assert sweep.run() == 1
        assert (
            "A worker could not start: ModuleNotFoundError: No module named 'no'" in sweep.words()
        )

    def test_workers_that_die_one_after_another_end_the_sweep(self, tmp_path: Path) -> None:
        sweep = RealSweep(tmp_path, FIELDS, runner=f"{__package__}.fatal:run_trial")
        assert sweep.run() == 1
        assert "8 workers in a row died before they were ready: " in sweep.words()


class TestRealTrials:
    FIELDS: ClassVar[dict[str, Any]] = {
        "model": "digits_net",
        "data": {"name": "digits", "train_images": 200, "test_images": 100},
        "arms": ["l1", "geometric_median"],
        "targets": {"macs_reduction": 0.5},
        "search": {"trials": 4, "finalists": 2},
        "recipe": {"epochs": 1, "batch_size": 32, "learning_rate": 0.02},
        "baseline": {"epochs": 4, "learning_rate": 0.1},
        "seeds": [1, 2],
        "tracking": {"mlflow": "off"},
    }
    ROLES: ClassVar[dict[str, int]] = {
        "baseline": 1,
        "search": 8,
        "finalist": 4,
        "confirm": 4,
        "control": 8,
    }

    def test_accuracies_are_the_same_to_the_last_bit_killed_or_not(self, tmp_path: Path) -> None:
        once, again, killed = (
            RealSweep(tmp_path / name, self.FIELDS, runner=TRIAL_RUNNER)
            for name in ("once", "again", "killed")
        )
        assert (once.run(), again.run()) == (0, 0), once.words() + again.words()
        expected = self.accuracies(once)
        assert Counter(place.partition("/")[0] for place in expected) == self.ROLES
        assert self.accuracies(again) == expected
        for role in (Role.SEARCH, Role.FINALIST):
            killed.kill_driver_when(partial(self.has_two, killed, role))
            assert self.completed(killed, Role.CONFIRM) < self.ROLES["confirm"]
        assert killed.run() == 0, killed.words()
        assert self.accuracies(killed) == expected

    @classmethod
    def has_two(cls, sweep: RealSweep, role: Role) -> bool:
        return cls.completed(sweep, role) >= 2

    @staticmethod
    def completed(sweep: RealSweep, role: Role) -> int:
        if not sweep.attempts():
            return 0
        return sum(t.state is TrialState.COMPLETED for t in sweep.bench().trials_of(role=role))

    @staticmethod
    def accuracies(sweep: RealSweep) -> dict[str, Any]:
        keys = ("weights", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "kept")
        found = {}
        for entry in sweep.bench().entries():
            trial = sweep.bench().trial(entry)
            assert trial.state is TrialState.COMPLETED
            if entry.place.role is not Role.LATENCY:
                place = str(entry.place)
                found[place] = [(trial.result or {}).get(key) for key in keys]
        return found


def test_the_simulation_is_where_the_worker_looks_for_it() -> None:
    assert f"{__name__.rpartition('.')[0]}.simulation:run_trial" == RUNNER
