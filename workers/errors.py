"""What can go wrong while a worker prepares, runs and measures a trial."""

from collections.abc import Sequence
from pathlib import PurePath

from prunesweep import PrunesweepError

_SHOWN = 4  #: Keys printed of a long list.


class WorkerError(PrunesweepError):
    """A trial cannot be prepared, run or measured."""


class StoppedError(BaseException):
    """Raised where a trial reports, to end it; no `Exception`, which a method may well catch."""


class DataError(WorkerError, ValueError):
    """The data set is not there, or is not what the settings say it is."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ImageError(DataError):
    """One image file cannot be used."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.args = (file, reason)
        self.file, self.reason = file, reason


class TestSplitReadError(WorkerError, RuntimeError):
    """The test split was asked for a second time within one trial, or by a trial of a search."""

    __test__ = False  # the name begins like a test class

    def __init__(self, data_set: str) -> None:
        super().__init__(data_set)
        self.data_set = data_set

    def __str__(self) -> str:
        return (
            f"The test split of {self.data_set!r} cannot be read here: a trial reads it once, at "
            "its end, and a trial of a search not at all, so that nothing is chosen by looking at "
            "it. Use the validation split."
        )


class ModelError(WorkerError, ValueError):
    """A network cannot be built as the settings ask."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class CheckpointError(WorkerError, ValueError):
    """Weights cannot be taken from a checkpoint."""


class UnreadableCheckpointError(CheckpointError):
    """A file does not hold weights that can be read safely."""

    def __init__(self, path: str | PurePath, problem: str) -> None:
        super().__init__(str(path), problem)
        self.path, self.problem = str(path), problem

    def __str__(self) -> str:
        return f"Checkpoint {self.path!r} {self.problem}"


class WeightsMismatchError(CheckpointError):
    """Weights do not belong to the network they are loaded into."""

    def __init__(
        self,
        missing: Sequence[str],
        unexpected: Sequence[str],
        mismatched: Sequence[str],
        inexact: Sequence[str] = (),
    ) -> None:
        super().__init__(tuple(missing), tuple(unexpected), tuple(mismatched), tuple(inexact))
        self.missing, self.unexpected, self.mismatched = missing, unexpected, mismatched
        self.inexact = inexact

    def __str__(self) -> str:
        parts = [
            f"{len(keys)} {what} ({_first(keys)})"
            for what, keys in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.mismatched),
                ("not finite, or not exact in the network's precision", self.inexact),
            )
            if keys
        ]
        return (
            f"The weights do not fit the network: {'; '.join(parts)}. Every name and shape must "
            "agree; choose the model, its arguments and the data set the weights were trained with."
        )


def _first(keys: Sequence[str]) -> str:
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


class ArtifactCorruptError(WorkerError, ValueError):
    """A stored file is not what its name says."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(path, found)
        self.path, self.found = path, found

    def __str__(self) -> str:
        return (
            f"Artifact {self.path!r} has content hash {self.found}, which is not what it is named "
            "by; the file was changed or damaged. Delete it and run the trial that wrote it again, "
            "in a new sweep where that was a latency predictor."
        )


class BudgetError(WorkerError, RuntimeError):
    """A method asked for more training than the trial has left."""

    def __init__(self, asked: float, left: float, budget: int) -> None:
        super().__init__(asked, left, budget)
        self.asked, self.left, self.budget = asked, left, budget

    def __str__(self) -> str:
        return (
            f"{self.asked:g} epochs of training were asked for and {self.left:g} of the trial's "
            f"{self.budget} are left; every method of a comparison has the same budget. Give the "
            "method fewer epochs in its settings, or the recipe more."
        )
