"""What every arm must meet: a cost to come down to, or an accuracy to stay within."""

from typing import Annotated, Any, Literal, Self

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


class TargetSettings(Settings):
    """Costs that every arm must meet, as shares removed; and accuracies that it may lose."""

    macs_reduction: Reductions = ()
    params_reduction: Reductions = ()
    #: Points below the dense network, trained alike, that the cheapest network is searched within.
    accuracy_drop: Drops = Field(default=(), exclude_if=lambda drops: not drops)
    #: What is cheap, where that is searched.
    cost: Literal["macs", "params"] = Field(default="macs", exclude_if=lambda axis: axis == "macs")

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
        if self.cost != "macs" and not self.accuracy_drop:
            raise ValueError(
                "cost says what is cheap within an accuracy_drop, and none is named; name one, or "
                "leave cost out"
            )
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each target: MACs, parameters, then drops."""
        costs = [target_label(at.axis, at.reduction) for at in self.points]
        return (*costs, *(drop_label(drop) for drop in self.accuracy_drop))

    @property
    def points(self) -> "tuple[methods.CostTarget, ...]":
        """One target per reduction, MACs first."""
        target = methods.CostTarget
        macs = [target(axis="macs", reduction=share) for share in self.macs_reduction]
        params = [target(axis="params", reduction=share) for share in self.params_reduction]
        return (*macs, *params)
