"""The public names of `methods`, which is where to import them from."""

from methods.base import (
    Filters,
    PruningMethod,
    Session,
    aliases_of,
    available,
    create,
    identity_settings,
    kind_of,
    prune_lowest,
    register,
)
from methods.criteria import bn_scale as _bn_scale  # noqa: F401  (each registers itself)
from methods.criteria import filter_norm as _filter_norm  # noqa: F401
from methods.criteria import geometric_median as _geometric_median  # noqa: F401
from methods.criteria import random_filters as _random_filters  # noqa: F401
from methods.criteria import taylor as _taylor  # noqa: F401
from methods.errors import (
    LayoutError,
    MethodError,
    PlanError,
    PruningRatioError,
    SettingsError,
    UnknownMethodError,
)
from methods.functionality import method as _functionality  # noqa: F401
from methods.hooks import Hooks, Step
from methods.provable import method as _provable  # noqa: F401
from methods.schedule import Schedule
from methods.scop import method as _scop  # noqa: F401
from methods.state import NO_STATE, State, Stateful
from methods.stripe_wise import method as _stripe_wise  # noqa: F401
from methods.structure.cost import Cost, CostModel, CostTarget, count_cost
from methods.structure.layout import Group, LayerPolicy, Layout, find_layout
from methods.structure.plan import PruningPlan, Ratios, removed_count, stated_ratio
from methods.structure.surgery import (
    break_stripes,
    masked,
    masked_difference,
    remove_filters,
    shrink,
)
from methods.weight_gates import method as _weight_gates  # noqa: F401

__all__ = [
    "NO_STATE",
    "Cost",
    "CostModel",
    "CostTarget",
    "Filters",
    "Group",
    "Hooks",
    "LayerPolicy",
    "Layout",
    "LayoutError",
    "MethodError",
    "PlanError",
    "PruningMethod",
    "PruningPlan",
    "PruningRatioError",
    "Ratios",
    "Schedule",
    "Session",
    "SettingsError",
    "State",
    "Stateful",
    "Step",
    "UnknownMethodError",
    "aliases_of",
    "available",
    "break_stripes",
    "count_cost",
    "create",
    "find_layout",
    "identity_settings",
    "kind_of",
    "masked",
    "masked_difference",
    "prune_lowest",
    "register",
    "remove_filters",
    "removed_count",
    "shrink",
    "stated_ratio",
]
