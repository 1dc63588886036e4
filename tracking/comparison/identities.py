"""What runs must share to be compared: one baseline, one recipe, one data set, one layer policy."""

from collections.abc import Iterable, Sequence

from tracking.comparison.runs import Run
from tracking.places import scratched_arm

NAMES = ("baseline weights", "recipe", "data", "layer policy")
Shared = tuple[str | None, ...]  #: One value for each of `NAMES`; None fits any.


def shared(run: Run) -> Shared:
    """Read a run's identity off its result.

    Training from scratch follows the baseline's recipe, so that recipe is not held against it.
    """
    found, is_scratch = run.result, scratched_arm(run.place.arm) is not None
    recipe = None if is_scratch else found.recipe_hash
    parts = (found.base_weights, recipe, found.data_hash, found.policy_hash)
    return tuple(part or None for part in parts)


def fits(one: Shared, other: Shared) -> bool:
    """Whether runs of these two identities may be compared."""
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def identities(runs: Iterable[Run]) -> list[Shared]:
    """List the distinct identities; a run that does not have some part of one fits any."""
    found: list[Shared] = []
    seen = [shared(run) for run in runs if run.is_completed]
    for identity in sorted(seen, key=lambda values: values.count(None)):
        for place, other in enumerate(found):
            if fits(identity, other):
                merged = tuple(a or b for a, b in zip(other, identity, strict=True))
                found[place] = merged
                break
        else:
            found.append(identity)
    return found or [(None,) * len(NAMES)]


def differing(identities: Sequence[Shared]) -> str:
    """Name the parts in which identities differ, as in ``recipe and data``."""
    columns = zip(NAMES, zip(*identities, strict=True), strict=True)
    return " and ".join(name for name, values in columns if len(set(values) - {None}) > 1)
