"""Where the controls of a front sit: at costs the network can come to within its limits."""

from methods import CostTarget
from orchestrator.agenda.prunable import PrunableNetwork, naming
from orchestrator.agenda.survey import Survey
from orchestrator.specification.spec import SweepSpec
from search_spaces import TargetInfeasibleError
from tracking.matrix import FRONT_CONTROLS
from tracking.places import target_label


def settled(spec: SweepSpec, surveyed: Survey) -> SweepSpec:
    """Return the specification with what its network decides.

    The layer policy that ``auto`` stands for, and the place of the controls where it is not the
    usual one.
    """
    found = surveyed.filters.layout.policy.kind
    if spec.layers.policy == "auto" and found != "stripes":
        spec = naming(spec, found)
    if spec.targets is not None or spec.controls.macs_reduction:
        return spec
    shares = shares_on(surveyed.filters, spec.search.tolerance)
    if shares == FRONT_CONTROLS:
        return spec
    controls = spec.controls.model_copy(update={"macs_reduction": shares})
    return spec.model_copy(update={"controls": controls})


def shares_on(prunable: PrunableNetwork, tolerance: float) -> tuple[float, ...]:
    """Choose shares of the MACs to remove: those of `FRONT_CONTROLS` that can be reached.

    Where none can, the same shares of the way from the least to the most that may go, as near as
    whole filters come.
    """
    usual = [share for share in FRONT_CONTROLS if _is_reached(prunable, share, tolerance)]
    if usual:
        return tuple(usual)
    least, most = prunable.reachable
    dense = prunable.layout.cost.dense("macs")
    found: dict[str, float] = {}
    for part in (*FRONT_CONTROLS, 1.0):
        at = _macs(least + part * (most - least))
        share = 1.0 - prunable.projected(at, tolerance).cost / dense
        if share > 0.0:
            share = _short(share, least, most)
            found.setdefault(target_label("macs", share), share)
    return tuple(found.values())[: len(FRONT_CONTROLS)]


def _is_reached(prunable: PrunableNetwork, share: float, tolerance: float) -> bool:
    try:
        prunable.uniform(_macs(share), tolerance)
    except TargetInfeasibleError:
        return False
    return True


def _short(share: float, least: float, most: float) -> float:
    """Round to three digits, for tables, where that stays inside the limits."""
    rounded = float(f"{share:.3g}")
    return rounded if least <= rounded <= most else share


def _macs(share: float) -> CostTarget:
    return CostTarget(axis="macs", reduction=share)
