"""Where in a sweep a trial is wanted, and the names that say so.

Every role, every name of a control and every label of a target is made and read here, and nowhere
else. What of all this one sweep asks for is in `tracking.matrix`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

FRONT: Final = "front"  #: Target label of a search for accuracy and cost at once.
LATENCY: Final = "latency"  #: Axis of targets that are met by a latency model.
DROP: Final = "drop"  #: Begins the label of an accuracy that may be lost.
DENSE, RANDOM, UNIFORM_L1, SCRATCH = "dense", "random", "uniform_l1", "scratch"
CONTROLS: Final = (DENSE, RANDOM, UNIFORM_L1, SCRATCH)  #: In the order they are shown.


class Role(StrEnum):
    """What a trial is wanted for; in the order of a sweep's phases."""

    BASELINE = "baseline"  #: The dense network everything starts from.
    PREDICTOR = "predictor"  #: Of it the trials of an arm learn what latency to expect.
    TUNE = "tune"  #: A learning rate, tried on the uniform L1 control: one is taken for all.
    SEARCH = "search"  #: A proposal, judged on the validation split.
    FINALIST = "finalist"  #: One of the best proposals, trained: the winner is chosen among these.
    CONFIRM = "confirm"  #: A winner of a search, re-run with a fresh seed.
    CONTROL = "control"  #: There to be beaten.
    LATENCY = "latency"  #: The time of a winner's shape.

    @property
    def result_field(self) -> str:
        """Field of the result that the trial is there for."""
        if self in {Role.PREDICTOR, Role.LATENCY}:
            return str(self)
        return "val_accuracy" if self.is_chosen_among else "test_accuracy"

    @property
    def gives_accuracy(self) -> bool:
        """Its trials end with an accuracy, not with something that was timed."""
        return self not in {Role.PREDICTOR, Role.LATENCY}

    @property
    def is_reported(self) -> bool:
        """Its test accuracy is what tables show: seeds are fresh, nothing was chosen by it."""
        return self in {Role.CONFIRM, Role.CONTROL}

    @property
    def speaks_of_arm(self) -> bool:
        """How its trials end tells what an arm is worth, and whether to go on with it."""
        return self in {Role.SEARCH, Role.FINALIST, Role.CONFIRM}

    @property
    def may_end_early(self) -> bool:
        """Its trials may be stopped when they do not look promising."""
        return self is Role.SEARCH

    @property
    def may_be_replaced(self) -> bool:
        """A place may point at another trial later: an extended search has a new winner."""
        return self not in {Role.BASELINE, Role.SEARCH}

    @property
    def is_numbered(self) -> bool:
        """The index of a place is a number, or rank, within a search or grid; else a seed."""
        return self in {Role.TUNE, Role.SEARCH, Role.FINALIST}

    @property
    def is_ranked(self) -> bool:
        """The index of a place is a rank: among a search's proposals, by what they promise."""
        return self is Role.FINALIST

    @property
    def serves_every_target(self) -> bool:
        """Where its places name no target, their trials count at each of them."""
        return self in {Role.PREDICTOR, Role.CONTROL}

    @property
    def is_needed_by_all(self) -> bool:
        """All else needs its results: its trials go only with the whole sweep."""
        return self in {Role.BASELINE, Role.TUNE}

    @property
    def is_chosen_among(self) -> bool:
        """Its trials are there for one of them to be chosen: tables report none of them."""
        return self in {Role.TUNE, Role.SEARCH, Role.FINALIST}

    @property
    def stands_for_arm(self) -> bool:
        """An arm or control all of whose trials in such roles failed has failed."""
        return self not in {Role.BASELINE, Role.TUNE, Role.LATENCY}

    @property
    def phrase(self) -> str:
        """What its trials of an arm are called, with ``{arm}`` in its place."""
        return _PHRASES[self]

    @property
    def activity(self) -> str:
        """What a sweep does while they run."""
        return _ACTIVITIES[self]


_PHRASES: Final[Mapping[Role, str]] = {
    Role.BASELINE: "dense baseline",
    Role.PREDICTOR: "latency predictor of {arm}",
    Role.TUNE: "learning rates on {arm}",
    Role.SEARCH: "search of {arm}",
    Role.FINALIST: "best proposals of {arm}, trained",
    Role.CONFIRM: "fresh-seed runs of {arm}",
    Role.CONTROL: "control {arm}",
    Role.LATENCY: "latency of {arm}",
}
_ACTIVITIES: Final[Mapping[Role, str]] = {
    Role.BASELINE: "training the dense network",
    Role.PREDICTOR: "measuring latencies to predict others",
    Role.TUNE: "choosing a learning rate",
    Role.SEARCH: "searching",
    Role.FINALIST: "training the best proposals",
    Role.CONFIRM: "re-running winners with fresh seeds",
    Role.CONTROL: "running controls",
    Role.LATENCY: "measuring latency",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a sweep a trial is wanted."""

    role: Role
    #: Name of the arm or control; empty for the baseline, and for the latency model of targets.
    arm: str = ""
    #: As `target_label`, `drop_label`, `tried_at` or `front_point` make it; empty: for all.
    target: str = ""
    index: int = 0  #: Number within the search, or the seed.

    def __str__(self) -> str:
        return "/".join(part for part in (*self.words, str(self.index)) if part)

    @property
    def words(self) -> tuple[str, str, str]:
        """Role, arm and target: all but the index."""
        return (str(self.role), self.arm, self.target)


def target_label(axis: str, reduction: float) -> str:
    """Name a cost to meet, as in ``macs-50%``."""
    return f"{axis}-{reduction * 100:g}%"


def drop_label(points: float) -> str:
    """Name an accuracy that may be lost, as in ``drop-0.5``."""
    return f"{DROP}-{points:g}"


def tried_at(label: str, reduction: float) -> str:
    """Name a cost that is searched on the way to a drop's answer, as in ``drop-0.5@40%``."""
    return f"{label}@{reduction * 100:g}%"


def is_drop(label: str) -> bool:
    """Say whether a label is that of an accuracy that may be lost, or of a cost on the way."""
    return label.startswith(f"{DROP}-")


def front_point(number: int) -> str:
    """Name a proposal on a front that is re-run, as in ``front-7``."""
    return f"{FRONT}-{number}"


def front_number(label: str) -> int | None:
    """Return the number of the proposal that ``front-7`` names; None for any other label."""
    name, _, number = label.partition("-")
    return int(number) if name == FRONT and number.isdecimal() else None


def is_front(label: str) -> bool:
    """Say whether a label is that of a front, or of a point on it."""
    return label == FRONT or front_number(label) is not None


def searched_label(label: str) -> str:
    """Return the label of the target that a trial at ``label`` is for.

    ``front`` for a point on it, ``drop-0.5`` for a cost tried on the way to its answer.
    """
    return FRONT if is_front(label) else label.partition("@")[0]


def scratch_control(arm: str) -> str:
    """Name the control that trains the winning shape of an arm from scratch: ``scratch:l1``."""
    return f"{SCRATCH}:{arm}"


def scratched_arm(control: str) -> str | None:
    """Return the arm whose shape a control trains from scratch; None for any other name."""
    kind, colon, arm = control.partition(":")
    return arm if kind == SCRATCH and colon else None


def kind_of_control(name: str) -> str:
    """Return which of `CONTROLS` a control is: ``scratch`` for ``scratch:l1``."""
    return name.partition(":")[0]
