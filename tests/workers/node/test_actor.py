"""A worker process: streams reports, raises what a trial raises, gives memory back."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.node import device_memory
from workers.node.actor import Message, Worker, memory_kills
from workers.node.device_memory import DeviceMemory
from workers.node.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec

SPEC = TrialSpec(
    kind="baseline",
    model=ModelSettings(name="digits_net"),
    data=DataSettings(),
    data_hash="none",
    recipe=Recipe(),
    seed=0,
).model_dump(mode="json")

threads: list[threading.Thread] = []


def reporting(spec: TrialSpec, node: Node, report: Any) -> dict[str, Any]:
    threads.append(threading.current_thread())
    report(1, {"loss": 0.5})
    report(2, {"loss": 0.25})
    return {"shared": node.is_shared}


def failing(spec: TrialSpec, node: Node, report: Any) -> dict[str, Any]:
    report(1, {"loss": 0.5})
    raise ValueError("no such luck")


def worker(tmp_path: Path, runner: str) -> Worker:
    return Worker("cpu", str(tmp_path), str(tmp_path), f"{__name__}:{runner}")


def flat(batches: Iterator[list[Message]]) -> list[Message]:
    return [message for batch in batches for message in batch]


def test_reports_come_in_order_and_the_result_last(tmp_path: Path) -> None:
    assert flat(worker(tmp_path, "reporting").run(SPEC, alone=False)) == [
        ("report", 1, {"loss": 0.5}),
        ("report", 2, {"loss": 0.25}),
        ("result", {"shared": True}),
    ]


def test_a_trial_is_told_when_it_has_the_device_to_itself(tmp_path: Path) -> None:
    *_, last = flat(worker(tmp_path, "reporting").run(SPEC, alone=True))
    assert last == ("result", {"shared": False})


def test_what_a_trial_raises_is_raised_after_its_reports(tmp_path: Path) -> None:
    stream = worker(tmp_path, "failing").run(SPEC, alone=False)
    assert next(stream) == [("report", 1, {"loss": 0.5})]
    with pytest.raises(ValueError, match="no such luck"):
        next(stream)


def test_all_trials_of_a_worker_run_in_one_thread(tmp_path: Path) -> None:
    threads.clear()
    one = worker(tmp_path, "reporting")
    for _ in range(3):
        flat(one.run(SPEC, alone=False))
    assert len(threads) == 3
    assert len(set(threads)) == 1


def counting(spec: TrialSpec, node: Node, report: Any) -> dict[str, Any]:
    for step in range(1, 6):
        with contextlib.suppress(Exception):  # as a method might
            report(step, {"loss": 1 / step})
    return {"attempt": node.attempt, "every": node.checkpoint_epochs}


def test_a_trial_is_stopped_at_its_next_report(tmp_path: Path) -> None:
    one = worker(tmp_path, "counting")
    one.stop(TrialSpec.model_validate(SPEC).uid, 2)
    *_, last = flat(one.run(SPEC, alone=False, attempt=1, checkpoint_epochs=3))
    assert last == ("result", {"attempt": 1, "every": 3})  # another attempt is not meant
    assert flat(one.run(SPEC, alone=False, attempt=2, checkpoint_epochs=3)) == [
        ("report", 1, {"loss": 1.0}),
        ("stopped",),
    ]


@pytest.mark.parametrize(("runner", "last"), [("reporting", "result"), ("counting", "stopped")])
def test_what_a_trial_took_of_a_gpu_travels_before_its_end_and_not_in_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str, last: str
) -> None:
    monkeypatch.setattr(device_memory, "measured", lambda device: DeviceMemory(3, 80))
    one = worker(tmp_path, runner)
    one.stop(TrialSpec.model_validate(SPEC).uid, 2)
    *_, memory, end = flat(one.run(SPEC, alone=False, attempt=2 if last == "stopped" else 1))
    assert memory == ("memory", 3, 80)
    assert end in [("result", {"shared": True}), ("stopped",)]
    assert end[0] == last


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="only Linux counts its kills")
def test_a_machine_counts_the_processes_killed_for_memory() -> None:
    (line,) = [x for x in Path("/proc/vmstat").read_text().splitlines() if x[:9] == "oom_kill "]
    assert memory_kills() == int(line.split()[1])
