"""What may be asked of a sweep beyond what it has: more search trials, more seeds.

A request is stored together with what it changes, and is open until a driver has brought the sweep
to its end. Made again while it is open it is the same request: nothing is added twice, however
often the command was killed. Seeds that are there already are never added again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from orchestrator.specification.spec import SweepSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Extension:
    """One request."""

    trials: str | None = None  #: As typed: ``10`` in all, or ``+2`` more.
    seeds: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()  #: Arms and controls that get the seeds; none: all.

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """Return a request as the ledger keeps it; None: there is none."""
        if stored is None:
            return None
        return cls(
            trials=stored.get("trials"),
            seeds=tuple(stored.get("seeds", ())),
            arms=tuple(stored.get("arms", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        return {**asdict(self), "seeds": list(self.seeds), "arms": list(self.arms)}

    def apply(self, spec: SweepSpec, before: Self | None = None) -> dict[str, Any]:
        """Return the fields of ``spec`` that are different afterwards.

        Args:
            spec: The sweep as it is.
            before: The open request; if it is this one, its trials are there already.
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
        return changes


def joined(seeds: Sequence[int], more: Sequence[int]) -> tuple[int, ...]:
    """Append what is new of ``more``."""
    return tuple(dict.fromkeys((*seeds, *more)))


def _fresh(seeds: Sequence[int], known: Sequence[int]) -> list[int]:
    return [seed for seed in seeds if seed not in known]
