"""The trials of a sweep as data: what each kind of them says of network, recipe and method."""

from dataclasses import asdict
from typing import Any

import methods
from methods import CostTarget, PruningPlan, Schedule, stated_ratio
from methods.own_code import is_reference
from methods.structure.latency_predictor import PredictorSettings
from orchestrator.agenda.drops import middle_of
from orchestrator.agenda.latency_targets import LatencyTargets
from orchestrator.agenda.study import Choice
from orchestrator.agenda.survey import Survey
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.spec import SweepSpec
from tracking.places import DENSE, RANDOM, UNIFORM_L1, Place, drop_label, target_label
from tracking.results import Result, given
from workers.settings import RECALIBRATION_IMAGES, Recipe, TrialSpec

_METHODS = {RANDOM: "random", UNIFORM_L1: "l1"}  # of the controls that prune


class Trials:
    """Writes the trials of one sweep, once it is known what they start from.

    Args:
        spec: What is asked for.
        surveyed: The network, the data and the starting weights.
        device: Name of the device kind, part of what identifies a latency.
        latency_targets: What the model of latencies says of a target's ratios.
    """

    def __init__(
        self, spec: SweepSpec, surveyed: Survey, device: str, latency_targets: LatencyTargets
    ) -> None:
        self._spec, self._surveyed, self._device = spec, surveyed, device
        self._latency_targets = latency_targets
        self.adapts = spec.adapts  #: The checkpoint is trained on before all else.
        #: Content of the weights that trials start from; None until the baseline has trained them.
        self.weights = None if spec.adapts else surveyed.weights_hash
        #: What trials are trained by; None until a learning rate was chosen.
        self.recipe = None if spec.recipe.learning_rates else spec.recipe
        met = (*spec.control_targets, *spec.latency_targets)
        self._targets = {target_label(at.axis, at.reduction): at for at in met}
        if spec.targets and spec.targets.accuracy_drop:  # learning rates are tried in the middle
            middle = middle_of(surveyed.filters, spec.targets.cost)
            self._targets.update({drop_label(at): middle for at in spec.targets.accuracy_drop})
        self._units = {arm.name: arm.unit for arm in spec.arms}
        self._ways: dict[str, dict[str, Any]] = {}

    def proposal(
        self, choice: Choice, target: CostTarget | None, predictor: str | None, *, by_proxy: bool
    ) -> TrialSpec:
        """Try a proposal of a search, which never reads the test split."""
        trial = self.prune(choice, target, self._spec.search.seed, predictor)
        trial = trial.model_copy(update={"reads_test": False})
        return _proxy(trial, self._spec.search.judge_images) if by_proxy else trial

    def rate(self, place: Place) -> TrialSpec:
        """Try a learning rate on a control: the one that the index of a place is of."""
        recipe = self._spec.recipe.at(self._spec.recipe.learning_rates[place.index])
        tried = Place(place.role, place.arm, place.target, self._spec.search.seed)
        return self.control(tried, recipe).model_copy(update={"reads_test": False})

    def control(self, place: Place, recipe: Recipe | None = None) -> TrialSpec:
        """Return the trial of a control that needs no winner."""
        if place.arm == DENSE:
            return self._trial("dense", place.index)
        return self.uniform_control(place, self._targets[place.target], recipe)

    def uniform_control(
        self, place: Place, target: CostTarget, recipe: Recipe | None = None
    ) -> TrialSpec:
        """Prune by a control's criterion, at the same ratio everywhere, to a cost."""
        arm = ArmSettings(method=_METHODS[place.arm], name=place.arm)
        if target in self._spec.latency_targets:
            found = self._latency_targets.uniform(target, self._surveyed.filters)
            ratios = dict(found.ratios)
        else:
            ratios = self._surveyed.filters.uniform(target, self._spec.search.tolerance)
        return self.prune(Choice(arm=arm, ratios=ratios), target, place.index, recipe=recipe)

    def shape(self, arm: str, result: Result) -> PruningPlan:
        """Return a plan of the same shape: which filters stay does not matter to most."""
        layout = self._surveyed.of(self._units[arm]).layout
        widths, policy = layout.widths, layout.policy
        if policy.kind in {"scatter", "stripes"}:
            return PruningPlan.from_json(given(result.plan))
        kept = given(result.kept)
        return PruningPlan(
            policy=policy.kind,
            widths=widths,
            kept={group: tuple(range(kept[group])) for group in widths},
        )

    def prune(
        self,
        choice: Choice,
        target: CostTarget | None,
        seed: int,
        predictor: str | None = None,
        recipe: Recipe | None = None,
    ) -> TrialSpec:
        """Prune as chosen, and recover; the recipe is that of all trials unless one is given."""
        way = {**self._way(choice.arm), "predictor": predictor}
        gradual = Schedule(**way["schedule"]).is_gradual
        counted = {
            group: stated_ratio(group, width, choice.ratios[group], gradual=gradual)
            for group, width in self._surveyed.of(choice.arm.unit).layout.widths.items()
            if choice.ratios  # none: the method allocates
        }
        met = None if target in self._spec.latency_targets else target  # ratios say it all
        return self._trial("prune", seed, recipe, target=met, ratios=counted, **way)

    def _way(self, arm: ArmSettings) -> dict[str, Any]:
        """Return what an arm's trials say of method and schedule, with every setting filled in.

        Checking settings takes milliseconds, so it happens once for each arm.
        """
        key = arm.model_dump_json()
        if key not in self._ways:
            method = methods.create(arm.method, arm.settings)
            schedule = Schedule.create(arm.schedule)
            self._ways[key] = {
                "method": arm.method if is_reference(arm.method) else method.name,
                "method_code": arm.code,
                "method_settings": methods.identity_settings(method),
                "method_revision": method.revision,
                "schedule": asdict(schedule),
                "schedule_revision": schedule.revision,
                "unit": method.unit,
            }
        return self._ways[key]

    def baseline(self) -> TrialSpec:
        """Train the dense network, from the checkpoint if there is one, or only measure that."""
        recipe = self._spec.baseline_recipe
        if self._surveyed.weights_hash is not None and not self.adapts:
            recipe = recipe.model_copy(update={"epochs": 0, "warmup_epochs": 0.0})
        return self._trial("baseline", self._spec.search.seed, recipe=recipe)

    def scratch(self, plan: PruningPlan, seed: int) -> TrialSpec:
        """As many epochs as the pruned network had in all: the baseline's and its own."""
        recipe = self._spec.baseline_recipe
        if self._surveyed.weights_hash is None or self.adapts:
            epochs = recipe.epochs + self._spec.recipe.epochs
            recipe = recipe.model_copy(update={"epochs": epochs})
        return self._trial("scratch", seed, recipe=recipe, **_of_plan(plan))

    def predictor(self, settings: PredictorSettings) -> TrialSpec:
        """Of the recipe only the number type matters to latency, and no seed does."""
        recipe = Recipe(precision=self._spec.recipe.precision)
        if settings == self._latency_targets.settings and self._spec.targets:
            recipe = Recipe(precision=self._spec.targets.latency.precision)
        how = settings.stated()
        return self._trial("predictor", 0, recipe=recipe, method_settings=how, device=self._device)

    def latency(self, plan: PruningPlan, label: str) -> TrialSpec:
        """Time a winner; where its target is a latency, as that says and beside the prediction."""
        targets, seed = self._latency_targets, self._spec.search.seed
        recipe: Recipe | None = None
        beside: dict[str, Any] = {}
        if self._targets.get(label) in self._spec.latency_targets:
            assert targets.settings is not None
            assert self._spec.targets is not None
            recipe = Recipe(precision=self._spec.targets.latency.precision)
            stated = targets.settings.stated()
            beside = {"predictor": targets.content, "method_settings": stated}
        return self._trial("latency", seed, recipe, device=self._device, **beside, **_of_plan(plan))

    def _trial(
        self, kind: Any, seed: int, recipe: Recipe | None = None, **fields: Any
    ) -> TrialSpec:
        spec, surveyed = self._spec, self._surveyed
        weights = surveyed.weights_hash if kind == "baseline" else self.weights
        return TrialSpec(
            kind=kind,
            model=spec.model,
            data=spec.data,
            data_hash=surveyed.data.data_hash,
            recipe=recipe or self.recipe or spec.recipe,
            layers=spec.layers,
            seed=seed,
            weights=weights if kind in {"baseline", "prune", "dense"} else None,
            **fields,
        )


def _proxy(trial: TrialSpec, images: int) -> TrialSpec:
    """Return the trial that judges a proposal without training, for one that would train it.

    Of the recipe it has what matters to it, so that another one finds the same trials.
    """
    recipe = Recipe(
        epochs=0,
        batch_size=trial.recipe.batch_size,
        precision=trial.recipe.precision,
        recalibration_images=trial.recipe.recalibration_images or RECALIBRATION_IMAGES,
    )
    changes = {"kind": "proxy", "recipe": recipe, "judge_images": images}
    return trial.model_copy(update=changes)


def _of_plan(plan: PruningPlan) -> dict[str, Any]:
    """Return what a trial that builds a plan's shape says of it."""
    unit = "stripes" if plan.policy == "stripes" else "filters"
    return {"plan": plan.to_json(), "unit": unit}
