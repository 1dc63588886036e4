"""What is still to be published, and how the ledger finds it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.tracking.conftest import NOON, SPEC, add, add_running
from tracking import Loss, Place, Role
from tracking.ledger.ledger import Ledger
from tracking.ledger.outbox import Outbox
from tracking.ledger.writer import SweepWriter


@pytest.fixture
def outbox(ledger: Ledger) -> Outbox:
    return Outbox(ledger)


def publish_everything(outbox: Outbox) -> None:
    for sweep in outbox.dirty_sweeps():
        outbox.mark_sweep_published(sweep.id, sweep.rev)
    for trial in outbox.dirty_trials():
        outbox.mark_published(trial.id, trial.rev)


def test_everything_new_is_unpublished_oldest_first(outbox: Outbox, writer: SweepWriter) -> None:
    wanted = [add(writer, index).id for index in range(5)]
    assert [trial.id for trial in outbox.dirty_trials()] == wanted
    assert [trial.id for trial in outbox.dirty_trials(limit=2)] == wanted[:2]
    assert [sweep.name for sweep in outbox.dirty_sweeps()] == ["grid"]
    assert outbox.pending() == 6
    publish_everything(outbox)
    assert outbox.pending() == 0


def test_trials_of_one_sweep_can_be_asked_for(
    ledger: Ledger, outbox: Outbox, writer: SweepWriter
) -> None:
    add(writer)
    ledger.create_sweep("second", {}, "h")
    other = ledger.take_over("second", "me")
    trial = add(other, uid="other")
    assert [found.id for found in outbox.dirty_trials(other.sweep_id)] == [trial.id]
    assert len(outbox.dirty_trials()) == 2


def test_every_change_of_a_trial_makes_it_unpublished(
    ledger: Ledger, outbox: Outbox, writer: SweepWriter
) -> None:
    trial = add(writer)
    confirm = Place(Role.CONFIRM, arm="l1", target="macs-50%", index=3)
    changes: dict[str, Callable[[], object]] = {
        "start": lambda: writer.start(trial.id, "node", 1),
        "report": lambda: writer.report(trial.id, 1, 0, {"loss": 1.0}, NOON),
        "another entry": lambda: writer.want(confirm, trial.uid, SPEC),
        "lose": lambda: writer.lose(trial.id, 1, Loss.WORKER, "gone"),
        "start again": lambda: writer.start(trial.id, "node", 1),
        "fail": lambda: writer.fail(trial.id, 2, "boom", "error"),
        "retry": writer.retry_failed,
        "start a third time": lambda: writer.start(trial.id, "node", 1),
        "take-over": lambda: ledger.take_over("grid", "second driver", by_force=True),
    }
    for name, change in changes.items():
        publish_everything(outbox)
        change()
        assert [found.id for found in outbox.dirty_trials()] == [trial.id], name
    publish_everything(outbox)
    third = ledger.take_over("grid", "third driver", by_force=True)
    third.cancel([trial.id], "not wanted")
    assert [found.id for found in outbox.dirty_trials()] == [trial.id]


def test_every_change_of_a_sweep_makes_it_unpublished(outbox: Outbox, writer: SweepWriter) -> None:
    changes: list[Callable[[], None]] = [
        lambda: writer.set_artifacts({"report.html": "grid/report.html"}),
        lambda: writer.set_state("completed"),
        lambda: writer.amend_spec({"more": 1}, "h2"),
    ]
    for change in changes:
        publish_everything(outbox)
        change()
        assert [sweep.name for sweep in outbox.dirty_sweeps()] == ["grid"]


def test_a_change_made_while_publishing_is_published_next(
    outbox: Outbox, writer: SweepWriter
) -> None:
    add_running(writer)
    (read,) = outbox.dirty_trials()
    writer.complete(read.id, 1, {"val_accuracy": 1.0})
    outbox.mark_published(read.id, read.rev)
    (again,) = outbox.dirty_trials()
    assert again.state == "completed"
    outbox.mark_published(again.id, again.rev)
    outbox.mark_published(again.id, read.rev)  # an older mark, late
    assert outbox.dirty_trials() == []


def test_the_parts_of_a_trial_are_there_to_publish(outbox: Outbox, writer: SweepWriter) -> None:
    trial = add_running(writer)
    writer.report(trial.id, 1, 0, {"loss": 1.0}, NOON)
    writer.lose(trial.id, 1, Loss.WORKER, "gone")
    writer.start(trial.id, "node-b", 2)
    assert [(a.n, a.outcome) for a in outbox.attempts_of(trial.id)] == [(1, "lost"), (2, None)]
    assert [point.value for point in outbox.metrics_of(trial.id, 1)] == [1.0]
    assert outbox.metrics_of(trial.id, 2) == []
    assert [entry.place.role for entry in outbox.entries_of(trial.id)] == ["search"]


def test_where_a_record_is_shown_is_remembered_without_a_change(
    ledger: Ledger, outbox: Outbox, writer: SweepWriter
) -> None:
    trial = add_running(writer)
    publish_everything(outbox)
    outbox.set_run(trial.id, 1, "run-1")
    outbox.set_sweep_run(writer.sweep_id, "7", "parent")
    assert outbox.attempts_of(trial.id)[0].run_id == "run-1"
    sweep = ledger.sweep("grid")
    assert (sweep.experiment_id, sweep.run_id) == ("7", "parent")
    assert outbox.pending() == 0


def test_a_reset_has_one_sweep_published_again(
    ledger: Ledger, outbox: Outbox, writer: SweepWriter
) -> None:
    add(writer)
    ledger.create_sweep("second", {}, "h")
    add(ledger.take_over("second", "me"), uid="other")
    publish_everything(outbox)
    outbox.reset(writer.sweep_id)
    assert [sweep.name for sweep in outbox.dirty_sweeps()] == ["grid"]
    assert [trial.sweep_id for trial in outbox.dirty_trials()] == [writer.sweep_id]


@pytest.mark.parametrize(
    ("query", "plan"),
    [
        (
            "SELECT * FROM ledger_trial WHERE rev > published_rev ORDER BY sweep_id, id LIMIT 200",
            "USING INDEX ledger_trial_outbox",
        ),
        (
            "SELECT * FROM ledger_trial WHERE sweep_id = 1 AND rev > published_rev "
            "ORDER BY sweep_id, id LIMIT 200",
            "USING INDEX ledger_trial_outbox (sweep_id=?)",
        ),
        (
            "SELECT count(*) FROM ledger_trial WHERE rev > published_rev",
            "INDEX ledger_trial_outbox",
        ),
        (
            "SELECT * FROM ledger_trial WHERE uid = 'a' AND state = 'completed' "
            "ORDER BY id LIMIT 1",
            "ledger_trial_uid (uid=? AND state=?)",
        ),
        (
            "SELECT state, count(*) FROM ledger_trial WHERE sweep_id = 1 GROUP BY state",
            "COVERING INDEX ledger_trial_state (sweep_id=?)",
        ),
        (
            "UPDATE ledger_trial SET rev = rev + 1 WHERE sweep_id = 1 AND uid = 'a'",
            "(sweep_id=? AND uid=?)",
        ),
        (
            "UPDATE ledger_trial SET rev = rev + 1 WHERE state = 'running' AND sweep_id = 1",
            "ledger_trial_state (sweep_id=? AND state=?)",
        ),
        (
            "UPDATE ledger_trial SET rev = rev + 1 "
            "WHERE state = 'running' AND id = 1 AND sweep_id = 1 AND attempt = 1",
            "USING INTEGER PRIMARY KEY (rowid=?)",
        ),
        (
            "SELECT * FROM ledger_entry WHERE sweep_id = 1 AND role = 'search' AND arm = 'l1' "
            "AND target = '' AND \"index\" = 3",
            "(sweep_id=? AND role=? AND arm=? AND target=? AND index=?)",
        ),
        ("SELECT * FROM ledger_entry WHERE trial_id = 3", "ledger_entry_trial (trial_id=?)"),
    ],
)
def test_frequent_questions_are_answered_from_an_index(
    tmp_path: Path, query: str, plan: str
) -> None:
    with (
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger,
        ledger.database.read() as connection,
    ):
        steps = [row[-1] for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))]
    assert len(steps) == 1  # no sorting, no second lookup
    assert plan in steps[0]
