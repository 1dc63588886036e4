"""What may be asked of a sweep beyond what it has: search trials, seeds, arms, targets.

A request is stored together with what it changes, and is open until a driver has brought the sweep
to its end. Made again while it is open it is the same request: nothing is added twice, however
often the command was killed. Seeds, arms and targets that are there already are never added again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Self

from orchestrator.errors import Problem, SpecError
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.spec import SweepSpec
from orchestrator.specification.targets import TargetSettings

ARMS, TARGETS = "arms", "targets"


@dataclass(frozen=True, kw_only=True, slots=True)
class Extension:
    """One request."""

    trials: str | None = None  #: As typed: ``10`` in all, or ``+2`` more.
    seeds: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()  #: Arms and controls that get the seeds; none: all.
    new_arms: tuple[Mapping[str, Any], ...] = ()  #: As a specification holds them, in JSON.
    new_targets: tuple[tuple[str, float], ...] = ()  #: Field of the targets, and its value.

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """Return a request as the ledger keeps it; None: there is none."""
        if stored is None:
            return None
        return cls(
            trials=stored.get("trials"),
            seeds=tuple(stored.get("seeds", ())),
            arms=tuple(stored.get("arms", ())),
            new_arms=tuple(stored.get("new_arms", ())),
            new_targets=tuple((field, value) for field, value in stored.get("new_targets", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        return {
            **asdict(self),
            "seeds": list(self.seeds),
            "arms": list(self.arms),
            "new_arms": list(self.new_arms),
            "new_targets": [list(target) for target in self.new_targets],
        }

    def apply(self, spec: SweepSpec, before: Self | None = None) -> dict[str, Any]:
        """Return the fields of ``spec`` that are different afterwards.

        Args:
            spec: The sweep as it is.
            before: The open request; if it is this one, its trials are there already.

        Raises:
            SpecError: The sweep cannot have such an arm or target beside what it has.
        """
        changes: dict[str, Any] = {}
        if self.trials is not None and not (self.trials.startswith("+") and self == before):
            count = int(self.trials.removeprefix("+"))
            count += spec.search.trials if self.trials.startswith("+") else 0
            changes["search"] = spec.search.model_copy(update={"trials": count})
        if self.seeds and not self.arms:
            changes["seeds"] = joined(spec.seeds, self.seeds)
        elif self.seeds:
            more = {
                arm: joined(spec.more_seeds.get(arm, ()), _fresh(self.seeds, spec.seeds))
                for arm in self.arms
            }
            changes["more_seeds"] = {**spec.more_seeds, **{a: s for a, s in more.items() if s}}
        if self.new_arms:
            changes["arms"] = _with_arms(spec.arms, map(ArmSettings.model_validate, self.new_arms))
        if self.new_targets:
            changes["targets"] = _with_targets(spec, self.new_targets)
        return changes


def joined(seeds: Sequence[int], more: Sequence[int]) -> tuple[int, ...]:
    """Append what is new of ``more``."""
    return tuple(dict.fromkeys((*seeds, *more)))


def _fresh(seeds: Sequence[int], known: Sequence[int]) -> list[int]:
    return [seed for seed in seeds if seed not in known]


def _with_arms(arms: Sequence[ArmSettings], more: Iterable[ArmSettings]) -> tuple[ArmSettings, ...]:
    """Append the arms that are not there yet."""
    found = {arm.name: arm for arm in arms}
    for arm in more:
        known = found.setdefault(arm.name, arm)
        if stated(known) != stated(arm):
            _refuse(ARMS, f"the sweep has another arm {arm.name!r}; give this one a 'name'")
    return tuple(found.values())


def stated(arm: ArmSettings) -> dict[str, Any]:
    """Return what a person says of an arm, in JSON."""
    return arm.model_dump(mode="json", exclude={"code"})


def _with_targets(spec: SweepSpec, more: Iterable[tuple[str, float]]) -> TargetSettings:
    """Append the targets that are not there yet."""
    before = spec.targets
    if before is None:
        _refuse(TARGETS, "the sweep searches the whole front; begin one of another name for them")
    after = before
    for field, value in more:
        (label,) = TargetSettings.model_validate({field: (value,)}).labels
        if label not in after.labels:
            after = after.model_copy(update={field: (*getattr(after, field), value)})
    first, new_first = before.labels[0], after.labels[0]
    if spec.recipe.learning_rates and first != new_first:
        _refuse(
            TARGETS,
            f"the learning rate was chosen at {first}, the first target, and {new_first} would be "
            "the first; begin a sweep of another name for it",
        )
    return after


def _refuse(place: str, problem: str) -> NoReturn:
    raise SpecError([Problem(place, problem)])
