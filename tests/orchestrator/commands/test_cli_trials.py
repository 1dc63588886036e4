"""``list``, ``show`` and ``logs``: of a hand-made ledger, and of what a worker logged."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator.command_line import call, facts
from tests.tracking.hand_made import HandMadeSweep, specification
from tracking import TrialState
from tracking.artifacts import ArtifactStore
from tracking.ledger.outbox import Outbox
from workers.node.trial_log import kept_log, log_path

LONG = "functionality-with-a-name-that-needs-more-than-a-narrow-terminal-has"


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[HandMadeSweep]:
    made = HandMadeSweep(tmp_path, specification("l1", LONG))
    made.baseline()
    made.add("search", "l1", index=0, test=None, val=95.0)
    made.add("search", LONG, index=0, test=None, val=94.0)
    made.add("search", "l1", index=1, state=TrialState.FAILED, cause="DivergedError: lost it")
    yield made
    made.ledger.close()


def test_sweeps_are_listed_with_how_far_they_have_come(
    sweep: HandMadeSweep, tmp_path: Path
) -> None:
    (listed,) = facts("list", "--store", tmp_path)
    assert (listed["name"], listed["done"]) == ("by-hand", 4)
    assert listed["wanted"] >= listed["done"]
    text = call("list", "--store", tmp_path, COLUMNS="80").stdout
    assert "by-hand" in text
    assert f"4 of {listed['wanted']}" in text


def test_no_name_is_cut_on_a_narrow_terminal(sweep: HandMadeSweep, tmp_path: Path) -> None:
    text = call("status", "by-hand", "--store", tmp_path, COLUMNS="80").stdout
    assert "…" not in text
    words = [word for line in text.splitlines()[1:] for word in line.split()]
    assert LONG in "".join(word for word in words if word in LONG)


def test_a_trial_is_shown_in_full(sweep: HandMadeSweep, tmp_path: Path) -> None:
    failed = next(t for t in sweep.ledger.trials(1) if t.state is TrialState.FAILED)
    found = facts("show", "by-hand", str(failed.id), "--store", tmp_path)
    assert (found["uid"], found["state"]) == (failed.uid, "failed")
    assert found["cause"] == "DivergedError: lost it"
    assert [one["outcome"] for one in found["attempts"]] == ["failed"]
    (place,) = found["places"]
    assert (place["role"], place["arm"], place["index"]) == ("search", "l1", 1)
    text = call("show", "by-hand", str(failed.id), "--store", tmp_path).stdout
    assert "What went wrong" in text


def diverge(store: ArtifactStore, uid: str, attempt: int) -> None:
    """Log, warn and raise, as a trial may."""
    with warnings.catch_warnings(), kept_log(store, uid, attempt):
        warnings.simplefilter("always")
        logging.getLogger("workers.somewhere").warning("the loss grows")
        warnings.warn("a library warns", stacklevel=1)
        raise ArithmeticError("lost it")


def test_what_an_attempt_logged_is_shown(sweep: HandMadeSweep, tmp_path: Path) -> None:
    failed = next(t for t in sweep.ledger.trials(1) if t.state is TrialState.FAILED)
    (attempt,) = Outbox(sweep.ledger).attempts_of(failed.id)
    without = call("logs", "by-hand", str(failed.id), "--store", tmp_path).stdout
    assert "It logged nothing" in without
    store = ArtifactStore(tmp_path / "artifacts")
    with pytest.raises(ArithmeticError):
        diverge(store, failed.uid, attempt.n)
    text = call("logs", "by-hand", str(failed.id), "--store", tmp_path).stdout
    assert [part in text for part in ("the loss grows", "a library warns", "Traceback")] == [
        True,
        True,
        True,
    ]
    found = facts("show", "by-hand", failed.uid, "--store", tmp_path)
    assert found["files"][-1]["is_there"]


def test_a_trial_that_says_nothing_leaves_no_file(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with kept_log(store, "abc", 1):
        logging.getLogger("workers").debug("a detail")
    assert not store.exists(log_path("abc", 1))
    assert logging.getLogger().handlers == [
        handler for handler in logging.getLogger().handlers if type(handler).__name__ != "_Lines"
    ]


def test_the_version_is_said() -> None:
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("prunesweep")
