"""What the sweep wants next, worked out from what has ended: the order of its phases.

baseline -> latency predictors, each alone on the machine -> search and controls -> re-runs of the
winners with fresh seeds -> the winning shapes from scratch -> latency, alone again. Nothing here
starts or stores a trial.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from methods import CostTarget
from orchestrator.agenda.drops import Drop, Drops
from orchestrator.agenda.latency_targets import LatencyTargets, ReadModel
from orchestrator.agenda.learning_rates import LearningRates
from orchestrator.agenda.predictors import Predictors
from orchestrator.agenda.queue import Queue, Wanted
from orchestrator.agenda.study import Choice, Study
from orchestrator.agenda.survey import Survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.agenda.trials import Trials
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.spec import SweepSpec
from tracking.comparison.given_up import Breaker
from tracking.places import (
    DENSE,
    RANDOM,
    UNIFORM_L1,
    Place,
    Role,
    is_drop,
    scratch_control,
    searched_label,
)
from tracking.records import EntryRecord, TrialRecord, TrialState
from tracking.results import Result, given
from tracking.winners import best_arm
from workers.dense_network import DenseAccuracy
from workers.settings import TrialSpec


class Agenda:
    """The trials of one sweep, in the order they become due.

    Args:
        spec: What is asked for.
        surveyed: The network, the data and the starting weights.
        device: Name of the device kind, part of what identifies a latency.
        read_model: Reads the latency model of targets; None: from the sweep's artifact store.
    """

    def __init__(
        self, spec: SweepSpec, surveyed: Survey, device: str, read_model: ReadModel | None = None
    ) -> None:
        self._spec, self._surveyed = spec, surveyed
        self._rates = LearningRates(spec.recipe.learning_rates)
        self._matrix = trial_matrix(spec)
        self._latency_targets = LatencyTargets(spec, read_model)
        self._trials = Trials(spec, surveyed, device, self._latency_targets)
        self._queue = Queue()
        self._confirmed: dict[Place, Result | None] = {}
        self._awaited: dict[str, set[Place]] = {}  # re-runs still out, by target
        self._followed_up: set[str] = set()  # targets whose winner is known
        self._studies = {
            (arm.name, study.label): study
            for target in ((*spec.cost_targets, *spec.latency_targets) if spec.targets else (None,))
            for arm in spec.arms
            for prunable in [surveyed.of(arm.unit)]
            for study in [Study(arm, target, spec.search, prunable.space, prunable.layout)]
        }
        self._drops = Drops(spec, surveyed)
        self._studies.update({(s.arm.name, s.label): s for s in self._drops.studies})
        self._past: list[tuple[EntryRecord, TrialRecord]] = []
        self._predictors = Predictors(spec.arms)
        self._over: set[tuple[str, str]] = set()
        self._cancelled: set[str] = set()  # arms and controls that are not run any more
        self._breaker = Breaker(spec.recovery.failures_per_arm)
        self.problem: str | None = None  #: Why the sweep cannot go on.

    @property
    def given_up(self) -> Mapping[str, str]:
        """Arms whose first trials all failed alike, with the cause."""
        return self._breaker.given_up

    def begin(
        self,
        entries: Iterable[EntryRecord],
        trials: Iterable[TrialRecord],
        *,
        cancelled: Iterable[str] = (),
    ) -> None:
        """Start, or go on from what the ledger holds, without the arms that were cancelled."""
        self._cancelled.update(cancelled)
        by_id = {trial.id: trial for trial in trials}
        past = [(entry, by_id[entry.trial_id]) for entry in entries]
        # Before anything is added: a place that is known is open again, not due once more.
        self._queue.know({entry.place: trial.uid for entry, trial in past})
        if self._trials.adapts and _began_as_given(past):
            self._trials.adapts, self._trials.weights = False, self._surveyed.weights_hash
        # Before results are told: what follows from them depends on whether their arm was given up.
        self._breaker.replay(past)
        self._past = past
        self._take_model_of(past)
        for study in self._studies.values():
            self._restore(study)
        for cell in self._matrix.of(Role.BASELINE):
            for place in cell.places():
                self._add(place, self._trials.baseline())
        if self._latency_targets.is_awaited and self._latency_targets.settings:
            self._add(Place(Role.PREDICTOR), self._trials.predictor(self._latency_targets.settings))
        if self._trials.weights is not None:
            self._tune()
        # Only now, with all that began open, are results told, round by round: each may open places
        # (a winner its re-runs) that have ended, too.
        ended = {entry.place: trial for entry, trial in past if trial.state.is_final}
        while hits := [place for place in self._queue.open if place in ended]:
            for place in hits:
                trial = ended.pop(place)
                self.ended(place, trial.uid, trial.state, trial.result)
        self._past = []
        self._queue.forget(ended)  # asked for again later on, one is found to have its result

    def _take_model_of(self, past: Iterable[tuple[EntryRecord, TrialRecord]]) -> None:
        """Take in the latency model of the targets, where an earlier driver has measured it."""
        for entry, trial in past:
            if entry.place == Place(Role.PREDICTOR) and trial.state is TrialState.COMPLETED:
                self._take_model(Result.read(trial.result).predictor)

    def _take_model(self, content: str | None) -> None:
        targets = self._latency_targets
        if targets.settings is None:
            return
        self.problem = targets.came(content, self._surveyed.filters)
        for study in self._studies.values():
            if study.target in self._spec.latency_targets and targets.costs is not None:
                study.costs = targets.costs

    def _restore(self, study: Study) -> None:
        """Bring a search to where the ledger had it when this began."""
        words = (Role.SEARCH, study.arm.name, study.label)
        mine = [(entry, trial) for entry, trial in self._past if entry.place.words == words]
        study.restore(mine)
        for entry, trial in mine:
            if not trial.state.is_final:
                self._queue.hand_out(entry.place, trial.uid)

    def next(self, limit: int) -> list[Wanted]:
        """Return up to ``limit`` trials that are due now and not in the ledger yet."""
        found = self._queue.take(limit)
        is_ready = self._trials.recipe is not None and not self._latency_targets.is_awaited
        if self._trials.weights is not None and is_ready and self.problem is None:
            while len(found) < limit and (proposals := self._propose(limit - len(found))):
                found += proposals
        return found or self._queue.take_last()

    @property
    def is_over(self) -> bool:
        """Nothing is due, out, or still to come."""
        searching = any(
            not (study.is_over or self._is_out(arm) or (arm, label) in self._over)
            for (arm, label), study in self._studies.items()
        )
        return self.problem is not None or not (self._queue.open or searching)

    def ended(
        self,
        place: Place,
        uid: str,
        state: TrialState,
        result: Mapping[str, Any] | None,
        cause: str | None = None,
    ) -> None:
        """Take in how a trial wanted at ``place`` ended; nothing if another is wanted by now."""
        if self._breaker.ended(place, uid, state, cause):
            self._give_up(place.arm)
        if not self._queue.ended(place, uid):
            return
        is_back = state is TrialState.COMPLETED and result is not None
        done = Result.read(result) if is_back else None
        if place.role is Role.BASELINE:
            self._take_baseline(done)
        elif place.role is Role.TUNE:
            self._take_rate(place.index, done)
        elif place == Place(Role.PREDICTOR):
            self._take_model(done.predictor if done else None)
            if self._trials.weights is not None and self.problem is None:
                self._tune()
        elif place.role is Role.PREDICTOR:
            self._predictors.came(place.arm, done.predictor if done else None)
            self._confirm_all_over()
        elif place.role is Role.SEARCH:
            self._studies[place.arm, place.target].tell(place.index, state, result)
            self._confirm_if_over(place.arm, place.target)
        elif place.role is Role.FINALIST:
            self._studies[place.arm, place.target].tell_finalist(place.index, done)
            self._confirm_if_over(place.arm, place.target)
        elif place.role is Role.CONFIRM:
            self._confirmed[place] = done
            self._awaited[place.target].discard(place)
            self._follow_up_if_complete(place.target)
        elif place.role is Role.CONTROL and place.arm == DENSE:
            self._take_dense(place.index, done)

    def _take_dense(self, seed: int, result: Result | None) -> None:
        """Decide what waits for the dense control: which costs are within a drop."""
        self._drops.dense_came(seed, result)
        if not self._drops.is_dense_awaited:
            self._confirm_all_over()

    def _confirm_all_over(self) -> None:
        for arm_name, label in list(self._studies):
            self._confirm_if_over(arm_name, label)

    def _take_baseline(self, result: Result | None) -> None:
        """Start all else from the dense network, unless it is missing or knows nothing."""
        dense = DenseAccuracy.of_result(result) if result else None
        if dense and dense.is_near_chance and not self._spec.allows_chance:
            self.problem = dense.refusal
        elif self._trials.weights is None and result is None:
            self.problem = "The dense baseline could not be trained, and all else needs it."
        elif self._trials.weights is None and result is not None:
            self._trials.weights = given(result.weights)
            self._tune()

    def _tune(self) -> None:
        """Try learning rates on the uniform L1 control, where one is to be chosen for all."""
        if self._latency_targets.is_awaited or self.problem is not None:
            return
        for cell in self._matrix.of(Role.TUNE):
            for place in cell.places():
                self._add(place, self._trials.rate(place))
        if self._trials.recipe is not None:
            self._unlock()

    def _take_rate(self, number: int, result: Result | None) -> None:
        """Once all rates were tried, go on with the one that gives the best accuracy."""
        self._rates.came(number, result)
        if not self._rates.is_decided:
            return
        if self._rates.best is None:
            self.problem = "No learning rate could be tried, and all else needs one."
            return
        self._trials.recipe = self._spec.recipe.at(self._rates.best)
        self._unlock()

    def _propose(self, limit: int) -> list[Wanted]:
        """Ask each study that can for one more proposal, those behind first.

        So all end at about the same time, and none is left to a few workers at the end.
        """
        found: list[Wanted] = []
        going_on = [study for key, study in self._studies.items() if key not in self._over]
        for study in sorted(going_on, key=lambda study: study.asked):
            if len(found) < limit and self._is_ready(study.arm) and study.can_ask:
                proposal, choice = study.ask()
                place = Place(Role.SEARCH, study.arm.name, study.label, proposal.number)
                predictor = self._predictors.of(study.arm.name)
                trial = self._trials.proposal(
                    choice, study.target, predictor, by_proxy=study.by_proxy
                )
                self._queue.hand_out(place, trial.uid)
                found.append(Wanted(place=place, trial=trial, proposal=proposal))
        return found

    def _is_ready(self, arm: ArmSettings) -> bool:
        """Say whether an arm has what its trials need beside the weights."""
        return not (self._predictors.is_awaited(arm.name) or self._is_out(arm.name))

    def _is_out(self, arm: str) -> bool:
        """Say whether no more trials of an arm are run."""
        is_dropped = arm in self.given_up or arm in self._cancelled
        return is_dropped or self._predictors.is_missed(arm)

    def cancel(self, arm: str) -> None:
        """Want nothing more of an arm or control, latencies included."""
        self._cancelled.add(arm)
        self._queue.drop(arm, last=True)
        self._give_up(arm)

    def _give_up(self, arm: str) -> None:
        """Want nothing more of an arm; what is out already may end."""
        for place in self._queue.drop(arm):
            if place.role is Role.CONFIRM:
                self._awaited[place.target].discard(place)
        for name, label in list(self._studies):
            if name == arm:
                self._confirm_if_over(name, label)
        for awaited in list(self._awaited):
            self._follow_up_if_complete(awaited)

    def _unlock(self) -> None:
        """The starting weights are known: controls are due, and searches may begin."""
        for cell in self._matrix.of(Role.PREDICTOR):
            for place in cell.places() if cell.arm else ():  # the other is that of targets
                self._add(place, self._trials.predictor(self._predictors.wanted[place.arm]))
        self._confirm_all_over()
        for cell in self._matrix.of(Role.CONTROL):
            if not cell.follows_winner:
                for place in cell.places():
                    self._add(place, self._trials.control(place))

    def _train_finalists(self, study: Study) -> None:
        """Train the best proposals of a search that judged them without training."""
        for rank, (number, choice) in enumerate(study.finalists()):
            place = Place(Role.FINALIST, study.arm.name, study.label, rank)
            if place not in self._queue.open and not study.is_trained(number):
                predictor = self._predictors.of(study.arm.name)
                trial = self._trials.proposal(choice, study.target, predictor, by_proxy=False)
                self._add(place, trial)

    def _confirm_if_over(self, arm_name: str, label: str) -> None:
        """Re-run the winners of a study whose search has ended, with fresh seeds."""
        study = self._studies[arm_name, label]
        drop = self._drops.of(arm_name, label)
        missed = self._is_out(arm_name) or (drop is not None and self._drops.is_dense_missed)
        waits = (
            self._trials.weights is None
            or self._trials.recipe is None
            or self._latency_targets.is_awaited
        )
        waits = waits or (self._predictors.is_awaited(arm_name) and not missed)
        if waits or (arm_name, label) in self._over or not (study.is_over or missed):
            return
        if not (missed or study.is_decided):
            self._train_finalists(study)
            return
        if drop is not None and not missed and self._drops.is_dense_awaited:
            return
        self._over.add((arm_name, label))
        if drop is not None:
            self._go_on(arm_name, drop, missed=missed)
            return
        for at, choice in [] if missed else study.winners():
            self._rerun(arm_name, at, choice, study.target)
        for awaited in list(self._awaited):
            self._follow_up_if_complete(awaited)

    def _go_on(self, arm: str, drop: Drop, *, missed: bool) -> None:
        """Search an accuracy drop at the next cost, or re-run the answer once there is none."""
        following = None if missed else drop.decide(self._drops.dense)
        if following is not None:
            self._studies[arm, following.label] = following
            self._restore(following)
            self._confirm_if_over(arm, following.label)
            return
        self._over.add((arm, drop.label))
        self._awaited.setdefault(drop.label, set())
        if drop.answer is not None and not missed:
            self._rerun(arm, drop.label, drop.answer.choice, drop.answer.target)
        for awaited in list(self._awaited):
            self._follow_up_if_complete(awaited)

    def _rerun(self, arm: str, at: str, choice: Choice, target: CostTarget | None) -> None:
        """Want a winner with fresh seeds."""
        for place in self._places(Role.CONFIRM, arm, at):
            self._awaited.setdefault(at, set()).add(place)
            predictor = self._predictors.of(arm)
            self._add(place, self._trials.prune(choice, target, place.index, predictor))

    def _follow_up_if_complete(self, label: str) -> None:
        """Once all re-runs of a target are in: its winning shape from scratch, and latencies."""
        searched = searched_label(label)
        waiting = any(
            study == searched and (arm, study) not in self._over
            for arm, study in (*self._studies, *self._drops.keys)
        )
        if label in self._followed_up or waiting or self._awaited[label]:
            return
        self._followed_up.add(label)
        runs = self._confirmed_runs(label)
        if not runs:
            return
        for arm, results in runs.items():
            for place in self._places(Role.LATENCY, arm, label):
                shape = self._trials.shape(arm, results[0])
                timed = self._trials.latency(shape, label)
                self._add(place, timed, last=True)
        winner = best_arm({arm: [given(r.val_accuracy) for r in runs[arm]] for arm in runs})
        if is_drop(label):
            winner = self._drops.cheapest(label, runs)
            self._hold_against(label, winner)
        if winner is not None:
            for place in self._places(Role.CONTROL, scratch_control(winner), label):
                shape = self._trials.shape(winner, runs[winner][0])
                self._add(place, self._trials.scratch(shape, place.index))

    def _hold_against(self, label: str, winner: str | None) -> None:
        """Want the controls with ratios at the cost of the cheapest network within a drop."""
        drop = self._drops.of(winner or "", label)
        if drop is None or drop.answer is None:
            return
        axis, share = drop.answer.target.axis, drop.answer.target.reduction
        least, most = self._surveyed.filters.reachable_on(axis)
        target = CostTarget(axis=axis, reduction=min(max(share, least), most))
        for arm in (RANDOM, UNIFORM_L1):
            for place in self._places(Role.CONTROL, arm, label):
                self._add(place, self._trials.uniform_control(place, target))

    def _places(self, role: Role, arm: str, label: str) -> list[Place]:
        """Return the places of an arm that is re-run, or of a winner; none: none are asked for."""
        cell = self._matrix.cell(role, arm, label)
        return [] if cell is None else list(cell.places(arm=arm, target=label))

    def _confirmed_runs(self, label: str) -> dict[str, list[Result]]:
        """Return the re-runs that came back, by arm; in an order that is the same on every run."""
        found: dict[str, list[Result]] = {}
        for arm in self._spec.arms:
            places = self._places(Role.CONFIRM, arm.name, label)
            results = [r for place in places if (r := self._confirmed.get(place)) is not None]
            if results and arm.name not in self._cancelled:
                found[arm.name] = results
        return found

    def _add(self, place: Place, trial: TrialSpec, *, last: bool = False) -> None:
        if place.arm in self._cancelled and not place.role.is_needed_by_all:
            return
        self._queue.add(place, trial, last=last)


def _began_as_given(past: Iterable[tuple[EntryRecord, TrialRecord]]) -> bool:
    """Say whether a sweep began before checkpoints were adapted: it goes on as it is."""
    baselines = [trial for entry, trial in past if entry.place.role is Role.BASELINE]
    return any(trial.spec["recipe"]["epochs"] == 0 for trial in baselines)
