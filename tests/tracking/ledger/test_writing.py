"""The life of a trial, and who may write it, on SQLite and on PostgreSQL."""

import math
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.tracking.conftest import NOON, add, add_running
from tracking import (
    EntryConflictError,
    FencedError,
    Loss,
    Outcome,
    StaleAttemptError,
    TransitionError,
    TrialState,
    UnknownTrialError,
)
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import MAX_NODES, SweepWriter

BLAMED = [Loss.WORKER, Loss.MEMORY, Loss.HUNG]


class TestTheLifeOfATrial:
    def test_a_completed_trial_keeps_result_times_and_attempt(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        writer.complete(trial.id, 1, {"val_accuracy": 0.1 + 0.2, "plan": {"kept": [1, 2]}})
        done = ledger.trial(trial.id)
        assert done.state is TrialState.COMPLETED
        assert done.result == {"val_accuracy": 0.1 + 0.2, "plan": {"kept": [1, 2]}}
        assert done.started_at is not None
        assert done.ended_at is not None
        assert timedelta(0) <= done.ended_at - done.started_at < timedelta(minutes=1)
        (attempt,) = ledger.attempts(writer.sweep_id)
        assert (attempt.n, attempt.node, attempt.pid) == (1, "node-a", 100)
        assert (attempt.outcome, attempt.error) == (Outcome.COMPLETED, None)
        assert attempt.started_at == done.started_at

    def test_a_stopped_trial_keeps_what_it_had_reached(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        writer.stop(trial.id, 1, {"val_accuracy": 12.0}, "below the median")
        stopped = ledger.trial(trial.id)
        assert (stopped.state, stopped.result) == (TrialState.STOPPED, {"val_accuracy": 12.0})
        assert (stopped.cause, stopped.error) == ("below the median", None)

    def test_a_failed_trial_keeps_its_error_whatever_bytes_it_holds(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        writer.fail(trial.id, 1, "no such file: a\0b \udcff é", "data")
        failed = ledger.trial(trial.id)
        assert (failed.state, failed.cause) == (TrialState.FAILED, "data")
        assert failed.error == "no such file: a\N{REPLACEMENT CHARACTER}b ? é"
        assert ledger.attempts(writer.sweep_id)[0].error == failed.error

    def test_numbers_that_are_none_survive_in_results(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        writer.complete(trial.id, 1, {"loss": math.nan, "curve": [1.0, math.inf, -math.inf]})
        result = ledger.trial(trial.id).result
        assert result is not None
        assert math.isnan(result["loss"])
        assert result["curve"] == [1.0, math.inf, -math.inf]

    def test_only_a_pending_trial_can_start(self, ledger: Ledger, writer: SweepWriter) -> None:
        trial = add_running(writer)
        with pytest.raises(TransitionError, match=r"is running.*needs a pending"):
            writer.start(trial.id, "node-b", 1)
        assert len(ledger.attempts(writer.sweep_id)) == 1

    def test_a_trial_of_another_sweep_cannot_be_written(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add(writer)
        ledger.create_sweep("second", {}, "h")
        other = ledger.take_over("second", "me")
        with pytest.raises(UnknownTrialError, match="'second'"):
            other.start(trial.id, "node", 1)
        with pytest.raises(UnknownTrialError):
            other.complete(trial.id, 1, {})
        with pytest.raises(UnknownTrialError, match="this ledger"):
            ledger.trial(trial.id + 1)

    def test_a_lost_trial_is_tried_again_until_its_budget_is_spent(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add(writer)
        for n, expected in [(1, "pending"), (2, "pending"), (3, "failed")]:
            assert writer.start(trial.id, "node", n) == n
            assert writer.lose(trial.id, n, BLAMED[n - 1], "it died") == expected
        lost = ledger.trial(trial.id)
        assert (lost.state, lost.cause, lost.losses) == (TrialState.FAILED, "lost: hung", 3)
        assert "it died" in (lost.error or "")
        attempts = ledger.attempts(writer.sweep_id)
        assert [(a.outcome, a.loss) for a in attempts] == [(Outcome.LOST, loss) for loss in BLAMED]

    @pytest.mark.parametrize("loss", [Loss.DRIVER, Loss.PREEMPTED, Loss.DEVICE_MEMORY])
    def test_what_a_trial_is_not_to_blame_for_spends_no_budget(
        self, ledger: Ledger, writer: SweepWriter, loss: Loss
    ) -> None:
        trial = add(writer)
        for n in range(1, 2 * MAX_NODES):
            writer.start(trial.id, "node", n)
            assert writer.lose(trial.id, n, loss, "interrupted") is TrialState.PENDING
        assert ledger.trial(trial.id).losses == 0

    def test_machines_that_die_one_after_another_under_a_trial_end_it(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add(writer)
        losses = [Loss.NODE] * (MAX_NODES - 1) + [Loss.DRIVER] + [Loss.NODE] * MAX_NODES
        for n, loss in enumerate(losses, start=1):
            writer.start(trial.id, "node", n)
            last = n == len(losses)
            assert writer.lose(trial.id, n, loss, "gone") == ("failed" if last else "pending")
        assert (ledger.trial(trial.id).cause, ledger.trial(trial.id).losses) == ("lost: node", 0)

    def test_the_limit_of_losses_can_be_set(self, ledger: Ledger) -> None:
        ledger.create_sweep("strict", {}, "h")
        writer = ledger.take_over("strict", "me", max_losses=1)
        trial = add_running(writer)
        assert writer.lose(trial.id, 1, Loss.WORKER, "it died") is TrialState.FAILED

    def test_failed_trials_are_retried_with_a_fresh_budget(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        failed, completed = add_running(writer, 0), add_running(writer, 1)
        writer.fail(failed.id, 1, "boom", "error")
        writer.complete(completed.id, 1, {})
        assert writer.retry_failed() == 1
        assert writer.retry_failed() == 0
        retried = ledger.trial(failed.id)
        assert (retried.state, retried.error, retried.cause) == (TrialState.PENDING, None, None)
        assert (retried.losses, retried.ended_at) == (0, None)
        assert writer.start(failed.id, "node", 1) == 2
        assert ledger.trial(completed.id).state is TrialState.COMPLETED

    def test_only_pending_trials_are_cancelled(self, ledger: Ledger, writer: SweepWriter) -> None:
        running, waiting = add_running(writer, 0), add(writer, 1)
        assert writer.cancel([running.id, waiting.id], "not wanted") == [waiting.id]
        assert ledger.trial(waiting.id).state is TrialState.CANCELLED
        assert ledger.trial(waiting.id).cause == "not wanted"
        counts = ledger.counts(writer.sweep_id)
        assert {state: n for state, n in counts.items() if n} == {"running": 1, "cancelled": 1}
        assert set(counts) == set(TrialState)
        (cancelled,) = ledger.trials(writer.sweep_id, TrialState.CANCELLED)
        assert cancelled.id == waiting.id
        assert writer.retry_failed() == 1
        again = ledger.trial(waiting.id)
        assert (again.state, again.cause, again.ended_at) == (TrialState.PENDING, None, None)


class TestWhoMayWrite:
    def test_a_replaced_driver_changes_nothing(self, ledger: Ledger, writer: SweepWriter) -> None:
        trial = add_running(writer)
        ledger.take_over("grid", "second driver", by_force=True)
        before = ledger.trials(writer.sweep_id), ledger.sweep("grid")
        writes: list[Callable[[], object]] = [
            lambda: add(writer, 5),
            lambda: writer.start(trial.id, "node", 1),
            lambda: writer.report(trial.id, 1, 0, {"loss": 1.0}, NOON),
            lambda: writer.complete(trial.id, 1, {}),
            lambda: writer.fail(trial.id, 1, "boom", "error"),
            lambda: writer.lose(trial.id, 1, Loss.NODE, "gone"),
            writer.retry_failed,
            lambda: writer.cancel([trial.id], "not wanted"),
            lambda: writer.set_state("failed"),
            lambda: writer.set_artifacts({"a": "b"}),
            lambda: writer.amend_spec({}, "h"),
        ]
        for write in writes:
            with pytest.raises(FencedError, match=r"second driver \(epoch 2\).*holds epoch 1"):
                write()
        assert (ledger.trials(writer.sweep_id), ledger.sweep("grid")) == before

    def test_taking_over_gives_running_trials_back_and_never_fails_them(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial, done = add_running(writer, 0), add_running(writer, 1)
        writer.complete(done.id, 1, {})
        for takeover in range(1, 6):
            writer = ledger.take_over("grid", f"driver {takeover}", by_force=True)
            given_back = ledger.trial(trial.id)
            assert (given_back.state, given_back.losses) == (TrialState.PENDING, 0)
            writer.start(trial.id, "node", 1)
        assert ledger.trial(done.id).state is TrialState.COMPLETED
        first, *_ = ledger.attempts(writer.sweep_id)
        assert (first.outcome, first.loss, first.ended_at is None) == ("lost", "driver", False)
        assert "driver 1" in (first.error or "")
        assert writer.lose(trial.id, 6, Loss.WORKER, "it died") is TrialState.PENDING

    def test_a_late_result_does_not_overwrite_its_successor(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        writer = ledger.take_over("grid", "second driver", by_force=True)
        assert writer.start(trial.id, "node-b", 7) == 2
        before = ledger.trial(trial.id)
        with pytest.raises(StaleAttemptError, match="latest attempt is 2"):
            writer.complete(trial.id, 1, {"val_accuracy": 1.0})
        with pytest.raises(StaleAttemptError):
            writer.report(trial.id, 1, 9, {"loss": 1.0}, NOON)
        assert ledger.trial(trial.id) == before
        writer.complete(trial.id, 2, {"val_accuracy": 2.0})
        assert ledger.trial(trial.id).result == {"val_accuracy": 2.0}

    def test_final_states_are_never_left(self, ledger: Ledger, writer: SweepWriter) -> None:
        trial = add_running(writer)
        writer.complete(trial.id, 1, {"val_accuracy": 1.0})
        before = ledger.trial(trial.id)
        lates: list[Callable[[], object]] = [
            lambda: writer.complete(trial.id, 1, {"val_accuracy": 2.0}),
            lambda: writer.stop(trial.id, 1, None, "late"),
            lambda: writer.fail(trial.id, 1, "boom", "error"),
            lambda: writer.lose(trial.id, 1, Loss.NODE, "gone"),
            lambda: writer.report(trial.id, 1, 99, {"loss": 0.0}, NOON),
        ]
        for late in lates:
            with pytest.raises(StaleAttemptError, match="is completed"):
                late()
        with pytest.raises(TransitionError):
            writer.start(trial.id, "node", 1)
        writer.retry_failed()
        writer.cancel([trial.id], "not wanted")
        ledger.take_over("grid", "second driver", by_force=True)
        assert ledger.trial(trial.id) == before


class TestTransactions:
    def test_a_block_that_raises_leaves_nothing(self, ledger: Ledger, writer: SweepWriter) -> None:
        def half_of_it() -> None:
            with writer.transaction():
                trial = add_running(writer)
                writer.report(trial.id, 1, 0, {"loss": 1.0}, NOON)
                raise KeyError("the driver has a bug")

        with pytest.raises(KeyError):
            half_of_it()
        assert ledger.trials(writer.sweep_id) == []
        assert ledger.entries(writer.sweep_id) == []
        add(writer)  # and the next transaction is a fresh one

    def test_a_block_is_seen_whole_or_not_at_all(self, ledger: Ledger, writer: SweepWriter) -> None:
        with writer.transaction():
            add(writer, 0)
            with writer.transaction():
                add(writer, 1)
            assert ledger.trials(writer.sweep_id) == []
        assert len(ledger.trials(writer.sweep_id)) == 2

    def test_a_refused_write_does_not_spoil_the_block_around_it(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        trial = add_running(writer)
        with writer.transaction():
            with pytest.raises(StaleAttemptError):
                writer.complete(trial.id, 9, {})
            with pytest.raises(EntryConflictError):
                add(writer, 0, uid="another")
            writer.complete(trial.id, 1, {})
        assert ledger.trial(trial.id).state is TrialState.COMPLETED
