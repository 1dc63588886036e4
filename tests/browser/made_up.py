"""Sweeps of any size from made-up numbers, for pages to be looked at: no ledger, no training."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np

from tests.tracking.hand_made import DENSE, ENVIRONMENT, result, specification
from tracking.comparison.compare import compare_records
from tracking.comparison.comparison import Comparison
from tracking.places import Place, Role
from tracking.records import EntryRecord, SweepRecord, SweepState, TrialRecord, TrialState

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IMAGES = 10_000
ARMS = (
    *("l1", "l2", "l2-iterative", "linf", "geometric_median", "geometric_median-l1"),
    *("bn_scale", "network_slimming", "taylor", "taylor-squared", "taylor-gates"),
    *("scop", "scop-white-noise", "functionality", "functionality-weights"),
    *("functionality-score-alone", "provable-ranks", "provable-both", "provable-ratios"),
    *("stripe_wise", "weight_gates", "free_gates", "hfp", "sfp", "asfp", "srfp", "asrfp"),
    *("ghfp", "uniform-random-filters"),
)
GROUPS = {f"stage{n // 9 + 1}.{n % 9}.conv1": 16 << (n // 9) for n in range(27)}


class Records:
    """A sweep, its places and its trials, numbered as a ledger would."""

    def __init__(self, spec: dict[str, Any], name: str) -> None:
        self.sweep = SweepRecord(
            id=1,
            name=name,
            spec=spec,
            spec_hash="spec-hash",
            state=SweepState.COMPLETED,
            epoch=1,
            owner="test",
            artifacts={},
            experiment_id=None,
            run_id=None,
            created_at=NOON,
            rev=1,
            published_rev=1,
        )
        self.entries: list[EntryRecord] = []
        self.trials: list[TrialRecord] = []

    def add(self, place: Place, found: dict[str, Any] | None, uid: str) -> None:
        """Add a place with its trial; one without a result has failed."""
        number = len(self.trials) + 1
        cause = None if found else "DivergedError: The training loss stopped being finite."
        self.entries.append(
            EntryRecord(id=number, sweep_id=1, place=place, trial_id=number, proposal=None, at=NOON)
        )
        self.trials.append(
            TrialRecord(
                id=number,
                sweep_id=1,
                uid=uid,
                spec={"recipe": {"epochs": 10}, "ratios": {}},
                state=TrialState.COMPLETED if found else TrialState.FAILED,
                attempt=1,
                losses=0,
                result=found,
                error=cause,
                cause=cause,
                reused_from=None,
                created_at=NOON,
                started_at=NOON,
                ended_at=NOON,
                rev=1,
                published_rev=1,
            )
        )


@cache
def made_up_sweep(arms: int = 29, targets: int = 6, proposals: int = 20) -> Comparison:
    """Compare a finished sweep of ``arms`` at ``targets`` costs; see `made_up_records`."""
    records = made_up_records(arms, targets, proposals)
    return compare_records(records.sweep, records.entries, records.trials)


def made_up_records(arms: int = 29, targets: int = 6, proposals: int = 20) -> Records:
    """Return a finished sweep of ``arms`` at ``targets`` costs, three seeds each, all controls.

    Equal numbers make equal sweeps. Of 29 arms some are level, one is the leader by another name,
    one misses its target and one has a failed run.
    """
    names, random = ARMS[:arms], np.random.default_rng(7)
    shares = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)[-targets:] if targets > 3 else (0.3, 0.5, 0.7)[:targets]
    spec = specification(*names, macs=shares, trials=proposals)
    spec["model"]["name"], spec["data"]["name"] = "resnet56", "cifar10"
    records = Records(spec, f"made-up-{arms}-arms")
    numbers = itertools.count()
    base: dict[str, Any] = {
        "macs": DENSE["macs"],
        "weights": "w-dense",
        "base_weights": None,
        "plan": None,
    }
    records.add(
        Place(Role.BASELINE), result(93.4, 93.6, params=DENSE["params"], **base), "dense-baseline"
    )
    gifts = np.sort(random.normal(0.0, 0.7, len(names)))[::-1]
    for share in shares:
        lost = 0.4 + 9.0 * share**3
        for place, name in enumerate(names):
            _add_arm(records, name, share, 93.4 - lost + gifts[place], random, proposals, numbers)
        for name, gap in (("random", -1.1), ("uniform_l1", -0.3), (f"scratch:{names[0]}", -0.8)):
            for seed in (1, 2, 3):
                found = _result(93.4 - lost + gap, share, random, _kept(share, random, False))
                place_of = Place(Role.CONTROL, name, f"macs-{share * 100:g}%", seed)
                records.add(place_of, found, f"uid-{next(numbers)}")
    for seed in (1, 2, 3):
        found = _result(93.6, 0.0, random, {})
        records.add(Place(Role.CONTROL, "dense", "", seed), found, f"uid-{next(numbers)}")
    return records


def _add_arm(
    records: Records,
    name: str,
    share: float,
    mean: float,
    random: np.random.Generator,
    proposals: int,
    numbers: "itertools.count[int]",
) -> None:
    label, is_late = f"macs-{share * 100:g}%", name == "asrfp"
    for number in range(proposals):
        found = _result(mean - 1.5 + (number > 0) * random.normal(-0.4, 0.8), share, random, {})
        records.add(Place(Role.SEARCH, name, label, number), found, f"uid-{next(numbers)}")
    kept = _kept(share, random, name != "l1")
    for seed in (1, 2, 3):
        found = _result(mean, share - 0.05 * is_late, random, kept)
        is_failed = name == "ghfp" and seed == 3
        place = Place(Role.CONFIRM, name, label, seed)
        records.add(place, None if is_failed else found, f"uid-{next(numbers)}")
    timed = {"batch_size": 1, "median_ms": 6.0 - 3.0 * share + 0.4 * random.random()}
    timed |= {"p90_ms": timed["median_ms"] * 1.1, "speed_up": 0.0}
    timed |= {"base_median_ms": 6.0, "base_p90_ms": 6.4}
    records.add(
        Place(Role.LATENCY, name, label, 0),
        {**result(None), "latency": [timed]},
        f"uid-{next(numbers)}",
    )


def _kept(share: float, random: np.random.Generator, is_searched: bool) -> Mapping[str, int]:
    factors = random.uniform(0.5, 1.4, len(GROUPS)) if is_searched else np.ones(len(GROUPS))
    shares = np.clip((1 - share) * factors, 0.05, 1.0)
    return {
        group: max(1, round(n * s)) for (group, n), s in zip(GROUPS.items(), shares, strict=True)
    }


def _result(
    mean: float, share: float, random: np.random.Generator, kept: Mapping[str, int]
) -> dict[str, Any]:
    macs = round(DENSE["macs"] * (1 - share + random.uniform(-0.004, 0.004)))
    accuracy = float(min(100.0, mean + random.normal(0.0, 0.18)))
    found = result(accuracy, accuracy, macs, kept=dict(kept), test_images=IMAGES)
    plan = {"format": 1, "policy": "inside_blocks", "widths": GROUPS, "kept": {}}
    seconds = float(random.uniform(300.0, 900.0))
    return {**found, "plan": plan, "environment": ENVIRONMENT, "seconds_total": seconds}
