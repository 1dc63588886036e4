"""What a sweep stands on: data, network, groups and starting weights, checked before anything.

Mistakes a specification alone cannot show come to light here, while nothing has been written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from methods import Layout, LayoutError, MethodError, create
from methods.own_code import check_unchanged
from orchestrator.agenda.prunable import PrunableNetwork, ratio_space, with_policy
from orchestrator.errors import Problem, SpecError
from orchestrator.specification.changes import as_begun
from orchestrator.specification.knobs import without_knobs
from orchestrator.specification.spec import SweepSpec
from search_spaces import SearchSpaceError, TargetInfeasibleError
from workers.data import DataInfo, describe
from workers.errors import WorkerError
from workers.models import build_model
from workers.networks.checkpoints import adopt, read_weights, weights_hash, with_own_head
from workers.networks.first_step import try_choice, try_dense, try_shrunk
from workers.networks.shapes import layout_of
from workers.raised import told
from workers.settings import Unit

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a sweep stands on, looked at and found to fit together."""

    data: DataInfo
    filters: PrunableNetwork
    weights: Mapping[str, Tensor] | None  #: Of the checkpoint; None: the baseline is trained.
    stripes: PrunableNetwork | None = None  #: For arms that prune stripes; None: there are none.

    @property
    def weights_hash(self) -> str | None:
        """Content hash of the checkpoint's weights."""
        return weights_hash(self.weights) if self.weights is not None else None

    @property
    def every_unit(self) -> tuple[PrunableNetwork, ...]:
        """The network as its filters go, and as its stripes go if an arm prunes those."""
        return (self.filters,) if self.stripes is None else (self.filters, self.stripes)

    def of(self, unit: Unit) -> PrunableNetwork:
        """Return the network as a method that prunes ``unit`` sees it."""
        if unit == "filters":
            return self.filters
        assert self.stripes is not None  # surveyed for every arm that needs it
        return self.stripes


def survey(spec: SweepSpec) -> Survey:
    """Look at the data, build the network, find its groups and read its checkpoint.

    Raises:
        SpecError: Something does not fit; the place is a key of the specification.
    """
    data = _at("data", lambda: describe(spec.data))
    torch.manual_seed(0)
    network = _at("model", lambda: build_model(spec.model, data.num_classes, data.channels))
    weights = None
    if spec.checkpoint is not None:
        read = _at("checkpoint", partial(read_weights, spec.checkpoint))
        fitting = with_own_head(network, read, data.num_classes) if spec.adapts else read
        _at("checkpoint", partial(adopt, network, fitting))
        weights = {name: value.clone() for name, value in network.state_dict().items()}
    shape = data.input_shape
    _at("model", partial(try_dense, network, data.num_classes, shape))
    spec = _at("layers", partial(with_policy, spec, network, shape))
    filters = _prunable(spec, _at("layers", partial(layout_of, network, shape, spec.layers)))
    if spec.controls.macs_reduction:
        for target in spec.control_targets:
            _at("controls.macs_reduction", partial(filters.uniform, target, spec.search.tolerance))
    stripes = None
    for i, arm in enumerate(spec.arms):
        if arm.unit == "stripes" and stripes is None:
            look = partial(layout_of, network, shape, spec.layers, arm.unit)
            stripes = _prunable(spec, _at(f"arms.{i}", look), targets=f"arms.{i}")
    surveyed = Survey(data=data, filters=filters, weights=weights, stripes=stripes)
    for i, arm in enumerate(spec.arms):
        _at(f"arms.{i}", partial(check_unchanged, arm.method, arm.code))
        method = create(arm.method, without_knobs(arm.settings))
        layout = surveyed.of(arm.unit).layout
        _at(f"arms.{i}", partial(method.accept, network, layout))
        if not type(method).__module__.startswith("methods."):  # ours are tested
            _at(f"arms.{i}", partial(try_choice, method, network, layout, data.num_classes))
    for prunable in surveyed.every_unit:
        for plan in prunable.plans_to_try(spec):
            _at("layers", partial(try_shrunk, network, prunable.layout, plan, data.num_classes))
    return surveyed


def as_it_began(surveyed: Survey, spec: SweepSpec, begun: SweepSpec) -> Survey:
    """Look again where ``auto`` finds another policy today than the sweep has begun with.

    Raises:
        SpecError: That one does not fit any more.
    """
    began_with = begun.layers.policy
    if spec.layers.policy != "auto" or began_with == surveyed.filters.layout.policy.kind:
        return surveyed
    return survey(as_begun(spec, begun))


def _prunable(spec: SweepSpec, layout: Layout, targets: str = "targets") -> PrunableNetwork:
    """Lay the search space over a layout, and see that every target can be reached.

    Raises:
        SpecError: The place is a key of the specification; of a target, what ``targets`` says.
    """
    search = spec.search
    space = _at("search.limits", partial(ratio_space, search, layout))
    prunable = PrunableNetwork(layout=layout, space=space)
    for target in spec.cost_targets:
        _at(targets, partial(prunable.uniform, target, search.tolerance))
    if spec.targets is None or spec.targets.accuracy_drop:
        _at("search", prunable.check_anything_may_go)
    return prunable


def _at(place: str, look: Callable[[], T]) -> T:
    try:
        return look()
    except (
        WorkerError,
        MethodError,
        LayoutError,
        SearchSpaceError,
        TargetInfeasibleError,
        OSError,
    ) as error:
        raise SpecError([Problem(place, str(error))]) from error
    except (Exception, SystemExit) as error:  # the network's own code may raise anything
        message = f"cannot be used, {told(error)}; `prunesweep --debug` shows how it came to it"
        raise SpecError([Problem(place, message)]) from error
