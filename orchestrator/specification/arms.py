"""One arm of a sweep: a method with its settings, and a schedule; or ranges a search may try."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

import methods
from methods.own_code import OwnCodeError
from orchestrator.specification.knobs import (
    Knob,
    extremes,
    find_knobs,
    whole_settings,
    without_knobs,
)
from orchestrator.specification.settings import checking
from workers.settings import Settings, Unit

LARGEST: Final = 1e12  #: Of a setting of a method, a schedule or a network.
#: Where a plain string stands for a mapping with this one key.
SHORTHANDS: Final = {"model": "name", "data": "name", "arms": "method", "schedule": "name"}


def shorthand(field: str) -> BeforeValidator:
    """Let a plain string stand for the record that has it under its one key."""
    key = SHORTHANDS[field]
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def check_plain(values: Mapping[str, Any]) -> None:
    """Refuse numbers that nothing counts or measures, where keys are not known beforehand.

    Raises:
        ValueError: With the key.
    """
    for key, value in values.items():
        inside = value if isinstance(value, Mapping) else {"": value}
        for part, number in inside.items():
            if isinstance(number, int | float) and not abs(number) <= LARGEST:
                where = f"{key}.{part}" if part else key
                raise ValueError(
                    f"has {str(number)[:20]} for {where}; at most {LARGEST:g} is taken"
                )


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]


class ArmSettings(Settings):
    """One way of pruning: a method, its settings, and a schedule."""

    method: str  #: A registered method, an alias of one, or your own ``mine.py:Method``.
    name: Name = ""  #: Unique in the sweep; left out: the method, and the schedule unless one_shot.
    #: Settings of the method; a range or choices as value: the search decides.
    settings: dict[str, Any] = Field(default={})
    schedule: Annotated[dict[str, Any], shorthand("schedule")] = Field(default={"name": "one_shot"})
    #: Who chooses the ratios: a search, or the method itself, which is given the target.
    allocation: Literal["search", "method"] = "search"
    #: Content of the user's own code, filled in as a sweep begins; None: there is none.
    code: str | None = Field(default=None, exclude_if=lambda code: code is None)

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "name" in data:
            return data
        schedule = data.get("schedule", "one_shot")
        schedule = schedule.get("name", "one_shot") if isinstance(schedule, dict) else schedule
        method = str(data.get("method", "arm"))
        parts = [method.rpartition(":")[2]] + ([] if schedule == "one_shot" else [schedule])
        parts += ["allocated"] if data.get("allocation") == "method" else []
        return {**data, "name": re.sub(r"[^A-Za-z0-9._+-]+", "_", "-".join(map(str, parts)))}

    @field_validator("method")
    @classmethod
    def _method_is_registered(cls, method: str, info: ValidationInfo) -> str:
        if checking(info):
            try:
                methods.create(method)
            except methods.UnknownMethodError as error:
                raise ValueError(str(error)) from error
            except methods.SettingsError:
                pass  # the settings have their turn below
            except OwnCodeError as error:
                raise ValueError(str(error)) from error
        return method

    @field_validator("settings")
    @classmethod
    def _settings_fit(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if checking(info):
            check_plain(settings)
        if checking(info) and "method" in info.data:
            for values in extremes(settings):
                methods.create(info.data["method"], values)
        return settings

    @field_validator("schedule")
    @classmethod
    def _schedule_fits(cls, schedule: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if not isinstance(schedule.get("name"), str):
            raise ValueError("needs the name of a schedule, as in {name: iterative, rounds: 3}")
        if checking(info):
            check_plain(schedule)
            for values in extremes(schedule):
                methods.Schedule.create(values)
            known = methods.available().get(info.data.get("method", ""))
            if known is not None and not known.schedulable and schedule["name"] != "one_shot":
                raise ValueError(f"cannot be combined with {known.name}; leave it out")
        return schedule

    @field_validator("allocation")
    @classmethod
    def _method_allocates(cls, allocation: str, info: ValidationInfo) -> str:
        if allocation == "method" and checking(info) and {"method", "settings"} <= info.data.keys():
            method = methods.create(info.data["method"], without_knobs(info.data["settings"]))
            if not method.allocates:
                raise ValueError(
                    f"is 'method', but {method.name} does not choose ratios by itself; leave it "
                    "out, or name a method that does ('prunesweep methods' tells)"
                )
        return allocation

    @field_validator("code")
    @classmethod
    def _code_is_of_own_code(cls, code: str | None, info: ValidationInfo) -> str | None:
        if code is not None and ":" not in info.data.get("method", ":"):
            raise ValueError("is filled in as a sweep begins, for code of your own; leave it out")
        return code

    @property
    def unit(self) -> Unit:
        """What its method prunes."""
        return methods.kind_of(self.method).unit

    @property
    def trains_to_choose(self) -> bool:
        """A choice of filters costs epochs, with one of the values its knobs can have at least."""
        ways = (methods.create(self.method, values) for values in extremes(self.settings))
        schedules = (methods.Schedule.create(values) for values in extremes(self.schedule))
        return any(way.trains for way in ways) or any(when.trains for when in schedules)

    @property
    def knobs(self) -> dict[str, Knob]:
        """What the search chooses beside the ratios, as ``settings.alpha`` or ``schedule.knee``."""
        return {
            f"{part}.{name}": knob
            for part, values in (("settings", self.settings), ("schedule", self.schedule))
            for name, knob in find_knobs(values).items()
        }

    def chosen(self, numbers: Mapping[str, float]) -> Self:
        """Return the arm with its knobs at the values that ``numbers`` in [0, 1] stand for."""
        if not self.knobs:
            return self
        kinds = {"settings": methods.kind_of(self.method), "schedule": methods.Schedule}
        filled = {part: dict(getattr(self, part)) for part in kinds}
        for key, knob in self.knobs.items():
            part, _, name = key.partition(".")
            whole = name in whole_settings(kinds[part])
            filled[part][name] = knob.value(numbers[key], whole=whole)
        return self.model_copy(update=filled)
