"""Checkpoints of a trial in progress: written as a whole, named by content, read without code.

A checkpoint is a safetensors file whose name says how far the trial was, which attempt wrote it and
what it holds: one whose bytes do not hash to its name is torn, and the one before it is taken.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from methods import State
from tracking.artifacts import ArtifactStore
from workers.errors import WorkerError
from workers.node.environment import code_version

KEPT = 2  #: Newest checkpoints of an attempt that are kept: one may be torn.
_DIGITS = 16  # of the SHA-256 in a name
_FACTS = "facts"  # the file's metadata: all that is not a tensor, as JSON
_NAME = re.compile(rf"(\d{{10}})-a(\d{{4,}})-([0-9a-f]{{{_DIGITS}}})\.safetensors")

log = logging.getLogger(__name__)


class CheckpointMismatchError(WorkerError, ValueError):
    """A checkpoint is whole, and does not fit the trial as this code runs it."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"A checkpoint does not fit the trial that wrote it ({self.problem}): the code of the "
            "network or of the method has changed. The trial has to begin again."
        )


@contextmanager
def restoring() -> Iterator[None]:
    """Take whatever goes wrong inside as a checkpoint that does not fit."""
    try:
        yield
    except Exception as error:  # a name, a shape or a value, in whoever's part
        raise CheckpointMismatchError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a trial needs to go on within a call to train."""

    act: str  #: What the call is charged to: ``select``, ``statistics`` or ``recover``.
    first_step: int  #: Steps the trial had taken when the call began.
    step: int  #: Steps the trial has taken.
    epoch: int  #: Epochs of the call that are done.
    parts: Mapping[str, State]  #: What each owner keeps: tensors, and what survives JSON.

    def to_bytes(self) -> bytes:
        """Serialise as safetensors; what is no tensor goes into the metadata, as JSON."""
        facts: dict[str, dict[str, Any]] = {name: {} for name in self.parts}
        tensors = {}
        for name, part in self.parts.items():
            for key, value in part.items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{key}"] = value.detach().cpu().contiguous().clone()
                else:
                    facts[name][key] = value
        header = {
            "code": _code(),
            "act": self.act,
            "first_step": self.first_step,
            "step": self.step,
            "epoch": self.epoch,
            "parts": facts,
        }
        return safetensors.torch.save(tensors, {_FACTS: json.dumps(header, allow_nan=False)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Checkpoint":
        """Restore what :meth:`to_bytes` made, onto the CPU.

        Raises:
            CheckpointMismatchError: Other code wrote it, whose numbers may be others.
        """
        length = int.from_bytes(content[:8], "little")  # a JSON header follows, then the tensors
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_FACTS])
        if header.pop("code") != _code():
            raise CheckpointMismatchError("another version of prunesweep or torch wrote it")
        parts = header.pop("parts")
        for path, tensor in safetensors.torch.load(content).items():
            name, _, key = path.partition("/")
            parts[name][key] = tensor
        return cls(parts=parts, **header)


def _code() -> dict[str, str | None]:
    """Say what numbers depend on beside the trial, wherever it runs."""
    commit = code_version()
    return {
        "torch": str(torch.__version__).partition("+")[0],
        "commit": commit.removesuffix("-dirty") if commit else None,
    }


def checkpoint_folder(uid: str) -> str:
    """Return where the checkpoints of a trial lie in the artifact store."""
    return f"checkpoints/{uid}"


class TrialCheckpoints:
    """The checkpoints of one trial, as one attempt at it sees them.

    No trouble with the store ends a trial: it is logged, and training goes on. Attempts share a
    folder, and an attempt that was given up may still write to it. As a trial gives the same
    numbers whoever runs it, whatever is whole can be used; an attempt removes only what it, or one
    before it, wrote.

    Args:
        store: Where every machine finds them.
        uid: The trial.
        attempt: Number of this attempt.
        epochs: Epochs of training from one checkpoint to the next; 0: none are written.
    """

    def __init__(self, store: ArtifactStore, uid: str, *, attempt: int, epochs: int) -> None:
        self._epochs = epochs
        self._store, self._folder, self._attempt = store, checkpoint_folder(uid), attempt
        self._trusted: list[str] = []  # what this attempt read or wrote, oldest first
        self._has_failed = False
        #: The furthest that is whole and of this code: where to go on. None: at the beginning.
        self.resume: Checkpoint | None = self._newest()
        self._kept_step = self.resume.step if self.resume else 0

    def _newest(self) -> Checkpoint | None:
        names: list[str] = []
        self._try("looked for", lambda: names.extend(self._names()))
        for name in sorted(names, reverse=True):
            try:
                content = self._store.read_bytes(f"{self._folder}/{name}")
                if _digest(content) != _parsed(name)[2]:
                    raise ValueError("it is torn or damaged")
                found = Checkpoint.from_bytes(content)
            except Exception as error:  # each kind of store has its own
                log.warning("Checkpoint %s/%s is passed over: %s", self._folder, name, error)
            else:
                log.info("The trial goes on from checkpoint %s/%s", self._folder, name)
                self._trusted.append(name)
                return found
        return None

    def begin_again(self) -> None:
        """Trust none of what earlier attempts wrote."""
        self.resume, self._trusted, self._kept_step = None, [], 0

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Say whether a trial that has taken ``step`` steps should write a checkpoint."""
        return 0 < self._epochs * steps_per_epoch <= step - self._kept_step

    def write(self, checkpoint: Checkpoint) -> None:
        """Store ``checkpoint``, and remove what it makes superfluous."""
        self._kept_step = checkpoint.step
        self._try("written", lambda: self._write(checkpoint))

    def remove(self) -> None:
        """Remove all of this attempt and of those before it; nobody needs them any more."""
        self._try("removed", self._remove_all)

    def _write(self, checkpoint: Checkpoint) -> None:
        content = checkpoint.to_bytes()
        name = f"{checkpoint.step:010d}-a{self._attempt:04d}-{_digest(content)}.safetensors"
        self._store.write_bytes(f"{self._folder}/{name}", content)
        self._trusted = [*self._trusted, name][-KEPT:]
        for other in self._ours():
            if other not in self._trusted:
                self._store.remove(f"{self._folder}/{other}")

    def _remove_all(self) -> None:
        ours = self._ours()
        if len(ours) == len(self._names()):  # what a killed process was writing goes, too
            self._store.remove_folder(self._folder)
            return
        for name in ours:
            self._store.remove(f"{self._folder}/{name}")

    def _ours(self) -> list[str]:
        return [name for name in self._names() if _parsed(name)[1] <= self._attempt]

    def _names(self) -> list[str]:
        return [name for name in self._store.files(self._folder) if _NAME.fullmatch(name)]

    def _try(self, done: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # each kind of store has its own
            level = logging.DEBUG if self._has_failed else logging.WARNING
            self._has_failed = True
            log.log(level, "Checkpoints in %s cannot be %s: %s", self._folder, done, error)


def _parsed(name: str) -> tuple[int, int, str]:
    """Return step, attempt and digest."""
    found = _NAME.fullmatch(name)
    assert found
    return int(found[1]), int(found[2]), found[3]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
