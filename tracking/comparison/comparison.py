"""What a comparison holds: tables of rows, fronts, failures, provenance. Data only, all computed.

Accuracies are percentages; a *drop* is in points and positive when accuracy was lost. Times are
seconds of the device that ran the trial. A reduction is a share removed, in [0, 1).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from tracking.places import FRONT, Role
from tracking.results import Judged
from tracking.statistics.model import Difference, Reach, Spread
from tracking.statistics.summary import Summary


class Verdict(StrEnum):
    """Where a row stands in its table."""

    BEST = "best"  #: Highest mean, and every other ranked row is worse by the test.
    UNDECIDED = "undecided"  #: Neither a difference nor its absence was shown.
    TIE = "tie"  #: Shown to be closer to the highest mean than the margin.
    SAME = "same"  #: The very trials of the highest mean, by another name.
    WORSE = "worse"  #: Lower than the highest mean by the test.
    UNTESTED = "untested"  #: It or the highest mean has fewer than two seeds.
    ONLY = "only arm"  #: Nothing to be ranked against.
    CONTROL = "control"  #: There to be beaten; tested against the highest mean, not ranked.
    OFF_TARGET = "off target"  #: Outside the tolerance of the target, so left out of the ranking.
    WITHIN = "within the drop"  #: Shown to lose at most what may be lost.
    BEYOND = "beyond the drop"  #: Shown to lose more than may be lost.
    UNRANKED = "not ranked"  #: The rows of its table differ in cost by design.
    NO_VERDICT = "no verdict"  #: The recipe harms the dense network, so nothing is concluded.
    MISSING = "no result"  #: No confirmation run has given an accuracy.


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """What became of the runs that were asked for; failures are results, not gaps."""

    asked: int
    completed: int  #: With a finite accuracy.
    not_finite: int  #: Failed or came back with a number that is not finite.
    stopped: int  #: Ended early because they were not promising.
    failed: int
    cancelled: int
    waiting: int  #: Pending or running.
    collapsed: int  #: Of those that came back: some group was cut down to a single filter.
    over_budget: int  #: Of those that came back: trained for more epochs than the recipe allows.


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCost:
    """Size of the shrunk network beside the dense one, averaged over the seeds."""

    macs: float  #: Multiply-accumulates of conv and linear layers, batch 1.
    params: float
    base_macs: float
    base_params: float
    flops: float  #: Twice the MACs, by definition.
    macs_reduction: float
    params_reduction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Measured forward time, dense and pruned network interleaved in one process."""

    batch_size: int
    median_ms: float  #: Per batch.
    p90_ms: float
    base_median_ms: float
    base_p90_ms: float
    speed_up: float  #: base_median_ms / median_ms.
    device: str
    dtype: str
    shared_device: bool  #: Something else ran on the device meanwhile, so this is no latency claim.
    runtime: str = "eager"  #: What ran the networks.
    predicted_speed_up: float | None = None  #: By the model that a latency target was met by.


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchCost:
    """What finding the ratios took: every trial of the study, whatever became of it."""

    proposals: int
    trials: int  #: Distinct trials; a repeated proposal runs once.
    seconds: float
    runs: Runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """The latency predictor that an arm's trials train against, and what it is worth."""

    arms: tuple[str, ...]
    samples: int  #: Networks timed.
    correlated: Judged  #: Widths that go together.
    independent: Judged  #: Widths drawn one by one.
    full_width_error: float  #: For the dense network, share of the measured latency.
    uniform: tuple[tuple[float, float, float], ...]  #: Share of filters, measured and predicted ms.
    drift: float  #: Largest change of the dense network's latency meanwhile, as a share.
    seconds: float  #: Device time of measuring and learning.
    key: Mapping[str, str]  #: What it holds for: network, device, batch, versions ...
    shared_device: bool  #: Something else ran on the device meanwhile.


