"""Settings of an arm that its search chooses, beside the ratios.

In a specification a setting's value may be ``{low: 1e-5, high: 1e-3, log: true}`` or
``{choices: [grad, taylor]}``. Every sampler searches numbers in [0, 1], since CMA-ES and QMC know
no choices; a knob says which value a number stands for.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from methods.errors import SettingsError
from workers.settings import Settings

MIDDLE = 0.5  #: Where a search starts when the default lies outside the knob.


class Range(Settings):
    """All numbers between two, both included."""

    low: float
    high: float
    log: bool = False  #: Equal factors are equally likely, not equal differences.

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low is the smaller")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; with log it must be above 0")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be possible for all to be."""
        return (self.low, self.high)

    def value(self, number: float, *, whole: bool) -> float | int:
        """Return what ``number`` in [0, 1] stands for; a whole number where only those will do."""
        low, span = self.low, self.high - self.low
        found = low * (self.high / low) ** number if self.log else low + number * span
        if not whole:
            return min(max(found, low), self.high)
        if not self.log:  # every whole number is equally likely, the ends too
            found = min(math.floor(low + number * (span + 1)), self.high)
        return round(found)

    def number(self, value: Any) -> float:
        """Return a number that stands for ``value``, or the middle if it lies outside."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return MIDDLE
        if not self.low <= value <= self.high:
            return MIDDLE
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class Choices(Settings):
    """One of several values."""

    choices: Annotated[tuple[Any, ...], Field(min_length=2)]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be possible for all to be."""
        return self.choices

    def value(self, number: float, *, whole: bool) -> Any:
        """Return the choice that ``number`` in [0, 1] stands for."""
        return self.choices[min(int(number * len(self.choices)), len(self.choices) - 1)]

    def number(self, value: Any) -> float:
        """Return a number that stands for ``value``, or the middle if it is not a choice."""
        if value not in self.choices:
            return MIDDLE
        return (self.choices.index(value) + 0.5) / len(self.choices)


Knob = Range | Choices


def is_knob(value: Any) -> bool:
    """Say whether a setting's value is to be searched."""
    return isinstance(value, Mapping) and not {"low", "high", "choices"}.isdisjoint(value)


def find_knobs(settings: Mapping[str, Any]) -> dict[str, Knob]:
    """Return the settings that are to be searched.

    Raises:
        SettingsError: One of them is not well formed.
    """
    return {name: _read(name, value) for name, value in settings.items() if is_knob(value)}


def _read(name: str, value: Mapping[str, Any]) -> Knob:
    kind: type[Knob] = Choices if "choices" in value else Range
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            "specification",
            name,
            f"{key + ': ' if key else ''}{problem}; a setting to search is {{low: ..., high: "
            "...}, with log: true if factors matter, or {choices: [...]}",
        ) from error


def without_knobs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that have one value; the others are at their defaults."""
    return {name: value for name, value in settings.items() if not is_knob(value)}


def extremes(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings with each knob at each of its ends: all must be possible.

    Raises:
        SettingsError: A knob is not well formed.
    """
    plain, knobs = without_knobs(settings), find_knobs(settings)
    yield plain
    for name, knob in knobs.items():
        for value in knob.ends:
            yield {**plain, name: value}


@cache
def whole_settings(kind: type) -> frozenset[str]:
    """Return the settings of a method or schedule that take whole numbers only."""
    properties = TypeAdapter(kind).json_schema().get("properties", {})
    return frozenset(name for name, schema in properties.items() if "integer" in _types(schema))


def _types(schema: Mapping[str, Any]) -> set[str]:
    found = {part.get("type") for part in schema.get("anyOf", (schema,))}
    return found if "number" not in found else {"number"}
