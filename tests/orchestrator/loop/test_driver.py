import random
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.loop.backend import Event, InlineRunner, Reported, Slot, Task
from orchestrator.specification.spec import SweepSpec
from tests.orchestrator.backends import SeededBackend
from tests.orchestrator.simulation import simulate
from tests.orchestrator.sweeps import OFF, Bench, Fuse, KilledError, Log, specification, surveyed
from tracking.comparison.compare import compare
from tracking.errors import FencedError
from tracking.records import Loss, Outcome, TrialState
from workers.results import Report
from workers.settings import TrialSpec

AT_HALF = "macs-50%"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@cache
def _undisturbed(folder: Path, spec: str) -> dict[str, Any]:
    bench = Bench(folder)
    assert bench.drive(SweepSpec.model_validate_json(spec)).over
    return bench.content()


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[SweepSpec], dict[str, Any]]:
    """What a sweep comes to when nothing happens to it, one trial after another."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return lambda spec: _undisturbed(folder / spec.spec_hash, spec.model_dump_json())


def failing(when: Callable[[TrialSpec], bool]) -> InlineRunner:
    def run(spec: TrialSpec, report: Report) -> dict[str, Any]:
        if when(spec):
            report(0, {"train_loss": 9.0})
            raise ArithmeticError("the loss is no number")
        return simulate(spec, report)

    return run


def best_when_uniform(spec: TrialSpec, report: Report) -> dict[str, Any]:
    """Of all proposals the first is the best."""
    uniform = surveyed().filters.uniform(specification().cost_targets[0], 0.01)
    result = simulate(spec, report)
    return {**result, "val_accuracy": 99.0} if spec.ratios == uniform else result


class TestASweep:
    def test_it_runs_everything_the_matrix_says_and_nothing_else(self, bench: Bench) -> None:
        backend = SeededBackend()
        assert bench.drive(specification(), backend).over
        assert len(bench.entries()) == trial_matrix(specification()).trials
        assert Counter(spec.uid for spec in backend.started) == {t.uid: 1 for t in bench.trials()}
        assert {trial.state for trial in bench.trials()} == {TrialState.COMPLETED}
        assert bench.table()["missing"] == []

    def test_run_again_it_finds_everything_there(self, bench: Bench) -> None:
        bench.drive(specification())
        before, backend = bench.content(), SeededBackend()
        assert bench.drive(specification(), backend).over
        assert backend.started == []
        assert bench.content() == before

    def test_content_wanted_at_two_places_runs_once(self, bench: Bench) -> None:
        backend = SeededBackend(slots=4)
        bench.drive(specification(arms=["l1"], search={"trials": 1}), backend)
        for seed in (1, 2):
            (confirm,) = bench.entries(role="confirm", index=seed)
            (control,) = bench.entries(role="control", arm="uniform_l1", index=seed)
            assert confirm.trial_id == control.trial_id
        assert max(Counter(spec.uid for spec in backend.started).values()) == 1
        assert bench.table()["missing"] == []

    def test_content_known_from_another_sweep_is_not_run_again(self, tmp_path: Path) -> None:
        first, second = Bench(tmp_path, "first"), Bench(tmp_path, "second")
        first.drive(specification())
        backend = SeededBackend(slots=2)
        done = second.drive(specification(), backend)
        assert backend.started == []
        assert all(trial.reused for trial in done.log.trials)
        assert second.table() == first.table()

    def test_another_device_measures_its_own_latency_and_nothing_else(self, bench: Bench) -> None:
        bench.drive(specification())
        before, backend = bench.entries(role="latency"), SeededBackend()
        bench.drive(specification(), backend, device="another machine")
        assert [spec.kind for spec in backend.started] == ["latency", "latency"]
        after = bench.entries(role="latency")
        assert [e.place.arm for e in after] == [e.place.arm for e in before]
        assert not {e.trial_id for e in after} & {e.trial_id for e in before}

    @pytest.mark.parametrize("seed", range(3))
    def test_a_latency_has_the_machine_to_itself(self, bench: Bench, seed: int) -> None:
        backend = SeededBackend(slots=4, seed=seed)  # which refuses a latency beside a trial
        bench.drive(specification(), backend)
        assert backend.alone == [spec.kind == "latency" for spec in backend.started]
        assert sum(backend.alone) == 2


class TestAnyOrder:
    @pytest.mark.parametrize("seed", range(8))
    def test_results_in_any_order_give_one_table(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]], seed: int
    ) -> None:
        spec = specification(search={"trials": 6, "window": 3})
        assert bench.drive(spec, SeededBackend(slots=1 + seed % 5, seed=seed)).over
        assert bench.content() == undisturbed(spec)

    @pytest.mark.parametrize("seed", range(4))
    def test_a_front_does_not_depend_on_the_order_either(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]], seed: int
    ) -> None:
        spec = specification(targets=None, search={"trials": 8, "window": 4}, controls=OFF)
        assert bench.drive(spec, SeededBackend(slots=1 + seed, seed=seed)).over
        assert bench.content() == undisturbed(spec)


class TestFailedTrials:
    def test_a_failed_proposal_is_recorded_and_the_sweep_goes_on(self, bench: Bench) -> None:
        uids: list[str] = []

        def first_of_a_search(spec: TrialSpec) -> bool:
            if spec.kind == "prune" and spec.seed == 0:
                uids.append(spec.uid)
            return spec.uid == uids[0] if uids else False

        assert bench.drive(specification(), SeededBackend(runner=failing(first_of_a_search))).over
        (failed,) = [trial for trial in bench.trials() if trial.state is TrialState.FAILED]
        assert "the loss is no number" in (failed.cause or "")
        assert [p.value for p in bench.ledger.metrics(failed.id)] == [9.0]
        assert bench.table()["missing"] == []
        assert len(bench.table()["failures"]) == 1

    def test_a_failed_re_run_leaves_the_others(self, bench: Bench) -> None:
        wrong = failing(lambda s: s.kind == "prune" and s.method == "l1" and s.seed == 1)
        assert bench.drive(specification(arms=["l2"]), SeededBackend(runner=wrong)).over
        (row,) = [row for row in bench.table()["tables"][0]["rows"] if row["name"] == "uniform_l1"]
        assert row["runs"]["failed"] + row["runs"]["completed"] == 2

    def test_an_arm_whose_trials_all_fail_does_not_hold_up_the_rest(self, bench: Bench) -> None:
        wrong = failing(lambda spec: spec.method == "geometric_median")
        assert bench.drive(specification(), SeededBackend(slots=2, runner=wrong)).over
        assert bench.entries(role="confirm", arm="geometric_median") == []
        assert len(bench.entries(role="control", arm="scratch:l1")) == 2
        assert len(bench.table()["failures"]) == 3

    def test_without_a_baseline_the_driver_stops_at_once(self, bench: Bench) -> None:
        wrong = failing(lambda spec: spec.kind == "baseline")
        done = bench.drive(specification(), SeededBackend(runner=wrong))
        assert done.over
        assert done.agenda.problem is not None
        assert len(bench.trials()) == 1

    def test_a_failed_baseline_fails_again_until_it_is_retried(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]]
    ) -> None:
        wrong = failing(lambda spec: spec.kind == "baseline")
        bench.drive(specification(), SeededBackend(runner=wrong))
        assert bench.drive(specification()).agenda.problem is not None
        assert bench.drive(specification(), retry=True).agenda.problem is None
        assert bench.content() == undisturbed(specification())

    def test_retried_trials_may_change_who_wins(self, bench: Bench) -> None:
        spec = specification(arms=["l1"])
        best = self.winner(bench, spec)
        again = Bench(Path(bench.ledger.url.removeprefix("sqlite:///")).parent / "again")
        again.drive(spec, SeededBackend(runner=failing(lambda s: s.uid == best)))
        before = again.entries(role="confirm")
        backend = SeededBackend()
        assert again.drive(spec, backend, retry=True).over
        assert best in {trial.uid for trial in backend.started}
        after = again.entries(role="confirm")
        assert not {e.trial_id for e in after} & {e.trial_id for e in before}
        assert again.table() == bench.table()

    @staticmethod
    def winner(bench: Bench, spec: SweepSpec) -> str:
        bench.drive(spec)
        found = bench.trials_of(role="search")
        return max(found, key=lambda trial: ((trial.result or {})["val_accuracy"], -trial.id)).uid

    def test_a_result_that_is_no_json_fails_its_trial_only(self, bench: Bench) -> None:
        def odd(spec: TrialSpec, report: Report) -> dict[str, Any]:
            result = simulate(spec, report)
            return {**result, "odd": {1, 2}} if spec.kind == "dense" else result

        assert bench.drive(specification(), SeededBackend(runner=odd)).over
        failed = [trial for trial in bench.trials() if trial.state is TrialState.FAILED]
        assert [trial.spec["kind"] for trial in failed] == ["dense", "dense"]
        assert {trial.cause for trial in failed} == {"the result is not JSON"}


class TestExtension:
    def test_more_trials_give_what_as_many_at_once_would_have(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]]
    ) -> None:
        small = specification(search={"trials": 3, "window": 2}, controls=OFF)
        large = specification(search={"trials": 12, "window": 2}, controls=OFF)
        bench.drive(small)
        before = bench.entries(role="confirm")
        assert bench.drive(large, SeededBackend(slots=3)).over
        after = bench.entries(role="confirm")
        assert not {e.trial_id for e in before} & {e.trial_id for e in after}  # a new winner
        expected = undisturbed(large)
        assert bench.content()["entries"] == expected["entries"]
        assert bench.table() == expected["table"]

    def test_more_proposals_without_training_give_what_as_many_at_once_would_have(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]]
    ) -> None:
        fields: dict[str, Any] = {"controls": OFF, "arms": ["l1"]}
        search = {"window": 2, "proxy": True, "finalists": 3}
        bench.drive(specification(**fields, search={**search, "trials": 5}))
        large = specification(**fields, search={**search, "trials": 20})
        assert bench.drive(large, SeededBackend(slots=3)).over
        expected = undisturbed(large)
        assert bench.content()["entries"] == expected["entries"]
        assert bench.table() == expected["table"]

    def test_seeds_can_be_added(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]]
    ) -> None:
        bench.drive(specification())
        backend = SeededBackend(slots=2)
        more = specification(seeds=[1, 2, 7])
        assert bench.drive(more, backend).over
        assert {spec.seed for spec in backend.started} == {7}
        assert bench.content() == undisturbed(more)

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_arms_and_targets_added_give_what_all_at_once_would_have(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]], interrupted: bool
    ) -> None:
        fields: dict[str, Any] = {"controls": {"scratch": False}}
        stop = self.re_runs_have_begun(bench) if interrupted else None
        bench.drive(specification(**fields), stop_when=stop)
        before = {trial.uid for trial in bench.trials()}
        targets = {"macs_reduction": [0.5, 0.7], "params_reduction": [0.6], "accuracy_drop": [2.0]}
        arms = ["l1", "geometric_median", "taylor"]
        larger = specification(**fields, arms=arms, targets=targets)
        backend = SeededBackend(slots=3)
        assert bench.drive(larger, backend).over
        if not interrupted:
            assert not before & {spec.uid for spec in backend.started}  # what has run is kept
        assert bench.content() == undisturbed(larger)

    @pytest.mark.parametrize("seed", range(3))
    def test_re_runs_of_a_former_winner_do_not_stand_for_the_new_one(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]], seed: int
    ) -> None:
        small = specification(search={"trials": 3, "window": 2}, controls=OFF, arms=["l1"])
        large = specification(search={"trials": 6, "window": 2}, controls=OFF, arms=["l1"])
        stopped = bench.drive(small, SeededBackend(), stop_when=self.re_runs_have_begun(bench))
        assert not stopped.over
        old = {entry.trial_id for entry in bench.entries(role="confirm")}
        assert len(old) == 2
        assert bench.drive(large, Slow(old, seed=seed)).over
        assert not old & {entry.trial_id for entry in bench.entries(role="confirm")}
        assert bench.table() == undisturbed(large)["table"]

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_an_extension_that_finds_nothing_better_keeps_its_re_runs(
        self, bench: Bench, interrupted: bool
    ) -> None:
        small = specification(search={"trials": 3, "window": 2}, arms=["l1"])
        large = specification(search={"trials": 6, "window": 2}, arms=["l1"])
        stop = self.re_runs_have_begun(bench) if interrupted else None
        bench.drive(small, SeededBackend(runner=best_when_uniform), stop_when=stop)
        before = bench.entries(role="confirm")
        backend = SeededBackend(slots=3, runner=best_when_uniform)
        assert bench.drive(large, backend).over
        assert bench.entries(role="confirm") == before
        assert bench.table()["missing"] == []
        assert {spec.kind for spec in backend.started} >= {"prune"}
        assert not [t for t in bench.trials() if t.state is not TrialState.COMPLETED]

    @staticmethod
    def re_runs_have_begun(bench: Bench) -> Callable[[Log], bool]:
        return lambda _log: bool(bench.entries(role="confirm"))


class Slow(SeededBackend):
    """Is slow with some trials: they end when re-runs of other ratios have just begun."""

    def __init__(self, trials: set[int], seed: int) -> None:
        super().__init__(slots=3 + len(trials), seed=seed)
        self._trials, self._held = trials, True

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        super().start(slot, task, spec, alone=alone)
        if spec.kind == "prune" and spec.seed != 0 and task.trial_id not in self._trials:
            self._held = False

    def wait(self, timeout_s: float) -> list[Event]:
        slow = {
            slot: self._busy.pop(slot)
            for slot, queue in list(self._busy.items())
            if queue[0].task.trial_id in self._trials
        }
        if self._held:
            events = super().wait(timeout_s)
            self._busy |= slow
            return events
        self._free += slow
        return [event for queue in slow.values() for event in queue] or super().wait(timeout_s)


class TestKilledDrivers:
    """A driver is gone at some moment; the next one has nothing but the ledger."""

    spec = specification(
        controls={**OFF, "scratch": True}, search={"trials": 3, "window": 2}, arms=["l1", "random"]
    )
    by_proxy = specification(
        controls={**OFF, "scratch": True},
        search={"trials": 6, "window": 3, "proxy": True, "finalists": 3},
        arms=["l1", {"method": "l1", "schedule": "sfp"}],
    )

    @pytest.mark.slow
    def test_killed_at_any_moment_the_sweep_comes_to_the_same_end(
        self, tmp_path: Path, undisturbed: Callable[[SweepSpec], dict[str, Any]]
    ) -> None:
        expected = undisturbed(self.spec)
        for steps in range(1, 1000):
            bench = Bench(tmp_path / str(steps))
            try:
                bench.drive(self.spec, SeededBackend(slots=2, seed=steps), fuse=Fuse(steps))
            except KilledError:
                pass
            else:
                break  # there are no more moments
            assert bench.drive(self.spec, SeededBackend(slots=2, seed=-steps)).over
            assert bench.content() == expected, f"killed at step {steps}"
        assert steps > 60

    @pytest.mark.parametrize("spec", [spec, by_proxy], ids=["trained", "by proxy"])
    @pytest.mark.parametrize("seed", range(4))
    def test_killed_again_and_again_the_sweep_comes_to_the_same_end(
        self,
        bench: Bench,
        undisturbed: Callable[[SweepSpec], dict[str, Any]],
        seed: int,
        spec: SweepSpec,
    ) -> None:
        draw, kills, executed = random.Random(seed), 0, Counter[str]()
        while True:
            backend = SeededBackend(slots=draw.randint(1, 3), seed=draw.randrange(1000))
            fuse = Fuse(draw.randint(5, 30))
            try:
                bench.drive(spec, backend, fuse=fuse)
            except KilledError:
                kills += 1
            else:
                break
            finally:
                executed.update(spec.uid for spec in backend.started)
        assert kills >= 2
        assert bench.content() == undisturbed(spec)
        for trial in bench.trials():
            assert trial.attempt >= executed[trial.uid] >= 1
            assert trial.losses == 0
        losses = {(a.outcome, a.loss) for a in bench.attempts() if a.outcome is Outcome.LOST}
        assert losses == {(Outcome.LOST, Loss.DRIVER)}

    def test_what_had_ended_is_not_run_again(self, bench: Bench) -> None:
        with pytest.raises(KilledError):
            bench.drive(self.spec, fuse=Fuse(60))
        ended = {trial.uid for trial in bench.trials() if trial.state is TrialState.COMPLETED}
        assert len(ended) > 3
        backend = SeededBackend()
        bench.drive(self.spec, backend)
        assert not ended & {spec.uid for spec in backend.started}

    def test_a_driver_that_was_replaced_writes_nothing_more(self, bench: Bench) -> None:
        def replace(log: Log) -> bool:
            if len(log.trials) == 5:
                bench.ledger.take_over(bench.name, "another driver", by_force=True)
            return False

        with pytest.raises(FencedError):
            bench.drive(self.spec, SeededBackend(slots=2), stop_when=replace)
        states = Counter(trial.state for trial in bench.trials())
        assert states[TrialState.RUNNING] == 0
        assert states[TrialState.COMPLETED] == 5


class TestStopping:
    @pytest.mark.parametrize("trials", [0, 1, 4, 9, 14])
    def test_a_driver_that_is_stopped_gives_back_what_it_runs(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]], trials: int
    ) -> None:
        stopped = bench.drive(
            specification(),
            SeededBackend(slots=3, seed=trials),
            stop_when=lambda log: len(log.trials) >= trials,
        )
        assert not stopped.over
        assert not [trial for trial in bench.trials() if trial.state is TrialState.RUNNING]
        assert {trial.losses for trial in bench.trials()} <= {0}
        assert bench.drive(specification(), SeededBackend(slots=2)).over
        assert bench.content() == undisturbed(specification())


class TestLostWorkers:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_lost_trial_runs_again_and_what_its_ghost_says_is_not_heard(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]], seed: int
    ) -> None:
        def once(spec: TrialSpec, attempt: int) -> bool:
            return attempt == 1 and int(spec.uid, 16) % 2 == 0

        backend = SeededBackend(slots=1 + seed, seed=seed, loses=once)
        done = bench.drive(specification(), backend)
        assert done.over
        lost = [trial for trial in bench.trials() if trial.losses]
        assert {trial.id for trial in lost} == set(done.log.losses)
        assert len(lost) > 3
        assert {(trial.attempt, trial.losses) for trial in lost} == {(2, 1)}
        assert [a.loss for a in bench.attempts() if a.loss] == [Loss.WORKER] * len(lost)
        assert bench.content() == undisturbed(specification())

    def test_a_trial_that_is_lost_too_often_is_given_up(self, bench: Bench) -> None:
        backend = SeededBackend(slots=2, loses=lambda spec, _attempt: spec.kind == "dense")
        assert bench.drive(specification(), backend).over
        failed = [trial for trial in bench.trials() if trial.state is TrialState.FAILED]
        assert [trial.spec["kind"] for trial in failed] == ["dense", "dense"]
        assert {(trial.cause, trial.attempt, trial.losses) for trial in failed} == {
            ("lost: worker", 3, 3)
        }
        assert bench.table()["missing"] == []

    def test_given_up_trials_can_be_retried(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]]
    ) -> None:
        backend = SeededBackend(loses=lambda spec, attempt: spec.kind == "dense" and attempt <= 3)
        bench.drive(specification(), backend)
        assert bench.drive(specification(), SeededBackend(), retry=True).over
        assert bench.content() == undisturbed(specification())


class Deaf(SeededBackend):
    """Workers that fall silent in the first attempt at some trials, and are taken away then."""

    def __init__(self, hangs: Callable[[TrialSpec], bool]) -> None:
        super().__init__(slots=2)
        self._hangs = hangs
        self.abandoned: list[Task] = []

    def start(self, slot: Slot, task: Task, spec: TrialSpec, *, alone: bool = False) -> None:
        super().start(slot, task, spec, alone=alone)
        if task.attempt == 1 and self._hangs(spec):
            queue = self._busy[slot]
            while len(queue) > 1:
                queue.pop()  # only its first report is heard

    def wait(self, timeout_s: float) -> list[Event]:
        hung = {slot: queue[0] for slot, queue in self._busy.items() if len(queue) == 1}
        silent = [slot for slot, event in hung.items() if isinstance(event, Reported)]
        kept = {slot: self._busy.pop(slot) for slot in silent}
        events = super().wait(timeout_s)
        self._busy.update(kept)
        return events

    def abandon(self, task: Task) -> None:
        self.abandoned.append(task)
        super().abandon(task)


class TestSilence:
    def test_a_trial_that_says_nothing_for_too_long_runs_again_elsewhere(
        self, bench: Bench, undisturbed: Callable[[SweepSpec], dict[str, Any]]
    ) -> None:
        backend = Deaf(lambda spec: spec.kind == "dense")
        done = bench.drive(specification(), backend, hung_after_s=1.5)
        assert done.over
        hung = [a for a in bench.attempts() if a.loss is Loss.HUNG]
        assert len(hung) == len(backend.abandoned) == len(done.log.losses) == 2
        assert "no report for 1.5 s" in (hung[0].error or "")
        assert bench.content() == undisturbed(specification())

    def test_by_default_nobody_is_hurried(self, bench: Bench) -> None:
        backend = Deaf(lambda spec: spec.kind == "dense")
        started = time.monotonic()
        stopped = bench.drive(
            specification(), backend, stop_when=lambda _log: time.monotonic() - started > 2
        )
        assert not stopped.over
        assert backend.abandoned == []


class TestArmsThatFail:
    """The arm l1 fails from the first; what else there is goes on."""

    spec = specification(arms=["l1", "l2"], search={"trials": 8, "window": 2})

    @staticmethod
    def l1(spec: TrialSpec) -> bool:
        way = spec.method_settings.get("p")
        return spec.kind == "prune" and spec.method == "filter_norm" and way == 1

    def runner(self) -> InlineRunner:
        return failing(lambda spec: self.l1(spec) and spec.seed == 0)  # controls have other seeds

    @pytest.mark.parametrize("slots", [1, 3])
    def test_an_arm_whose_first_trials_fail_alike_is_given_up(
        self, bench: Bench, slots: int
    ) -> None:
        done = bench.drive(self.spec, SeededBackend(slots=slots, runner=self.runner()))
        assert done.over
        assert list(done.log.arms) == ["l1"]
        assert "no number" in done.log.arms["l1"]
        searched = [bench.trial(e) for e in bench.entries(role="search", arm="l1")]
        states = Counter(trial.state for trial in searched)
        assert 5 <= states[TrialState.FAILED] <= 5 + slots
        assert sum(states.values()) < 8
        assert set(states) <= {TrialState.FAILED, TrialState.CANCELLED}
        assert bench.entries(role="confirm", arm="l1") == []
        assert len(bench.entries(role="confirm", arm="l2")) == 2
        assert bench.entries(role="latency", arm="l2") != []
        (line,) = [line for line in bench.table()["missing"] if "l1" in line]
        assert "given up" in line
        assert "no number" in line

    def test_a_resumed_sweep_leaves_it_alone_and_a_retry_takes_it_up(self, bench: Bench) -> None:
        bench.drive(self.spec, SeededBackend(slots=2, runner=self.runner()))
        before, backend = bench.content(), SeededBackend()
        assert bench.drive(self.spec, backend).over
        assert backend.started == []
        assert bench.content() == before
        assert bench.drive(self.spec, SeededBackend(), retry=True).over
        assert len(bench.entries(role="confirm", arm="l1")) == 2
        assert bench.table()["missing"] == []

    def test_one_that_works_once_is_never_given_up(self, bench: Bench) -> None:
        worked: set[str] = set()

        def run(spec: TrialSpec, report: Report) -> dict[str, Any]:
            if self.l1(spec) and spec.seed == 0 and worked:
                raise ArithmeticError("the loss is no number")
            worked.update({spec.uid} if self.l1(spec) and spec.seed == 0 else ())
            return simulate(spec, report)

        done = bench.drive(self.spec, SeededBackend(runner=run))
        assert done.over
        assert done.log.arms == {}

    def test_causes_that_differ_do_not_add_up(self, bench: Bench) -> None:
        def run(spec: TrialSpec, report: Report) -> dict[str, Any]:
            if self.l1(spec) and spec.seed == 0:
                raise (ArithmeticError if int(spec.uid, 16) % 2 else ValueError)("no")
            return simulate(spec, report)

        done = bench.drive(self.spec, SeededBackend(runner=run))
        assert done.over
        assert done.log.arms == {}

    def test_the_limit_may_be_lifted(self, bench: Bench) -> None:
        spec = self.spec.model_copy(
            update={"recovery": self.spec.recovery.model_copy(update={"failures_per_arm": 0})}
        )
        done = bench.drive(spec, SeededBackend(runner=self.runner()))
        assert done.log.arms == {}
        assert len(bench.entries(role="search", arm="l1")) == 8


class TestEarlyStopping:
    @staticmethod
    def spec(rule: str, **settings: Any) -> SweepSpec:
        stopping = {"rule": rule, "reduction_factor": 2, "min_trials": 2, **settings}
        return specification(
            recipe={"epochs": 4}, search={"trials": 10, "window": 2, "stopping": stopping}
        )

    @pytest.mark.parametrize("rule", ["asha", "median"])
    def test_only_search_trials_end_early_and_the_table_counts_them(
        self, bench: Bench, rule: str
    ) -> None:
        assert bench.drive(self.spec(rule), SeededBackend(slots=2)).over
        stopped = [trial for trial in bench.trials() if trial.state is TrialState.STOPPED]
        assert len(stopped) >= 2
        assert all((t.cause or "").startswith(f"{rule}: not promising") for t in stopped)
        ids = {trial.id for trial in stopped}
        places = [entry for entry in bench.entries() if entry.trial_id in ids]
        assert {entry.place.role for entry in places} == {"search"}
        assert {a.outcome for a in bench.attempts() if a.trial_id in ids} == {Outcome.STOPPED}
        (table,) = compare(bench.ledger, bench.ledger.sweep(bench.name)).tables
        assert sum(row.search.runs.stopped for row in table.arms if row.search) == len(stopped)
        assert bench.table()["missing"] == []

    def test_without_a_rule_nobody_is_stopped(self, bench: Bench) -> None:
        assert bench.drive(self.spec("none"), SeededBackend(slots=2)).over
        assert {trial.state for trial in bench.trials()} == {TrialState.COMPLETED}

    def test_what_a_trial_is_held_against_outlives_the_driver(self, bench: Bench) -> None:
        spec = self.spec("median", min_trials=6)
        first = bench.drive(
            spec,
            SeededBackend(),
            stop_when=lambda log: sum(t.places[0].role == "search" for t in log.trials) >= 7,
        )
        assert not first.over
        assert TrialState.STOPPED not in {trial.state for trial in bench.trials()}
        worst = dict.fromkeys(("val_accuracy",), 0.0)

        def run(spec: TrialSpec, report: Report) -> dict[str, Any]:
            return simulate(spec, lambda step, values: report(step, {**values, **worst}))

        assert bench.drive(spec, SeededBackend(runner=run)).over
        stopped = [trial for trial in bench.trials() if trial.state is TrialState.STOPPED]
        assert len(stopped) >= 2  # of two studies, by what was reported to the driver before

    def test_a_sweep_without_a_rule_has_the_content_it_had_before_there_were_any(self) -> None:
        assert "stopping" not in specification().content["search"]
        assert "stopping" in self.spec("asha").content["search"]