@dataclass(frozen=True, kw_only=True, slots=True)
class RateChoice:
    """The learning rate that all trials share, where the sweep picked it by itself."""

    arm: str  #: The control that the rates were tried on.
    target: str
    tried: tuple[tuple[float, float | None], ...]  #: Rate and validation accuracy, as tried.
    chosen: float | None  #: None while rates are still out.
    seconds: float  #: Device time of all that was tried; part of no row's total.


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformCheck:
    """Did the search beat its own first proposal, uniform ratios? One seed, validation split."""

    uniform: float  #: Validation accuracy of the uniform proposal.
    best: float  #: Of the best proposal.
    gain: float  #: best - uniform, in points; never negative.
    best_index: int  #: Number of the best proposal within the study.
    beaten: bool  #: Some proposal scored above uniform ratios.


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyCheck:
    """Finalists of a search, untrained and trained: was judging without training a good guide?"""

    finalists: int
    untrained: tuple[float, ...]  #: Validation accuracy before any training, uniform ratios first.
    trained: tuple[float, ...]  #: The same after the whole recipe.
    rank_correlation: float | None  #: Spearman's; None for fewer than three, or if all are equal.


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchedRatios:
    """What the proposals of one search that came back say of each group's ratio."""

    arm: str
    target: str  #: Label of what was searched.
    accuracies: tuple[float, ...]  #: Validation accuracy of each proposal, percent, in order.
    ratios: Mapping[str, tuple[float, ...]]  #: Of the same proposals, share removed, by group.
    importance: Mapping[str, float]  #: Share of what sets the best apart, by group; adds up to 1.

    def to_json(self) -> dict[str, Any]:
        """Return all but the single proposals, which are many."""
        shown = {"arm": self.arm, "target": self.target, "proposals": len(self.accuracies)}
        return {**shown, "importance": dict(self.importance)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Within:
    """What a network loses where an accuracy drop is allowed: fresh seeds, on the test split."""

    allowed: float  #: Points that may be lost against the dense control.
    axis: str  #: ``macs`` or ``params``, of which as much as possible is to go.
    reduction: float  #: Share of it that went.
    drop: float  #: Points lost, mean against mean.
    half: float | None  #: Half the 95 % interval of the drop; None: a row has a single seed.

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies within what may be lost, beyond it, or across."""
        if self.half is None:
            return Verdict.UNTESTED
        if self.drop + self.half <= self.allowed:
            return Verdict.WITHIN
        return Verdict.BEYOND if self.drop - self.half > self.allowed else Verdict.UNDECIDED


@dataclass(frozen=True, kw_only=True, slots=True)
class Width:
    """Filters of one group."""

    group: str
    kept: float  #: Mean over the seeds.
    dense: int | None  #: None where the record has no plan to tell it.
    share: float | None  #: Share of the filters kept, in (0, 1].


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One arm or control at one target. Accuracy comes from fresh-seed runs only."""

    name: str  #: In a table of fronts with the point or target: ``l1 #3``, ``random macs-50%``.
    arm: str  #: The arm or control alone.
    role: Literal["arm", "control"]
    verdict: Verdict
    leads: bool  #: Highest mean of the ranked rows: what the others are tested against.
    accuracy: Summary | None  #: Test split, last epoch.
    by_seed: Mapping[int, float]  #: The same, seed by seed.
    val_accuracy: Summary | None
    val_accuracy_before: Summary | None  #: Once filters were gone, before the network recovered.
    test_accuracy_drop: float | None  #: Lost against the dense baseline as it was given.
    tuned_drop: float | None  #: Lost against the dense network trained for the same budget.
    spread: Spread | None  #: What the model of its table knows of it; None below two seeds.
    same_as: str | None  #: An earlier row with the very same trials.
    test: Difference | None  #: Highest mean minus this row.
    reach: Reach | None  #: What could have been shown against the highest mean.
    p: float | None  #: Of that test, corrected for the best having been picked.
    cost: NetworkCost | None
    within: Within | None  #: None where no accuracy drop is the target, or no seed is in.
    on_target: bool | None  #: None where there is no target or nothing to check yet.
    epochs: float | None  #: Mean per run, selection included.
    seconds: float | None  #: Mean per run, statistics it took from a cache included.
    statistics_seconds: float | None  #: Mean per run, of cached statistics it relied on.
    search: SearchCost | None  #: For the scratch control: the search that found its shape.
    predictor_seconds: float | None  #: Of the latency predictor the arm trains against.
    total_seconds: float | None  #: Predictor, search, one run: what getting one such network costs.
    runs: Runs
    masked_difference: float | None  #: Largest over the runs, masked against shrunk.
    latency: tuple[Latency, ...]
    widths: tuple[Width, ...]
    uniform: UniformCheck | None
    proxy: ProxyCheck | None  #: None where proposals were trained, or none was a finalist.


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What all rows of one table must share, as content hashes; None where a run has none."""

    base_weights: str | None
    recipe: str | None
    data: str | None
    policy: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """The unpruned network as it was given."""

    test_accuracy: float
    val_accuracy: float | None
    macs: int
    params: int
    weights: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """All rows of one target that may be compared with one another."""

    target: str  #: Label, as in ``macs-50%``; ``front`` where rows are points of fronts.
    axis: str | None  #: The axis that is matched; the other one is shown, not matched.
    reduction: float | None
    tolerance: float  #: Largest distance from ``reduction`` that still counts as on target.
    drop: float | None  #: Points that may be lost, where the cost is what was searched.
    identity: Identity
    dense: Dense | None
    rows: tuple[Row, ...]  #: Arms by descending accuracy, then controls.
    margin: float  #: Points that a tie is closer than.
    harm: Difference | None  #: Dense control minus dense baseline, where it ends clearly below.
    warnings: tuple[str, ...]

    @property
    def arms(self) -> tuple[Row, ...]:
        """The rows that are arms."""
        return tuple(row for row in self.rows if row.role == "arm")

    @property
    def controls(self) -> tuple[Row, ...]:
        """The rows that are controls."""
        return tuple(row for row in self.rows if row.role == "control")

    @property
    def leader(self) -> Row | None:
        """The ranked row with the highest mean."""
        return next((row for row in self.rows if row.leads), None)

    @property
    def is_front(self) -> bool:
        """The rows are points of fronts: each at a cost of its own, so not ranked."""
        return self.target == FRONT


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontPoint:
    """One proposal of a search without a target that no other proposal of its arm dominates."""

    index: int  #: Number within the study.
    macs: int
    macs_reduction: float
    params_reduction: float
    val_accuracy: float  #: One seed, validation split: what the search saw.
    accuracy: Summary | None  #: Test split, where fresh-seed runs of this point exist.


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """The Pareto front of one arm, by ascending reduction."""

    arm: str
    points: tuple[FrontPoint, ...]
    search: SearchCost


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One run that did not give a usable result."""

    role: Role
    arm: str
    target: str
    index: int
    state: str
    cause: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Everything one sweep says about its arms, computed from its stored records."""

    sweep: str
    state: str
    spec_hash: str
    spec: Mapping[str, Any]
    last_change: str | None  #: When the newest trial ended, ISO 8601.
    dense: Dense | None
    tables: tuple[Table, ...]
    fronts: tuple[Front, ...]
    searches: tuple[SearchedRatios, ...]  #: Of ratios, with enough proposals to say what mattered.
    predictors: tuple[Predictor, ...]
    rates: RateChoice | None  #: None where the specification names the learning rate.
    failures: tuple[Failure, ...]
    failed_arms: Mapping[str, str]  #: Arms and controls all of whose trials failed, with the cause.
    missing: tuple[str, ...]  #: What is still to come, in words; empty when the sweep is done.
    warnings: tuple[str, ...]
    environments: tuple[Mapping[str, Any], ...]  #: The distinct ones the results came from.
    margin: float  #: Points that a tie is closer than.
    seeds: tuple[int, ...]  #: Of the runs whose accuracy is reported.

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-able data."""
        searches = [search.to_json() for search in self.searches]
        return {**asdict(replace(self, searches=())), "searches": searches}
