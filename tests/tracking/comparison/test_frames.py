from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.comparison.compare import compare
from tracking.comparison.frames import (
    compare_frame,
    curves_frame,
    front_frame,
    ratios_frame,
    status_frame,
    trials_frame,
)
from tracking.records import Loss, TrialState

HALF = "macs-50%"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HandMadeSweep]:
    sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm", seeds=[1, 2]))
    sweep.baseline()
    sweep.add("search", "l1", index=0, test=None, val=95.0)
    sweep.add("confirm", "l1", index=1, test=90.0, val=91.5)
    sweep.add("confirm", "l1", index=2, test=92.0, val=92.5)
    sweep.add("confirm", "fpgm", index=1, test=89.0, macs=400_000)
    sweep.add("confirm", "fpgm", index=2, state=TrialState.FAILED)
    sweep.add("search", "fpgm", index=1, state=TrialState.PENDING)
    yield sweep
    sweep.ledger.close()


def test_trials_have_a_row_per_place_with_what_came_back(made: HandMadeSweep) -> None:
    sweep = made.ledger.sweep(made.name)
    frame = trials_frame(made.ledger.entries(sweep.id), made.ledger.trials(sweep.id))
    assert len(frame) == 7
    l1 = frame.query("arm == 'l1' and role == 'confirm'")
    assert l1["test_accuracy"].tolist() == [90.0, 92.0]
    assert l1["index"].tolist() == [1, 2]
    assert l1["macs_reduction"].tolist() == [0.5, 0.5]
    assert l1["seconds"].tolist() == [20.0, 20.0]
    assert frame.query("state == 'failed'")["cause"].str.startswith("DivergedError").all()
    assert frame.query("state == 'pending'")["val_accuracy"].isna().all()


def test_ratios_tell_the_share_of_filters_that_went(made: HandMadeSweep) -> None:
    sweep = made.ledger.sweep(made.name)
    frame = ratios_frame(made.ledger.entries(sweep.id), made.ledger.trials(sweep.id))
    here = frame.query("arm == 'l1' and role == 'search'")
    assert here["group"].tolist() == ["stage1.0.conv1", "stage2.0.conv1"]
    assert here["filters"].tolist() == [16, 32]
    assert here["kept"].tolist() == [8, 16]
    assert here["ratio"].tolist() == [0.5, 0.5]


def test_curves_are_those_of_the_latest_attempt(made: HandMadeSweep) -> None:
    ledger, sweep = made.ledger, made.ledger.sweep(made.name)
    (pending,) = ledger.trials(sweep.id, TrialState.PENDING)
    for attempt, loss in enumerate((9.0, 0.5), start=1):
        made.writer.start(pending.id, "node", 1)
        now = datetime.now(UTC)
        made.writer.report(pending.id, attempt, 0, {"loss": loss}, now)
        made.writer.report(pending.id, attempt, 1, {"loss": loss / 2, "val_accuracy": 50.0}, now)
        if attempt == 1:
            made.writer.lose(pending.id, attempt, Loss.DRIVER, "given back")
    points = ledger.curves(sweep.id)
    frame = curves_frame(ledger.entries(sweep.id), ledger.trials(sweep.id), points)
    assert frame[["arm", "role", "step"]].to_numpy().tolist() == [
        ["fpgm", "search", 0],
        ["fpgm", "search", 1],
    ]
    assert frame["loss"].tolist() == [0.5, 0.25]
    assert frame["val_accuracy"].isna().tolist() == [True, False]


def test_status_counts_trials_by_state(made: HandMadeSweep) -> None:
    sweep = made.ledger.sweep(made.name)
    frame = status_frame(made.ledger.entries(sweep.id), made.ledger.trials(sweep.id))
    (row,) = frame.query("arm == 'fpgm' and role == 'confirm'").to_dict("records")
    assert (row["completed"], row["failed"], row["pending"], row["total"]) == (1, 1, 0, 2)
    assert frame["total"].sum() == 7


def test_the_comparison_has_the_numbers_of_the_report(made: HandMadeSweep) -> None:
    comparison = compare(made.ledger, made.ledger.sweep(made.name))
    frame = compare_frame(comparison)
    (table,) = comparison.tables
    assert frame["name"].tolist() == [row.name for row in table.rows]
    l1 = frame.set_index("name").loc["l1"]
    assert (l1["accuracy"], l1["n"], l1["target"]) == (91.0, 2, HALF)
    assert l1["std"] == pytest.approx(2**0.5)
    assert l1["drop"] == pytest.approx(table.rows[0].test_accuracy_drop)
    assert l1["low"] < 91.0 < l1["high"]


def test_the_front_marks_what_nothing_beats(made: HandMadeSweep) -> None:
    made.add("control", "random", index=1, test=80.0, macs=500_000)
    frame = front_frame(compare(made.ledger, made.ledger.sweep(made.name))).set_index("arm")
    assert frame["macs"].is_monotonic_increasing
    assert frame["on_front"].to_dict() == {"fpgm": True, "l1": True, "random": False}


def test_a_front_search_has_its_points(tmp_path: Path) -> None:
    made = HandMadeSweep(tmp_path, specification("l1", macs=()))
    for index, (val, macs) in enumerate([(90.0, 500_000), (80.0, 300_000), (70.0, 400_000)]):
        made.add("search", "l1", "front", index, test=None, val=val, macs=macs)
    made.add("confirm", "l1", "front-1", 5, test=79.0, val=81.0, macs=300_000)
    frame = front_frame(compare(made.ledger, made.ledger.sweep(made.name)))
    assert frame["target"].tolist() == ["front-1", "front-0"]
    assert frame["on_front"].all()
    assert frame["test_accuracy"].tolist()[0] == 79.0
    made.ledger.close()


def test_a_sweep_without_trials_gives_empty_frames_with_their_columns(tmp_path: Path) -> None:
    made = HandMadeSweep(tmp_path, specification("l1"))
    comparison = compare(made.ledger, made.ledger.sweep(made.name))
    frames = [trials_frame([], []), ratios_frame([], []), status_frame([], [])]
    frames += [curves_frame([], [], []), front_frame(comparison)]
    assert all(len(frame) == 0 and len(frame.columns) > 3 for frame in frames)
    assert set(compare_frame(comparison)["verdict"]) <= {"no result", "control"}
    made.ledger.close()
