"""What changed between two specifications of one sweep, and what may."""

import json
from collections.abc import Iterator
from typing import Any, Final

from methods.own_code import code_hash, is_reference
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.targets import TARGET_FIELDS

_NOT_SET: Final = "not set"


def differences(old: SweepSpec, new: SweepSpec) -> list[str]:
    """Say what changed in the content, one line per field: ``recipe.epochs: 4 -> 8``."""
    return list(_changes(_by_arm(old), _by_arm(new), ""))


def forbidden_changes(old: SweepSpec, new: SweepSpec, *, extend: bool = False) -> list[str]:
    """Say which changes a sweep that has begun cannot take; empty when it can go on.

    Resources, recovery, tracking and the place of the images may always change. With ``extend``,
    ``search.trials`` may grow, and ``seeds``, ``more_seeds``, ``arms`` and each kind of target may
    be appended to.
    """
    new = as_begun(new, old)
    if extend:
        new = _without_new_arms(_without_new_targets(new, old), old)
    if extend and new.search.trials >= old.search.trials:
        search = new.search.model_copy(update={"trials": old.search.trials})
        new = new.model_copy(update={"search": search})
    if extend and new.seeds[: len(old.seeds)] == old.seeds:
        new = new.model_copy(update={"seeds": old.seeds})
    if extend and all(
        new.more_seeds.get(arm, ())[: len(seeds)] == seeds for arm, seeds in old.more_seeds.items()
    ):
        new = new.model_copy(update={"more_seeds": old.more_seeds})
    return differences(old, new)


def _without_new_arms(new: SweepSpec, old: SweepSpec) -> SweepSpec:
    """Leave out the arms that were appended."""
    names = [arm.name for arm in old.arms]
    if [arm.name for arm in new.arms[: len(names)]] != names:
        return new
    return new.model_copy(update={"arms": new.arms[: len(names)]})


def _without_new_targets(new: SweepSpec, old: SweepSpec) -> SweepSpec:
    """Leave out the targets that were appended; what is first stays first."""
    if new.targets is None or old.targets is None:
        return new
    held = {field: getattr(old.targets, field) for field in TARGET_FIELDS}
    if any(getattr(new.targets, field)[: len(held[field])] != held[field] for field in held):
        return new
    return new.model_copy(update={"targets": new.targets.model_copy(update=held)})


def as_begun(spec: SweepSpec, old: SweepSpec) -> SweepSpec:
    """Return ``spec`` with what was settled when the sweep began, where it leaves that open."""
    spec = _with_codes_of(spec, old)
    if spec.layers.policy == "auto":
        layers = spec.layers.model_copy(update={"policy": old.layers.policy})
        spec = spec.model_copy(update={"layers": layers})
    shares = old.controls.macs_reduction
    if spec.targets is not None or spec.controls.macs_reduction or not shares:
        return spec
    controls = spec.controls.model_copy(update={"macs_reduction": shares})
    return spec.model_copy(update={"controls": controls})


def _with_codes_of(spec: SweepSpec, old: SweepSpec) -> SweepSpec:
    """Leave out the content of own code where a sweep began before that was looked at."""
    unknown = {arm.name for arm in old.arms if arm.code is None}
    if old.model.code is None and spec.model.code is not None:
        model = spec.model.model_copy(update={"code": None})
        spec = spec.model_copy(update={"model": model})
    if any(arm.code and arm.name in unknown for arm in spec.arms):
        arms = (a.model_copy(update={"code": None}) if a.name in unknown else a for a in spec.arms)
        spec = spec.model_copy(update={"arms": tuple(arms)})
    return spec


def own_names(spec: SweepSpec) -> list[str]:
    """List the network and the methods that may be code of the user's."""
    return [spec.model.name, *(arm.method for arm in spec.arms if is_reference(arm.method))]


def with_codes(spec: SweepSpec) -> SweepSpec:
    """Return ``spec`` with the content of own code, where it does not say it yet."""
    if spec.model.code is None and is_reference(spec.model.name):
        model = spec.model.model_copy(update={"code": code_hash(spec.model.name)})
        spec = spec.model_copy(update={"model": model})
    if any(is_reference(arm.method) and arm.code is None for arm in spec.arms):
        arms = (
            arm.model_copy(update={"code": arm.code or code_hash(arm.method)})
            if is_reference(arm.method)
            else arm
            for arm in spec.arms
        )
        spec = spec.model_copy(update={"arms": tuple(arms)})
    return spec


def _by_arm(spec: SweepSpec) -> dict[str, Any]:
    content = spec.content
    content["arms"] = {arm.pop("name"): arm for arm in content["arms"]}
    return content


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            inside = f"{path}.{key}" if path else key
            yield from _changes(old.get(key, _NOT_SET), new.get(key, _NOT_SET), inside)
    elif old != new and path.endswith(".code"):
        yield f"{path}: your code is not what the sweep began with"
    elif old != new:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return value if value == _NOT_SET else json.dumps(value)
