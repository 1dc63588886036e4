"""What a sweep stands on: data, network, groups and starting weights, checked before anything.

Mistakes a specification alone cannot show come to light here, while nothing has been written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from methods import LayerPolicy, Layout, LayoutError, MethodError, create, find_layout
from methods.cost import CostTarget
from orchestrator.errors import Problem, SpecError
from orchestrator.knobs import without_knobs
from orchestrator.spec import SweepSpec
from search_spaces import (
    Projected,
    RatioSpace,
    SearchSpaceError,
    SpaceSettings,
    TargetInfeasibleError,
    project,
)
from workers.checkpoints import fit, read_weights, weights_hash
from workers.data import DataInfo, describe
from workers.errors import WorkerError
from workers.models import build_model
from workers.settings import Target

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The checked surroundings of a sweep's trials."""

    data: DataInfo
    layout: Layout
    space: RatioSpace
    weights: Mapping[str, Tensor] | None  #: Of the checkpoint; None: the baseline is trained.

    @property
    def weights_hash(self) -> str | None:
        """Content hash of the checkpoint's weights."""
        return weights_hash(self.weights) if self.weights is not None else None

    def projected(self, target: Target, tolerance: float) -> Projected:
        """Return the same ratio for every group, as near as whole filters allow, at ``target``."""
        goal = CostTarget(axis=target.axis, reduction=target.reduction)
        same = dict.fromkeys(self.space.dimensions, 1.0)
        return project(same, self.space, self.layout.cost, goal, tolerance)

    def uniform(self, target: Target, tolerance: float) -> dict[str, float]:
        """Return the ratios of :meth:`projected`, by group."""
        return dict(self.projected(target, tolerance).ratios)


def survey(spec: SweepSpec) -> Ground:
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
        _at("checkpoint", partial(fit, network, read))
        weights = {name: value.clone() for name, value in network.state_dict().items()}
    policy = LayerPolicy(
        kind=spec.layers.policy,
        protect=spec.layers.protect,
        protect_stem=spec.layers.protect_stem,
    )
    layout = _at("layers", lambda: find_layout(network, data.input_shape, policy))
    search = spec.search
    space = _at(
        "search.limits",
        lambda: RatioSpace(
            layout.groups,
            SpaceSettings(
                per=search.ratios_per,
                min_ratio=search.min_ratio,
                max_ratio=search.max_ratio,
                limits=search.limits,
                round_to=search.round_to,
            ),
        ),
    )
    ground = Ground(data=data, layout=layout, space=space, weights=weights)
    for target in spec.cost_targets:
        _at("targets", partial(ground.uniform, target, search.tolerance))
    for i, arm in enumerate(spec.arms):
        method = create(arm.method, without_knobs(arm.settings))
        _at(f"arms.{i}", partial(method.check, network, layout))
    return ground


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
