"""The public names of `search_spaces`, which is where to import them from."""

from search_spaces.errors import (
    CostModelMismatchError,
    DuplicateGroupError,
    EmptySpaceError,
    NothingMayGoError,
    ProposalError,
    RatioLimitsError,
    SearchOrderError,
    SearchSettingsError,
    SearchSpaceError,
    TargetInfeasibleError,
    UnknownGroupError,
)
from search_spaces.projection import Costs, Projected, free_ratios, project, reachable
from search_spaces.samplers import SAMPLERS
from search_spaces.search import PastProposal, Proposal, ProposalOutcome, Search
from search_spaces.space import PrunableGroup, RatioSpace, SpaceSettings
from search_spaces.stopping import StoppingRule, create_rule

__all__ = [
    "SAMPLERS",
    "CostModelMismatchError",
    "Costs",
    "DuplicateGroupError",
    "EmptySpaceError",
    "NothingMayGoError",
    "PastProposal",
    "Projected",
    "Proposal",
    "ProposalError",
    "ProposalOutcome",
    "PrunableGroup",
    "RatioLimitsError",
    "RatioSpace",
    "Search",
    "SearchOrderError",
    "SearchSettingsError",
    "SearchSpaceError",
    "SpaceSettings",
    "StoppingRule",
    "TargetInfeasibleError",
    "UnknownGroupError",
    "create_rule",
    "free_ratios",
    "project",
    "reachable",
]
