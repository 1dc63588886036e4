"""What changed between two specifications of one sweep, and what may."""

import json
from collections.abc import Iterator
from typing import Any, Final

from orchestrator.specification.spec import SweepSpec

_NOT_SET: Final = "not set"


def differences(old: SweepSpec, new: SweepSpec) -> list[str]:
    """Say what changed in the content, one line per field: ``recipe.epochs: 4 -> 8``."""
    return list(_changes(_by_arm(old), _by_arm(new), ""))


def forbidden_changes(old: SweepSpec, new: SweepSpec, *, extend: bool = False) -> list[str]:
    """Say which changes a sweep that has begun cannot take; empty when it can go on.

    Resources, recovery, tracking and the place of the images may always change. With ``extend``,
    ``search.trials`` may grow, and ``seeds`` and ``more_seeds`` may be appended to.
    """
    new = as_begun(new, old)
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


def as_begun(spec: SweepSpec, old: SweepSpec) -> SweepSpec:
    """Return ``spec`` with what was settled when the sweep began, where it leaves that open."""
    shares = old.controls.macs_reduction
    if spec.targets is not None or spec.controls.macs_reduction or not shares:
        return spec
    controls = spec.controls.model_copy(update={"macs_reduction": shares})
    return spec.model_copy(update={"controls": controls})


def _by_arm(spec: SweepSpec) -> dict[str, Any]:
    content = spec.content
    content["arms"] = {arm.pop("name"): arm for arm in content["arms"]}
    return content


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            inside = f"{path}.{key}" if path else key
            yield from _changes(old.get(key, _NOT_SET), new.get(key, _NOT_SET), inside)
    elif old != new:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return value if value == _NOT_SET else json.dumps(value)
