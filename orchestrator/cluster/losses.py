"""What workers died of: what Ray says, and where it does not know, what their machines say."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError

from orchestrator.cluster.machines import ask_machine
from orchestrator.loop.backend import Lost, Task
from tracking.records import Loss
from workers.node.actor import memory_kills

ASK_S = 30.0  #: Longest a machine is waited for that is asked why a worker died.


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """What the machine of a worker that died is asked: had its kernel killed for memory?"""

    task: Task
    node_id: str
    kills: int  #: Processes its kernel had killed for memory when the worker lived.
    reason: str
    deadline: float  #: By `time.monotonic`.


class Questions:
    """What each lost worker died of; where Ray cannot tell, its machine is asked meanwhile."""

    def __init__(self) -> None:
        self._memory_kills: dict[str, int] = {}  # by machine, when it was last asked
        self._open: dict[Any, _Question] = {}  # by the reference of the answer

    @property
    def awaited(self) -> Iterable[Any]:
        """References of answers that are outstanding."""
        return self._open

    def note(self, node_id: str, kills: int) -> None:
        """Take in how many processes a machine's kernel has killed for memory so far."""
        self._memory_kills[node_id] = kills

    def died(self, task: Task, node_id: str, error: BaseException, *, leaves: bool) -> list[Lost]:
        """Say how a trial's worker was lost; nothing yet where its machine has to be asked.

        Args:
            task: The trial.
            node_id: Ray's id of the machine.
            error: What Ray says.
            leaves: The machine was about to be taken back.
        """
        reason = _reason(error)
        loss = _told_by(error, leaves=leaves)
        if loss is not None:
            return [Lost(task=task, loss=loss, reason=reason)]
        self._open[ask_machine(node_id, memory_kills)] = _Question(
            task=task,
            node_id=node_id,
            kills=self._memory_kills.get(node_id, 0),
            reason=reason,
            deadline=time.monotonic() + ASK_S,
        )
        return []

    def close(self, ready: Iterable[Any]) -> list[Lost]:
        """Tell what workers died of whose machines have answered, or have not for too long."""
        now, answered = time.monotonic(), set(ready)
        found = []
        for asked, question in list(self._open.items()):
            if asked in answered:
                loss = self._answer(asked, question)
            elif now > question.deadline:
                loss = Loss.WORKER
            else:
                continue
            del self._open[asked]
            found.append(Lost(task=question.task, loss=loss, reason=question.reason))
        return found

    def _answer(self, asked: Any, question: _Question) -> Loss:
        try:
            now = self._memory_kills[question.node_id] = int(ray.get(asked))
        except RayError:
            return Loss.NODE  # nobody is there to answer
        return Loss.MEMORY if now > question.kills else Loss.WORKER


def _told_by(error: BaseException, *, leaves: bool) -> Loss | None:
    """Return what Ray knows a worker to have died of; None: its machine has to be asked."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or "due to the node running low on memory" in text:
        return Loss.MEMORY
    if leaves or (isinstance(error, RayActorError) and error.preempted):
        return Loss.PREEMPTED
    if isinstance(error, NodeDiedError) or "because its node has died" in text:
        return Loss.NODE
    return None


def _reason(error: BaseException) -> str:
    """Say what happened in one line: of Ray's many, the one after those that name the actor."""
    lines = [line for line in str(error).splitlines() if line.strip() and line[0] != "\t"]
    return lines[min(1, len(lines) - 1)].strip() if lines else type(error).__name__
