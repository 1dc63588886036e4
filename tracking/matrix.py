"""The trial matrix: all that a sweep asks for, as data, read from the specification it has stored.

Agenda, dry-run, progress, status and tables are loops over it. A cell is an upper bound until what
it depends on has ended: content that repeats runs once, and a search may find nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tracking.places import (
    DENSE,
    FRONT,
    LATENCY,
    RANDOM,
    SCRATCH,
    UNIFORM_L1,
    Place,
    Role,
    drop_label,
    is_drop,
    scratched_arm,
    searched_label,
    target_label,
)

#: Costs the controls of a front are run at where none are stored, shares of the MACs removed.
FRONT_CONTROLS: Final = (0.25, 0.5, 0.75)
FRONT_WINNERS: Final = 5  #: Proposals on a front that are re-run, spread over its costs.
COSTS: Final = 5  #: Costs an accuracy drop is searched at, where the specification names none.
LATENCY_TOLERANCE: Final = 0.05  #: Of the dense latency, between a target and the clock.
TOLERANCE: Final = 0.01  #: Where the specification names none: a share of the dense cost.


@dataclass(frozen=True, kw_only=True, slots=True)
class CostPoint:
    """A cost that arms must meet, and how near is near enough."""

    label: str  #: As places name it.
    axis: str | None  #: ``macs`` or ``params``; None on a front, where costs differ by design.
    reduction: float | None  #: Share removed from the dense network; None: it is searched.
    tolerance: float  #: Largest distance from ``reduction``, a share of the dense cost.
    drop: float | None = None  #: Points of accuracy that may be lost, where the cost is searched.

    @property
    def is_front(self) -> bool:
        """There is no cost to meet: accuracy and cost are searched at once."""
        return self.axis is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Trials of one kind that a sweep asks for."""

    role: Role
    arm: str = ""  #: Name of the arm or control; `SCRATCH` for whichever arm wins.
    target: str = ""  #: Label of the target; `FRONT` for any point on it.
    indices: tuple[int, ...]  #: Numbers within the search, or seeds.
    points: int = 1  #: Places for each index, at most: the points of a front that are re-run.
    epochs: int = 0  #: Of each trial, at most.

    @property
    def trials(self) -> int:
        """How many trials, at most."""
        return len(self.indices) * self.points

    @property
    def all_epochs(self) -> int:
        """Epochs of all its trials."""
        return self.trials * self.epochs

    @property
    def is_scratch(self) -> bool:
        """It trains the shape of the winner from scratch, whichever arm that is."""
        return self.role is Role.CONTROL and self.arm == SCRATCH

    @property
    def follows_winner(self) -> bool:
        """It is a control of the cheapest network within a drop, known once the arms are re-run."""
        return self.role is Role.CONTROL and (self.is_scratch or is_drop(self.target))

    def places(self, *, arm: str | None = None, target: str | None = None) -> Iterator[Place]:
        """Yield its places in order, for the arm that won, and the point that is re-run."""
        for index in self.indices:
            yield Place(self.role, arm or self.arm, target or self.target, index)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All cells of a sweep, in the order of its phases."""

    arms: tuple[str, ...]
    points: tuple[CostPoint, ...]  #: MACs first; one of them, without an axis, on a front.
    cells: tuple[Cell, ...]
    is_given: bool  #: The dense weights are: nothing waits for the baseline.

    @property
    def trials(self) -> int:
        """How many trials in all, at most."""
        return sum(cell.trials for cell in self.cells)

    @property
    def all_epochs(self) -> int:
        """Epochs of all trials."""
        return sum(cell.all_epochs for cell in self.cells)

    def of(self, role: Role) -> list[Cell]:
        """Return the cells of one role."""
        return list(self._by_role.get(role, ()))

    def cell(self, role: Role, arm: str, target: str = "") -> Cell | None:
        """Return the cell of such places; None: the sweep asks for none."""
        return self.cell_of(Place(role, arm, target))

    def cell_of(self, place: Place) -> Cell | None:
        """Return the cell a place is of, as ``front-7`` is of ``front``; None: of none."""
        is_scratch = place.role is Role.CONTROL and scratched_arm(place.arm) is not None
        arm = SCRATCH if is_scratch else place.arm
        return self._by_words.get((place.role, arm, searched_label(place.target)))

    @cached_property
    def _by_words(self) -> Mapping[tuple[str, str, str], Cell]:
        return {(cell.role, cell.arm, cell.target): cell for cell in self.cells}

    @cached_property
    def _by_role(self) -> Mapping[Role, list[Cell]]:
        found: dict[Role, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.role, []).append(cell)
        return found

    def needs(self, cell: Cell) -> list[Cell]:
        """Return the cells all of whose trials end before the first of ``cell`` is wanted."""
        baseline = [] if self.is_given or cell.role is Role.BASELINE else self.of(Role.BASELINE)
        if cell.role is Role.LATENCY:  # alone, and last: times are what is measured
            return [other for other in self.cells if other.role is not Role.LATENCY]
        if cell.role is Role.PREDICTOR and not cell.arm:
            return []
        if cell.role is not Role.BASELINE:
            baseline = [*baseline, *(c for c in self.of(Role.PREDICTOR) if not c.arm)]
        if cell.role not in {Role.BASELINE, Role.TUNE}:
            baseline = [*baseline, *self.of(Role.TUNE)]
        needed: tuple[Role, ...] = ()
        if cell.role is Role.SEARCH:
            needed = (Role.PREDICTOR,)
        elif cell.role is Role.FINALIST:
            needed = (Role.SEARCH,)
        elif cell.role is Role.CONFIRM:
            needed = (Role.PREDICTOR, Role.SEARCH, Role.FINALIST)
            if is_drop(cell.target):  # what is lost is lost against the dense control
                baseline = [*baseline, *(c for c in self.of(Role.CONTROL) if c.arm == DENSE)]
        own = [
            other
            for role in needed
            for other in self.of(role)
            if other.arm == cell.arm and other.target in {"", cell.target}
        ]
        if cell.follows_winner:  # which is known once every arm was re-run
            own = [other for other in self.of(Role.CONFIRM) if other.target == cell.target]
        return [*baseline, *own]


def matrix_of(
    spec: Mapping[str, Any], predicted: Collection[str] = (), untrained: Collection[str] = ()
) -> Matrix:
    """Read what a stored specification asks for.

    Args:
        spec: As `SweepRecord.spec` holds it; what a version before did not know may be absent.
        predicted: Arms that train against a latency predictor, which their methods decide.
        untrained: Arms whose proposals are judged without training, which methods decide as well.
    """
    arms: Sequence[Mapping[str, Any]] = spec.get("arms", ())
    names = tuple(str(arm["name"]) for arm in arms)
    search, controls = spec.get("search") or {}, spec.get("controls") or {}
    recipe = spec.get("recipe") or {}
    epochs = int(recipe.get("epochs", 0))
    dense_epochs = int({**recipe, **(spec.get("baseline") or {})}.get("epochs", 0))
    seeds = tuple(int(seed) for seed in spec.get("seeds", ()))
    own_seed, is_given = (int(search.get("seed", 0)),), _is_given(spec)
    points = cost_points(spec)
    is_front = points[0].is_front
    winners = FRONT_WINNERS if is_front else 1
    budget = int(search.get("trials", 0))
    budget = budget if budget > 1 else 0  # one trial is uniform ratios: nothing is searched
    finalists = int(search.get("finalists", 0))
    cells = [
        Cell(role=Role.BASELINE, indices=own_seed, epochs=0 if is_given else dense_epochs),
        *(
            Cell(role=Role.PREDICTOR, indices=(0,))  # the latency model all arms are held to
            for _ in range(any(point.axis == LATENCY for point in points))
        ),
        *(Cell(role=Role.PREDICTOR, arm=n, indices=(0,)) for n in names if n in predicted),
    ]
    more = spec.get("more_seeds") or {}

    def seeds_of(name: str) -> tuple[int, ...]:
        return tuple(dict.fromkeys((*seeds, *map(int, more.get(name, ())))))

    rates = tuple(range(len(recipe.get("learning_rates") or ())))
    beside = [point.label for point in control_points(spec)]
    at_first: dict[str, Any] = {"arm": UNIFORM_L1, "target": beside[0]}
    cells.append(Cell(role=Role.TUNE, indices=rates, epochs=epochs, **at_first))
    for label, is_open in [(point.label, point.drop is not None) for point in points]:
        costs = int(search.get("costs", COSTS)) if is_open else 1
        for name, arm in zip(names, arms, strict=True):
            numbers = tuple(range(budget)) if is_searched(arm) else ()
            is_judged = name in untrained and bool(numbers)
            ranks = tuple(range(min(finalists, budget))) if is_judged and not is_front else ()
            if is_open and not numbers:  # what it loses is known once its one network is trained
                ranks = (0,)
            own: dict[str, Any] = {"arm": name, "target": label}
            at = {**own, "epochs": epochs}
            each = {**own, "points": costs, "epochs": 0 if is_judged else epochs}
            cells += [
                Cell(role=Role.SEARCH, indices=numbers, **each),
                Cell(role=Role.FINALIST, indices=ranks, points=costs, **at),
                Cell(role=Role.CONFIRM, indices=seeds_of(name), points=winners, **at),
            ]
    if controls.get(DENSE):
        cells.append(Cell(role=Role.CONTROL, arm=DENSE, indices=seeds_of(DENSE), epochs=epochs))
    for label in beside:
        cells += [
            Cell(role=Role.CONTROL, arm=name, target=label, indices=seeds_of(name), epochs=epochs)
            for name in (RANDOM, UNIFORM_L1)
            if controls.get(name)
        ]
    scratch_epochs = dense_epochs if is_given else dense_epochs + epochs
    for label in [point.label for point in points]:
        if controls.get(SCRATCH) and not is_front:
            wins: dict[str, Any] = {"arm": SCRATCH, "target": label, "epochs": scratch_epochs}
            cells.append(Cell(role=Role.CONTROL, indices=seeds_of(SCRATCH), **wins))
        cells += [
            Cell(role=Role.LATENCY, arm=n, target=label, indices=own_seed, points=winners)
            for n in names
        ]
    wanted = tuple(cell for cell in cells if cell.trials)
    return Matrix(arms=names, points=points, cells=wanted, is_given=is_given)


def _is_given(spec: Mapping[str, Any]) -> bool:
    """Say whether all starts from the checkpoint as it is: it is not adapted to the data first."""
    return bool(spec.get("checkpoint")) and not (spec.get("baseline") or {}).get("epochs")


def cost_points(spec: Mapping[str, Any]) -> tuple[CostPoint, ...]:
    """Return what a sweep's arms must meet, MACs first, drops last; `FRONT` if there is nothing."""
    tolerance = float((spec.get("search") or {}).get("tolerance", TOLERANCE))
    asked = spec.get("targets")
    if not asked:
        return (CostPoint(label=FRONT, axis=None, reduction=None, tolerance=tolerance),)
    met = [
        CostPoint(label=target_label(axis, share), axis=axis, reduction=share, tolerance=tolerance)
        for axis in ("macs", "params")
        for share in asked.get(f"{axis}_reduction", ())
    ]
    met += [
        CostPoint(
            label=target_label(LATENCY, share),
            axis=LATENCY,
            reduction=share,
            tolerance=LATENCY_TOLERANCE,
        )
        for share in asked.get("latency_reduction", ())
    ]
    axis = asked.get("cost", "macs")
    searched: dict[str, Any] = {"axis": axis, "reduction": None, "tolerance": tolerance}
    drops = asked.get("accuracy_drop", ())
    return (*met, *(CostPoint(label=drop_label(drop), drop=drop, **searched) for drop in drops))


def control_points(spec: Mapping[str, Any]) -> tuple[CostPoint, ...]:
    """Return the costs that controls with ratios are run at: the targets, or some on a front."""
    points = cost_points(spec)
    if not points[0].is_front:
        return points
    shares = (spec.get("controls") or {}).get("macs_reduction") or FRONT_CONTROLS
    return cost_points({**spec, "targets": {"macs_reduction": shares}})


def is_searched(arm: Mapping[str, Any]) -> bool:
    """Say whether a search has ratios or settings to choose for an arm, as it is stored."""
    values = (*(arm.get("settings") or {}).values(), *(arm.get("schedule") or {}).values())
    return arm.get("allocation") != "method" or any(is_knob(value) for value in values)


def is_knob(value: Any) -> bool:
    """Say whether a setting's value is left to the search."""
    return isinstance(value, Mapping) and not {"low", "high", "choices"}.isdisjoint(value)


def spread(numbers: Sequence[int], count: int = FRONT_WINNERS) -> list[int]:
    """Pick ``count`` of the proposals on a front evenly, the ends included."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[round(i * (len(numbers) - 1) / (count - 1))] for i in range(count)]
