"""What every arm must meet: a cost to come down to, or an accuracy to stay within."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

import methods
from tracking.places import drop_label, target_label
from workers.settings import Settings


def _one_is_a_list(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _no_percentages(value: Any) -> Any:
    if isinstance(value, int | float) and 2 <= value < 100:
        raise ValueError(f"is {value}; it is a share below 1: write {value / 100:g} for {value} %")
    return value


Reductions = Annotated[
    tuple[Annotated[float, BeforeValidator(_no_percentages), Field(gt=0.0, lt=1.0)], ...],
    BeforeValidator(_one_is_a_list),
    Field(max_length=100),
]
Drops = Annotated[
    tuple[Annotated[float, Field(ge=0.0, lt=100.0)], ...],
    BeforeValidator(_one_is_a_list),
    Field(max_length=20),
]
#: What a target may be of, in the order of their labels.
TARGET_FIELDS: Final = ("macs_reduction", "params_reduction", "latency_reduction", "accuracy_drop")


class LatencySettings(Settings):
    """What a latency is of: it is timed so, and a model of it is learned so."""

    runtime: Literal["eager", "compile", "onnxruntime"] = "eager"  #: What runs the network.
    #: Images per batch; None: the large batch of latencies, 32 on a CPU and 128 elsewhere.
    batch: Annotated[int, Field(ge=1, le=65536)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None  #: Of the CPU; None: a worker's.
    precision: Literal["float32", "bfloat16"] = "float32"
    samples: Annotated[int, Field(ge=40, le=100_000)] = 300  #: Narrowed networks that are timed.

    @model_validator(mode="after")
    def _runtime_takes_precision(self) -> Self:
        if self.runtime == "onnxruntime" and self.precision != "float32":
            raise ValueError(
                f"runtime is onnxruntime, which is timed in float32, and precision is "
                f"{self.precision}; change one of them"
            )
        return self


class TargetSettings(Settings):
    """Costs that every arm must meet, as shares removed; and accuracies that it may lose."""

    macs_reduction: Reductions = ()
    params_reduction: Reductions = ()
    #: Of the time of a forward pass, met by a latency model; verified by the clock.
    latency_reduction: Reductions = Field(default=(), exclude_if=lambda shares: not shares)
    latency: LatencySettings = Field(
        default=LatencySettings(), exclude_if=lambda how: how == LatencySettings()
    )
    #: Points below the dense network, trained alike, that the cheapest network is searched within.
    accuracy_drop: Drops = Field(default=(), exclude_if=lambda drops: not drops)
    #: What is cheap, where that is searched.
    cost: Literal["macs", "params"] = Field(default="macs", exclude_if=lambda axis: axis == "macs")

    @field_validator("cost", mode="before")
    @classmethod
    def _is_counted(cls, cost: Any) -> Any:
        if cost == "latency":
            raise ValueError(
                "is latency; within an accuracy_drop the cheapest network is searched by what can "
                "be counted: write macs or params. For a time, name a latency_reduction; latency "
                "of the answer is measured in either case"
            )
        return cost

    @field_validator("accuracy_drop", mode="after")
    @classmethod
    def _are_points(cls, drops: tuple[float, ...]) -> tuple[float, ...]:
        if len({drop_label(drop) for drop in drops}) < len(drops):
            raise ValueError("names the same drop twice; take one out")
        return drops

    @model_validator(mode="after")
    def _some_and_different(self) -> Self:
        if not self.labels:
            raise ValueError("names no target; leave 'targets' out to search the whole front")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("names the same target twice; take one out")
        if self.latency != LatencySettings() and not self.latency_reduction:
            raise ValueError(
                "latency says what a latency_reduction is of, and none is named; name one, or "
                "leave latency out"
            )
        if self.cost != "macs" and not self.accuracy_drop:
            raise ValueError(
                "cost says what is cheap within an accuracy_drop, and none is named; name one, or "
                "leave cost out"
            )
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each target: MACs, parameters, latencies, then drops."""
        costs = [target_label(at.axis, at.reduction) for at in (*self.points, *self.latencies)]
        return (*costs, *(drop_label(drop) for drop in self.accuracy_drop))

    @property
    def points(self) -> "tuple[methods.CostTarget, ...]":
        """One target per reduction, MACs first."""
        target = methods.CostTarget
        macs = [target(axis="macs", reduction=share) for share in self.macs_reduction]
        params = [target(axis="params", reduction=share) for share in self.params_reduction]
        return (*macs, *params)

    @property
    def latencies(self) -> "tuple[methods.CostTarget, ...]":
        """One target per reduction of the latency."""
        target = methods.CostTarget
        return tuple(target(axis="latency", reduction=share) for share in self.latency_reduction)
