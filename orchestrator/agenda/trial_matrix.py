"""How many trials a specification asks for, and what they cost at most, before anything runs."""

from dataclasses import dataclass

from orchestrator.agenda.agenda import FRONT_CONTROLS
from orchestrator.agenda.predictors import predictor_settings
from orchestrator.agenda.study import FRONT_WINNERS
from orchestrator.specification.spec import SweepSpec
from tracking.places import DENSE, FRONT, RANDOM, SCRATCH, UNIFORM_L1, Role, target_label
from workers.settings import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Trials of one kind: an upper bound, since content that repeats runs once."""

    role: Role
    arm: str
    target: str
    trials: int
    epochs: int  #: Of each trial.

    @property
    def all_epochs(self) -> int:
        """Epochs of the whole line."""
        return self.trials * self.epochs


def census(spec: SweepSpec) -> list[Line]:
    """Return the trial matrix of a sweep, in the order of its phases."""
    recipe, baseline, seeds = spec.recipe.epochs, spec.baseline_recipe.epochs, len(spec.seeds)
    labels = [_label(target) for target in spec.cost_targets] or [FRONT]
    search = spec.search.trials if spec.search.trials > 1 else 0
    winners = 1 if spec.cost_targets else FRONT_WINNERS
    lines = []

    def add(role: Role, arm: str, target: str, trials: int, epochs: int) -> None:
        if trials:
            line = Line(role=role, arm=arm, target=target, trials=trials, epochs=epochs)
            lines.append(line)

    add(Role.BASELINE, "", "", 1, 0 if spec.checkpoint else baseline)
    for arm in spec.arms:
        add(Role.PREDICTOR, arm.name, "", predictor_settings(arm) is not None, 0)
    for label in labels:
        for arm in spec.arms:
            searched = arm.allocation == "search" or bool(arm.knobs)
            add(Role.SEARCH, arm.name, label, search * searched, recipe)
            add(Role.CONFIRM, arm.name, label, seeds * winners, recipe)
    controls = spec.controls
    add(Role.CONTROL, DENSE, "", seeds * controls.dense, recipe)
    for target in spec.cost_targets or FRONT_CONTROLS:
        add(
            Role.CONTROL,
            RANDOM,
            _label(target),
            seeds * controls.random,
            recipe,
        )
        add(
            Role.CONTROL,
            UNIFORM_L1,
            _label(target),
            seeds * controls.uniform_l1,
            recipe,
        )
    scratch = baseline if spec.checkpoint else baseline + recipe
    for label in labels:
        if spec.cost_targets:
            add(Role.CONTROL, SCRATCH, label, seeds * controls.scratch, scratch)
        add(Role.LATENCY, "", label, len(spec.arms) * winners, 0)
    return lines


def _label(target: Target) -> str:
    return target_label(target.axis, target.reduction)
