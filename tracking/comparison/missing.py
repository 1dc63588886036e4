"""What a sweep asked for and does not have yet, in words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tracking.comparison.given_up import Breaker
from tracking.comparison.runs import Run
from tracking.places import DENSE, FRONT, SCRATCH, Role, scratched_arm, target_label


def missing_from(spec: Mapping[str, Any], runs: Sequence[Run]) -> tuple[str, ...]:
    """List what is still to come, in the order it will be run; failed runs are not to come."""
    arms = [arm["name"] for arm in spec.get("arms", ())]
    targets = _labels(spec)
    seeds = len(spec.get("seeds", ()))
    trials = int((spec.get("search") or {}).get("trials", 0))
    trials = trials if trials > 1 else 0  # one trial is uniform ratios: nothing is searched
    on = [name for name, wanted in (spec.get("controls") or {}).items() if wanted]
    lines = [_baseline(spec, runs)]
    for name in on:
        if name == DENSE:
            lines.append(_line(f"control {name}", _of(runs, Role.CONTROL, name, ""), seeds))
        elif name != SCRATCH:
            lines += [
                _line(f"control {name} at {at}", _of(runs, Role.CONTROL, name, at), seeds)
                for at in (targets if targets != [FRONT] else _seen(runs, Role.CONTROL, name))
            ]
    predictors = [run for run in runs if run.place.role is Role.PREDICTOR]
    lines += [f"latency predictor of {p.place.arm}: waiting" for p in predictors if not _is_in(p)]
    given_up = _given_up(spec, runs)
    lines += [
        f"arm {arm}: given up, as its first trials all failed of {cause}"
        for arm, cause in given_up.items()
    ]
    stuck = {p.place.arm for p in predictors if _is_in(p) and not p.is_usable} | given_up.keys()
    arms = [arm for arm in arms if arm not in stuck]  # nothing to train against: none will run
    pairs = [(arm, at) for at in targets for arm in arms]
    alone = {arm["name"] for arm in spec.get("arms", ()) if not _is_searched(arm)}
    lines += [
        _line(f"search of {a} at {t}", _of(runs, Role.SEARCH, a, t), trials)
        for a, t in pairs
        if a not in alone
    ]
    if targets == [FRONT]:
        pairs = [(arm, at) for arm in arms for at in _seen(runs, Role.CONFIRM, arm)]
    lines += [
        _line(f"fresh-seed runs of {a} at {t}", _of(runs, Role.CONFIRM, a, t), seeds)
        for a, t in pairs
    ]
    if SCRATCH in on and targets != [FRONT]:
        lines += [
            _line(f"winning shape from scratch at {t}", _scratch(runs, t), seeds) for t in targets
        ]
    waiting = [run for run in runs if run.place.role is Role.LATENCY and not _is_in(run)]
    lines += [f"latency of {run.place.arm} at {run.place.target}: waiting" for run in waiting]
    return tuple(line for line in lines if line)


def _given_up(spec: Mapping[str, Any], runs: Iterable[Run]) -> Mapping[str, str]:
    """Return the arms that the sweep does not go on with, and the cause of their failures."""
    breaker = Breaker(int((spec.get("recovery") or {}).get("failures_per_arm", 0)))
    breaker.replay((run.entry, run.trial) for run in runs)
    return breaker.given_up


def _is_searched(arm: Mapping[str, Any]) -> bool:
    """Say whether a search has ratios or settings to choose for an arm."""
    settings = (*(arm.get("settings") or {}).values(), *(arm.get("schedule") or {}).values())
    return arm.get("allocation") != "method" or any(isinstance(v, dict) for v in settings)


def _labels(spec: Mapping[str, Any]) -> list[str]:
    asked = spec.get("targets")
    if not asked:
        return [FRONT]
    return [
        target_label(axis, share)
        for axis in ("macs", "params")
        for share in asked.get(f"{axis}_reduction", ())
    ]


def _of(runs: Iterable[Run], role: Role, arm: str, target: str) -> list[Run]:
    wanted = (role, arm, target)
    return [run for run in runs if (run.place.role, run.place.arm, run.place.target) == wanted]


def _seen(runs: Iterable[Run], role: Role, arm: str) -> list[str]:
    """List the targets at which entries ask for this arm."""
    mine = (run.place.target for run in runs if (run.place.role, run.place.arm) == (role, arm))
    return list(dict.fromkeys(mine))


def _scratch(runs: Iterable[Run], target: str) -> list[Run]:
    return [
        run
        for run in runs
        if run.place.role is Role.CONTROL
        and scratched_arm(run.place.arm) is not None
        and run.place.target == target
    ]


def _is_in(run: Run) -> bool:
    return run.trial.state.is_final


def _baseline(spec: Mapping[str, Any], runs: Iterable[Run]) -> str:
    found = [run for run in runs if run.place.role is Role.BASELINE]
    if any(_is_in(run) for run in found) or (spec.get("checkpoint") and not found):
        return ""
    return "dense baseline: not evaluated yet"


def _line(what: str, runs: Sequence[Run], wanted: int) -> str:
    done = sum(_is_in(run) for run in runs)
    wanted = max(wanted, len(runs))
    if done >= wanted:
        return ""
    return f"{what}: {done} of {wanted} in" if runs else f"{what}: not begun"
