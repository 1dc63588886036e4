"""What of a network may be pruned within a sweep's limits, under one layer policy or under each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from methods import Layout, LayoutError, MethodError, PruningPlan, create, removed_count
from methods.structure.cost import Axis, CostTarget
from orchestrator.specification.knobs import without_knobs
from orchestrator.specification.spec import SearchSettings, SweepSpec
from search_spaces import (
    NothingMayGoError,
    Projected,
    RatioSpace,
    SearchSpaceError,
    SpaceSettings,
    project,
    reachable,
)
from workers.networks.shapes import POLICIES, layout_of
from workers.settings import PolicyName


@dataclass(frozen=True, kw_only=True)
class PrunableNetwork:
    """What of a network may be pruned, and how far: groups of one unit, and their ratios."""

    layout: Layout
    space: RatioSpace

    def projected(self, target: CostTarget, tolerance: float) -> Projected:
        """Return the same ratio for every group, as near as whole filters allow, at ``target``."""
        same = dict.fromkeys(self.space.dimensions, 1.0)
        return project(same, self.space, self.layout.cost, target, tolerance)

    def uniform(self, target: CostTarget, tolerance: float) -> dict[str, float]:
        """Return the ratios of :meth:`projected`, by group."""
        return dict(self.projected(target, tolerance).ratios)

    @property
    def reachable(self) -> tuple[float, float]:
        """The least and the largest share of the MACs that may go."""
        return self.reachable_on("macs")

    def reachable_on(self, axis: Axis) -> tuple[float, float]:
        """Return the least and the largest share of a cost that may go."""
        return reachable(self.space, self.layout.cost, axis)

    def told(self) -> str:
        """Say in a line how much may go."""
        policy, most = self.layout.policy.kind, self.reachable[1]
        return f"At most {most:.1%} of the MACs can go under layers.policy = {policy}"

    def share_of(self, group: str) -> float:
        """Return the share of the MACs that goes with all that may go of one group alone."""
        left = dict(self.layout.widths)
        left[group] = int(self.space.min_kept[self.space.groups.index(group)])
        kept = {name: range(count) for name, count in left.items()}
        return 1.0 - self.layout.cost_of("macs", kept) / self.layout.cost.dense("macs")

    @property
    def smallest(self) -> PruningPlan:
        """All that may go, gone; of every group the first filters stay."""
        least = zip(self.space.groups, self.space.min_kept.tolist(), strict=True)
        return self._plan(dict(least))

    def plans_to_try(self, spec: SweepSpec) -> Iterator[PruningPlan]:
        """Give uniform ratios at the mildest target, and the smallest network."""
        for target in sorted(spec.cost_targets, key=lambda target: target.reduction)[:1]:
            ratios = self.uniform(target, spec.search.tolerance)
            yield self._plan(
                {
                    name: width - removed_count(name, width, ratios.get(name, 0.0))
                    for name, width in self.layout.widths.items()
                }
            )
        yield self.smallest

    def _plan(self, left: Mapping[str, int]) -> PruningPlan:
        """Keep the first filters of every group: which ones does not matter to its shape."""
        return PruningPlan(
            policy=self.layout.policy.kind,
            widths=self.layout.widths,
            kept={name: tuple(range(left[name])) for name in self.layout.widths},
        )

    def check_anything_may_go(self) -> None:
        """See that there is something to prune.

        Raises:
            NothingMayGoError: The limits keep every filter.
        """
        if self.reachable[1] <= 0.0:
            raise NothingMayGoError


def ratio_space(search: SearchSettings, layout: Layout) -> RatioSpace:
    """Lay the search space over a layout.

    Raises:
        SearchSpaceError: The limits do not fit its groups.
    """
    return RatioSpace(
        layout.groups,
        SpaceSettings(
            per=search.ratios_per,
            min_ratio=search.min_ratio,
            max_ratio=search.max_ratio,
            limits=search.limits,
            round_to=search.round_to,
        ),
    )


def prunable_under(
    policy: PolicyName, spec: SweepSpec, network: nn.Module, input_shape: tuple[int, int, int]
) -> PrunableNetwork:
    """Find what may go of ``network`` under a policy, which need not be that of ``spec``.

    Raises:
        LayoutError: Nothing may be pruned, or the policy does not fit the network.
        SearchSpaceError: The limits do not fit its groups, or keep every filter.
        MethodError: An arm's method cannot prune all of these groups.
    """
    layers = spec.layers.model_copy(update={"policy": policy})
    layout = layout_of(network, input_shape, layers)
    prunable = PrunableNetwork(layout=layout, space=ratio_space(spec.search, layout))
    prunable.check_anything_may_go()
    for arm in spec.arms:
        if arm.unit == "filters":
            create(arm.method, without_knobs(arm.settings)).accept(network, layout)
    return prunable


def prunable_under_each(
    spec: SweepSpec, network: nn.Module, input_shape: tuple[int, int, int]
) -> dict[PolicyName, PrunableNetwork | str]:
    """Find what may go under every policy; where nothing may, or an arm refuses, it says why."""
    return {policy: prunable_or_why(policy, spec, network, input_shape) for policy in POLICIES}


def widest(found: Mapping[PolicyName, PrunableNetwork | str]) -> PolicyName:
    """Return the policy under which the most MACs can go; the first of those that are level.

    Raises:
        LayoutError: Nothing may go under any.
    """
    most = {policy: p.reachable[1] for policy, p in found.items() if not isinstance(p, str)}
    if not most:
        raise LayoutError(str(found[POLICIES[0]]))
    return max(most, key=lambda policy: most[policy])


def with_policy(
    spec: SweepSpec, network: nn.Module, input_shape: tuple[int, int, int]
) -> SweepSpec:
    """Return ``spec`` with the policy that ``auto`` stands for on this network.

    Raises:
        LayoutError: Nothing may go under any.
    """
    if spec.layers.policy != "auto":
        return spec
    return naming(spec, widest(prunable_under_each(spec, network, input_shape)))


def naming(spec: SweepSpec, policy: PolicyName | Literal["auto"]) -> SweepSpec:
    """Return ``spec`` with a policy."""
    layers = spec.layers.model_copy(update={"policy": policy})
    return spec.model_copy(update={"layers": layers})


def prunable_or_why(
    policy: PolicyName, spec: SweepSpec, network: nn.Module, input_shape: tuple[int, int, int]
) -> PrunableNetwork | str:
    """Find what may go under a policy, or why nothing may."""
    try:
        return prunable_under(policy, spec, network, input_shape)
    except (LayoutError, SearchSpaceError, MethodError) as error:
        return str(error)
