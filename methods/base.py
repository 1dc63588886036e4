"""The contract of every pruning method, and the table of registered ones."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from methods.errors import MethodError, SettingsError, UnknownMethodError, nearest
from methods.hooks import Trainer
from methods.own_code import ENTRY_POINTS, OwnCodeError, is_reference, load
from methods.structure.cost import CostTarget
from methods.structure.groups import Group, Layout, Unit
from methods.structure.latency_predictor import LatencyPredictor, PredictorSettings
from methods.structure.narrowing import filters_first
from methods.structure.plan import PruningPlan, Ratios, removed_count, stated_ratio
from methods.structure.surgery import is_plain


class Session(Trainer, Protocol):
    """What a trial gives a method: data, training and randomness, all of it charged."""

    layout: Layout
    device: torch.device
    seed: int
    target: CostTarget | None  #: What the network must cost, when the sweep has a target.
    schedule: "PruningSchedule"
    latency: LatencyPredictor | None  #: For a method that has a ``predictor``.

    @property
    def epochs_left(self) -> int:
        """Epochs of the trial's budget nobody has used yet."""

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator seeded from the trial's seed and ``purpose``."""

    def batches(self, images: int, batch_size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield training images as they are, ``[N, C, H, W]``, with labels, on the device."""

    def reach(self, epochs: int) -> float:
        """Return how far a gradient of 1 at every step moves a parameter in ``epochs`` from here.

        That is about the sum of their learning rates, divided by 1 - momentum where there is one.
        """

    def charge(self, images: int) -> None:
        """Count images that a method made itself and passed forward and back."""

    def statistics(
        self, network: nn.Module, key: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Return what ``compute`` gives for this network, data, seed and key, computed once."""

    def note(self, name: str, value: float) -> None:
        """Record a number about the choice in the trial's result; the last one of a name counts."""


class PruningSchedule(Protocol):
    """When and how hard filters go."""

    @property
    def is_gradual(self) -> bool:
        """Whether filters of one group go at different times."""

    def select(
        self, method: "PruningMethod", network: nn.Module, ratios: Ratios, session: Session
    ) -> PruningPlan:
        """Choose the filters that stay, training through the session where the schedule asks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """The filters of one convolution, as a criterion sees them."""

    weight: Tensor  #: ``[C_out, C_in, K, K]``; of a linear layer ``[C_out, C_in, 1, 1]``.
    scale: Tensor | None  #: Batch-norm scale behind the convolution, ``[C_out]``.
    shift: Tensor | None  #: Batch-norm shift, ``[C_out]``.
    generator: torch.Generator  #: For criteria that draw; seeded by trial and layer.


@dataclass(frozen=True, kw_only=True)
class PruningMethod:
    """How filters are chosen. Settings are fields, so that a trial can be stored and rebuilt.

    A criterion overrides :meth:`score`; one that looks at data overrides :meth:`scores`; one with
    its own way of choosing inside a group overrides :meth:`choose`; one that turns a cost target
    into ratios overrides :meth:`allocate`; a method that must learn overrides :meth:`select` and
    trains through the session.
    """

    name: ClassVar[str]
    source: ClassVar[str]  #: Where the method is published.
    allocates: ClassVar[bool] = False  #: Can turn a target into ratios by itself.
    schedulable: ClassVar[bool] = True  #: Can be combined with every schedule.
    unit: ClassVar[Unit] = "filters"  #: What it prunes; ``stripes`` needs that layer policy.
    #: Filters of any kind of layer can be scored: of linear layers, and groups of filters as one.
    any_layer: ClassVar[bool] = False
    #: Of what its settings mean; raised when the same settings come to choose other filters or are
    #: charged otherwise, so that results of before are not taken for results of now.
    revision: ClassVar[int] = 1
    #: Settings younger than trials that are kept: at their default they are no part of an identity.
    added: ClassVar[tuple[str, ...]] = ()

    @property
    def sets_cost(self) -> bool:
        """What the network will cost comes of the settings: a trial has no target and no ratios."""
        return False

    @property
    def trains(self) -> bool:
        """It trains the network in order to choose, so a choice costs epochs."""
        return False

    @property
    def predictor(self) -> PredictorSettings | None:
        """How the latency predictor it trains against is made; None: it needs none."""
        return None

    def accept(self, network: nn.Module, layout: Layout) -> None:
        """Refuse what this method cannot prune, before anything is spent on it.

        Raises:
            MethodError: The layout is for methods that prune something else, or :meth:`check`
                refuses.
        """
        if layout.policy.unit != self.unit:
            raise MethodError(
                f"The method {self.name!r} prunes {self.unit}, and under the layer policy "
                f"{layout.policy.kind!r} {layout.policy.unit} are pruned. Name a method for that, "
                "or leave the policy to the sweep."
            )
        odd = [g.name for g in layout.groups if not (self.any_layer or is_plain(network, g))]
        if odd:
            raise MethodError(
                f"The method {self.name!r} prunes filters of ordinary convolutions, and under the "
                f"layer policy {layout.policy.kind!r} other layers lose theirs too ({odd[0]!r}). "
                "Name the policy 'coupled', protect these layers, or choose another method."
            )
        self.check(network, layout)

    def check(self, network: nn.Module, layout: Layout) -> None:
        """Refuse a network this method cannot prune, before anything is spent on it.

        Raises:
            MethodError: What is missing, and what to do.
        """

    def images_made(self, layout: Layout) -> int:
        """Return how often an image of its own passes forward and back before it can choose.

        That is beside training, and is charged through the session.
        """
        return 0

    def score(self, filters: Filters) -> Tensor:
        """Return one score per filter, ``[C_out]``; the lowest is pruned first."""
        raise MethodError(
            f"The method {type(self).__name__} overrides neither score, scores nor select."
        )

    def scores(self, network: nn.Module, session: Session) -> Mapping[str, Tensor]:
        """Return one score per filter of every group, ``[filters]``; the lowest goes first.

        A group with several producing convolutions takes the mean of their scores, and so does a
        filter of the group that is several of a layer's.
        """
        found = {}
        for group in session.layout.groups:
            rows = {member.layer: torch.tensor(member.channels) for member in group.outputs}
            parts = [
                self._scores_of(view, producer)[rows[producer]].mean(dim=1)
                for producer, view in zip(
                    group.producers, views(network, group, session), strict=True
                )
            ]
            found[group.name] = torch.stack(parts).mean(dim=0)
        return found

    def _scores_of(self, filters: Filters, layer: str) -> Tensor:
        """Return the scores of a layer's filters, ``[C_out]``, on the CPU."""
        found, count = self.score(filters).detach().float().cpu(), len(filters.weight)
        if found.shape != (count,):
            raise MethodError(
                f"The method {self.name!r} must give {count} finite scores for {layer!r}; "
                f"it gave {found.tolist()}."
            )
        return found

    def choose(self, group: Group, scores: Tensor, count: int) -> list[int]:
        """Return the ``count`` filters of ``group`` to prune: the lowest scores, stable order."""
        return torch.argsort(scores, stable=True)[:count].tolist()

    def allocate(self, network: nn.Module, target: CostTarget, session: Session) -> Ratios:
        """Return the method's own ratios for a network that costs what ``target`` asks for.

        Overridden by methods that say ``allocates``; those that override :meth:`select` too call
        :meth:`settled` there.

        Raises:
            MethodError: The method does not allocate, or cannot meet the target.
        """
        raise MethodError(
            f"The method {self.name!r} does not choose ratios by itself; name them, or leave the "
            "arm's allocation to the search."
        )

    def settled(self, network: nn.Module, ratios: Ratios, session: Session) -> Ratios:
        """Return ``ratios`` or, where a trial has a target and no ratios, the method's own."""
        if ratios or session.target is None:
            return ratios
        gradual, widths = session.schedule.is_gradual, session.layout.widths
        own = self.allocate(network, session.target, session)
        return {
            name: stated_ratio(name, widths[name], ratio, gradual=gradual)
            for name, ratio in own.items()
        }

    def select(self, network: nn.Module, ratios: Ratios, session: Session) -> PruningPlan:
        """Choose the filters that stay; ``network`` may be trained on the way, not shrunk."""
        ratios = self.settled(network, ratios, session)
        return session.schedule.select(self, network, ratios, session)


def views(network: nn.Module, group: Group, session: Session) -> Iterator[Filters]:
    """Yield what a criterion may look at, for each producing convolution of ``group``."""
    for producer, norm_name in zip(group.producers, group.norms, strict=True):
        layer = network.get_submodule(producer)
        norm = network.get_submodule(norm_name) if norm_name else None
        yield Filters(
            weight=filters_first(layer).detach(),
            scale=_detached(norm, "weight"),
            shift=_detached(norm, "bias"),
            generator=session.generator(f"score {producer}"),
        )


def _detached(norm: nn.Module | None, name: str) -> Tensor | None:
    value = getattr(norm, name, None)  # a batch norm may have neither scale nor shift
    return value.detach() if isinstance(value, Tensor) else None


def prune_lowest(
    method: PruningMethod, layout: Layout, scores: Mapping[str, Tensor], ratios: Ratios
) -> PruningPlan:
    """Cut each group to its ratio by the method's scores.

    Raises:
        MethodError: A group has no scores, too many or too few, or one that is not a number.
        PruningRatioError: A ratio is outside ``[0, 1)``.
    """
    kept = {}
    for group in layout.groups:
        found = scores.get(group.name)
        if found is None or found.shape != (group.width,) or found.isnan().any():
            raise MethodError(
                f"The method {method.name!r} must give {group.width} finite scores for "
                f"{group.name!r}; it gave {'none' if found is None else found.tolist()}."
            )
        count = removed_count(group.name, group.width, ratios.get(group.name, 0.0))
        gone = set(method.choose(group, found, count))
        kept[group.name] = tuple(i for i in range(group.width) if i not in gone)
    return PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One name in the table: a method, and the settings the name stands for."""

    method: type[PruningMethod]
    preset: Mapping[str, Any]


_TABLE: dict[str, _Entry] = {}
_M = TypeVar("_M", bound=type[PruningMethod])


def register(*, aliases: Mapping[str, Mapping[str, Any]] | None = None) -> Callable[[_M], _M]:
    """Make a method known by its name, and by aliases that fix some of its settings.

    Raises:
        MethodError: Another method owns the name.
    """

    def enter(method: _M) -> _M:
        entries = {method.name: {}, **(aliases or {})}
        for name in entries:
            owner = _TABLE.get(name)
            if owner is not None and not _is_same(owner.method, method):
                raise MethodError(
                    f"The name {name!r} belongs to {_full_name(owner.method)}; "
                    f"{_full_name(method)} needs another."
                )
        for name, preset in entries.items():
            _TABLE[name] = _Entry(method, preset)
        return method

    return enter


def _is_same(one: type, other: type) -> bool:
    """Say whether two classes are one in the source, so that a module may be loaded again."""
    return _full_name(one) == _full_name(other)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def available() -> dict[str, type[PruningMethod]]:
    """Return every registered method by name, outside packages' included, aliases left out."""
    _load_methods()
    return {name: e.method for name, e in sorted(_TABLE.items()) if name == e.method.name}


def aliases_of(method: type[PruningMethod]) -> dict[str, Mapping[str, Any]]:
    """Return the other names of ``method`` with the settings they stand for, if any."""
    return {
        name: e.preset
        for name, e in sorted(_TABLE.items())
        if e.method is method and name != method.name
    }


def kind_of(name: str) -> type[PruningMethod]:
    """Return the class of the method called ``name``, which may be an alias.

    Raises:
        UnknownMethodError: Nobody registered the name.
    """
    return _entry(name).method


def create(name: str, settings: Mapping[str, Any] | None = None) -> PruningMethod:
    """Build the method called ``name``.

    Raises:
        UnknownMethodError: Nobody registered the name.
        SettingsError: A setting is unknown or has an impossible value.
    """
    entry = _entry(name)
    return build(entry.method, name, {**entry.preset, **(settings or {})})


def identity_settings(method: PruningMethod) -> dict[str, Any]:
    """Return the settings of a method that tell its trials apart; they rebuild it."""
    return {
        field.name: value
        for field, value in zip(fields(method), asdict(method).values(), strict=True)
        if field.name not in method.added or value != field.default
    }


def _entry(name: str) -> _Entry:
    _load_methods()
    if is_reference(name):
        return _Entry(_own_method(name), {})
    if name not in _TABLE:
        raise UnknownMethodError(name, list(_TABLE))
    return _TABLE[name]


def _own_method(reference: str) -> type[PruningMethod]:
    """Load a method from a file or module of the user's; it need not be registered."""
    try:
        found = load(reference)
    except OwnCodeError:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything
        problem = f"cannot be imported ({type(error).__name__}: {error})."
        raise OwnCodeError(reference, problem) from error
    if not (isinstance(found, type) and issubclass(found, PruningMethod)):
        what = found.__name__ if isinstance(found, type) else type(found).__name__
        raise OwnCodeError(reference, f"is {what}, and must be a class made of PruningMethod.")
    return found


_T = TypeVar("_T")


def build(kind: type[_T], owner: str, settings: Mapping[str, Any]) -> _T:
    """Build a dataclass from settings that came from outside.

    Raises:
        SettingsError: A setting is unknown or has an impossible value.
    """
    known = [f.name for f in fields(kind) if f.init]  # type: ignore[arg-type]
    for setting in settings:
        if setting not in known:
            hint = nearest(setting, known) if known else "it takes none."
            raise SettingsError(owner, setting, f"is unknown; {hint}")
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "settings"
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(owner, place, f"is {first['input']!r}: {message}.") from error


_loaded = False


def _load_methods() -> None:
    global _loaded
    if _loaded:
        return
    importlib.import_module("methods.api")  # which needs this module, and imports our own methods
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()  # importing the module registers its methods
        except Exception as error:
            raise MethodError(
                f"The installed package {point.dist.name if point.dist else '?'!r} offers the "
                f"pruning method {point.name!r} ({point.value}), which cannot be loaded: {error}. "
                "Repair or uninstall that package."
            ) from error
    _loaded = True
