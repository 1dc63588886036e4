"""The specification of a sweep: what is compared, at which cost, with which effort.

The same schema serves YAML files (`orchestrator.specification.loading`) and driver scripts.
Reading a stored specification asks nothing of the machine it is read on; ``context=CHECK`` adds
what must hold where a sweep starts: methods are registered, files are there, environment variables
are set; paths become absolute.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

import methods
from methods.errors import nearest
from orchestrator.specification.arms import ArmSettings, Name, check_plain, shorthand
from orchestrator.specification.knobs import without_knobs
from orchestrator.specification.settings import (
    RecoverySettings,
    ResourceSettings,
    TrackingSettings,
    check_places,
    checking,
    checking_here,
    has_password,
)
from orchestrator.specification.targets import Reductions, TargetSettings
from tracking.matrix import COSTS, FRONT_CONTROLS
from tracking.places import CONTROLS, target_label
from workers.settings import (
    Count,
    DataSettings,
    ImageCount,
    LayerSettings,
    ModelSettings,
    Recipe,
    Settings,
    Share,
    content_hash,
)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _published(model: ModelSettings | None) -> str:
    """Return the file of the weights published for a network, if it is on this machine."""
    from workers.models import published_weights

    if model is None:
        raise ValueError("stands for the weights published for the model, which is to be named")
    return str(published_weights(model.name))


_PRETRAINED: Final = "pretrained"  #: In place of a checkpoint's path.
ALLOW_CHANCE: Final = "allow_chance"  #: Key of ``baseline`` that is not one of the recipe.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _of_recipe(baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``baseline`` says of the recipe."""
    return {key: value for key, value in baseline.items() if key != ALLOW_CHANCE}


class StoppingSettings(Settings):
    """Whether trials of a search end early, by their validation accuracy after each epoch."""

    rule: Literal["none", "asha", "median"] = "none"  #: None: all run to their end.
    min_epochs: Count = 1  #: No trial is stopped before; ASHA's first rung.
    #: ASHA lets one in so many go on.
    reduction_factor: Annotated[int, Field(ge=2, le=1_000_000)] = 3
    min_trials: Count = 5  #: Trials to complete before the median counts.


class SearchSettings(Settings):
    """How pruning ratios are looked for, per arm and target."""

    sampler: Literal["tpe", "random", "nsga2", "cmaes", "qmc", "gp"] = "tpe"
    trials: Count = 16  #: Per arm and target; 1: uniform ratios, no search.
    ratios_per: Literal["group", "stage"] = "group"  #: What shares one ratio.
    min_ratio: Share = 0.0  #: Smallest share of filters removed from a group.
    max_ratio: Share = 0.9  #: Largest share of filters removed from a group.
    limits: dict[str, tuple[Share, Share]] = Field(
        default={}
    )  #: Smallest and largest share, by group pattern.
    round_to: Count = 1  #: Kept filters are a multiple of this.
    tolerance: Annotated[float, Field(gt=0.0, le=0.2)] = 0.01  #: Allowed distance from the target.
    window: Count = 4  #: Proposals made ahead of results, at most.
    seed: Seed = 0  #: Seed of the sampler and of the search trials.
    #: Judge proposals without training, where the method does not train to choose.
    proxy: bool = True
    #: Proposals that are trained after that, uniform ratios among them.
    finalists: Annotated[int, Field(ge=1, le=1000)] = 4
    judge_images: ImageCount = 1000  #: Validation images, if there are as many.
    #: Costs an accuracy drop is searched at, one after the other, each halving what is left.
    costs: Annotated[int, Field(ge=1, le=20)] = Field(
        default=COSTS, exclude_if=lambda count: count == COSTS
    )
    stopping: StoppingSettings = Field(
        default=StoppingSettings(), exclude_if=lambda how: how.rule == "none"
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_ratio > self.max_ratio:
            raise ValueError(
                f"min_ratio {self.min_ratio} is above max_ratio {self.max_ratio}; swap them"
            )
        for pattern, (low, high) in self.limits.items():
            if low > high:
                raise ValueError(f"limits of {pattern!r} are [{low}, {high}]; the smaller is first")
        return self


class ControlSettings(Settings):
    """What is there to be beaten; each can be switched off by name."""

    dense: bool = True  #: The unpruned network, trained for the same budget.
    random: bool = True  #: Random filters, uniform ratios.
    uniform_l1: bool = True  #: L1 norm, uniform ratios.
    scratch: bool = True  #: The winning shape, trained from scratch.
    #: Where those with ratios sit on a front; none: at 25, 50 and 75 % where the limits allow.
    macs_reduction: Reductions = Field(default=(), exclude_if=lambda shares: not shares)

    @field_validator("macs_reduction")
    @classmethod
    def _differ(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if len({target_label("macs", share) for share in shares}) < len(shares):
            raise ValueError("names the same share twice; take one out")
        return shares


class SweepSpec(Settings):
    """A whole sweep."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: Name  #: Unique in the ledger.
    model: Annotated[ModelSettings, shorthand("model")]
    checkpoint: str | None = None  #: Dense weights; None: the baseline is trained once.
    data: Annotated[DataSettings, shorthand("data")] = DataSettings()
    #: At least one.
    arms: Annotated[tuple[Annotated[ArmSettings, shorthand("arms")], ...], Field(max_length=1000)]
    targets: TargetSettings | None = None  #: None: search the front of accuracy and MACs.
    layers: LayerSettings = LayerSettings()
    search: SearchSettings = SearchSettings()
    recipe: Recipe = Recipe()
    #: Fields of the recipe that differ where the dense baseline is trained; and allow_chance.
    baseline: dict[str, Any] = Field(default={})
    #: Of re-runs and controls; two or more.
    seeds: Annotated[tuple[Seed, ...], Field(max_length=1000)] = (1, 2, 3)
    #: Beyond these, of arms and controls that are to be told from others, by name.
    more_seeds: dict[str, Annotated[tuple[Seed, ...], Field(max_length=1000)]] = Field(
        default={}, exclude_if=lambda more: not more
    )
    controls: ControlSettings = ControlSettings()
    resources: ResourceSettings = ResourceSettings()
    recovery: RecoverySettings = RecoverySettings()
    tracking: TrackingSettings = TrackingSettings()

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, model: ModelSettings, info: ValidationInfo) -> ModelSettings:
        if checking(info):
            check_plain(model.arguments)
        if model.code is not None and ":" not in model.name:
            raise ValueError(
                "code is filled in as a sweep begins, for code of your own; leave it out"
            )
        if checking(info) and ":" not in model.name:
            from workers.models import TIMM, ZOO, check_name, list_models

            if model.name.startswith(TIMM):
                check_name(model.name)
            elif model.name not in ZOO and model.name not in (known := list_models()):
                raise ValueError(f"{model.name!r} is unknown; {nearest(model.name, known)}")
        return model

    @field_validator("checkpoint")
    @classmethod
    def _checkpoint_exists(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is not None and "://" in path:
            if has_password(path):
                raise ValueError("has a password in it, which would be stored; take it out")
            return path
        if path is None or not checking_here(info):
            return path
        if path == _PRETRAINED:
            return _published(info.data.get("model"))
        if not os.path.isfile(_absolute(path)):
            raise ValueError(f"there is no file {path!r}, looked for from {Path.cwd()}")
        return _absolute(path)

    @field_validator("data")
    @classmethod
    def _images_exist(cls, data: DataSettings, info: ValidationInfo) -> DataSettings:
        if data.name != "digits" and data.path is None:
            raise ValueError(f"{data.name} needs a path, the folder or zip file that holds it")
        if data.path is not None and "://" in data.path:
            if has_password(data.path):
                raise ValueError("path has a password in it, which would be stored; take it out")
            if data.name != "image_folder":
                raise ValueError(
                    f"path is an address, and {data.name} needs a folder; only an image_folder may "
                    "be a zip file at an address"
                )
            return data
        if data.path is None or not checking_here(info):
            return data
        path = _absolute(data.path)
        if not data.download and not os.path.exists(path):
            raise ValueError(f"there is no path {data.path!r}, looked for from {Path.cwd()}")
        return data.model_copy(update={"path": path})

    @field_validator("tracking")
    @classmethod
    def _places_can_be_written(
        cls, tracking: TrackingSettings, info: ValidationInfo
    ) -> TrackingSettings:
        if checking_here(info):
            check_places(tracking)
        return tracking

    @field_validator("arms")
    @classmethod
    def _arm_names_differ(cls, arms: tuple[ArmSettings, ...]) -> tuple[ArmSettings, ...]:
        if not arms:
            raise ValueError("is empty; name at least one method, as in [l1]")
        names = [arm.name for arm in arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two arms are named {twice[0]!r}; give one of them another 'name'")
        return arms

    @field_validator("baseline")
    @classmethod
    def _baseline_is_a_recipe(cls, changes: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        recipe = info.data.get("recipe", Recipe())
        strict = checking(info) or None
        Recipe.model_validate({**recipe.model_dump(), **_of_recipe(changes)}, strict=strict)
        if not isinstance(changes.get(ALLOW_CHANCE, False), bool):
            raise ValueError(f"{ALLOW_CHANCE} is {changes[ALLOW_CHANCE]!r}; say true or false")
        return changes

    @field_validator("seeds")
    @classmethod
    def _seeds_are_fresh(cls, seeds: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len(seeds) < 2:
            raise ValueError("needs two or more; one run says nothing about its spread")
        if len(set(seeds)) < len(seeds):
            raise ValueError("names a seed twice; every re-run needs its own")
        search = info.data.get("search")
        if search is not None and search.seed in seeds:
            raise ValueError(
                f"has {search.seed}, the seed of the search (search.seed); re-runs need fresh ones"
            )
        return seeds

    @field_validator("more_seeds")
    @classmethod
    def _more_seeds_are_of_arms(
        cls, more: dict[str, tuple[int, ...]], info: ValidationInfo
    ) -> dict[str, tuple[int, ...]]:
        known = [*(arm.name for arm in info.data.get("arms", ())), *CONTROLS]
        for name, seeds in more.items():
            if "arms" in info.data and name not in known:
                raise ValueError(f"names {name!r}, no arm or control; {nearest(name, known)}")
            search = info.data.get("search")
            if search is not None and search.seed in seeds:
                raise ValueError(
                    f"gives {name!r} {search.seed}, the seed of the search (search.seed); re-runs "
                    "need fresh ones"
                )
        return more

    @model_validator(mode="after")
    def _arms_are_no_controls(self, info: ValidationInfo) -> Self:
        for arm in self.arms:
            if checking(info) and arm.name in CONTROLS and getattr(self.controls, arm.name):
                raise ValueError(
                    f"an arm is named {arm.name!r}, as a control is, and commands could not tell "
                    f"them apart; give it another 'name', or switch controls.{arm.name} off"
                )
        return self

    @model_validator(mode="after")
    def _baseline_has_a_rate(self) -> Self:
        trains = self.checkpoint is None or self.adapts or self.controls.scratch
        if self.recipe.learning_rates and trains and "learning_rate" not in self.baseline:
            raise ValueError(
                "recipe.learning_rate is chosen for trials that start from the dense network; name "
                "the one that network is trained with: baseline.learning_rate"
            )
        if _of_recipe(self.baseline).get("learning_rate") == "auto":
            raise ValueError("baseline.learning_rate cannot be auto; name a number")
        return self

    @model_validator(mode="after")
    def _controls_sit_at_targets(self) -> Self:
        if self.targets is not None and self.controls.macs_reduction:
            raise ValueError(
                "controls.macs_reduction is for a front; controls sit at the targets, so leave it "
                "out, or leave targets out"
            )
        return self

    @model_validator(mode="after")
    def _latencies_can_be_met(self, info: ValidationInfo) -> Self:
        """Refuse arms whose networks a latency model of narrowed layers says nothing of."""
        if not self.latency_targets or not checking(info):
            return self
        for arm in self.arms:
            if arm.allocation == "method":
                raise ValueError(
                    f"the arm {arm.name!r} chooses its own ratios, and is given no latency to do "
                    "it by; leave its allocation out, or take latency_reduction out"
                )
            if arm.unit != "filters":
                raise ValueError(
                    f"the arm {arm.name!r} prunes {arm.unit}, and latency models know filters; "
                    "take the arm, or latency_reduction, out"
                )
        return self

    @model_validator(mode="after")
    def _drops_have_something_to_drop_from(self) -> Self:
        if self.targets is not None and self.targets.accuracy_drop and not self.controls.dense:
            raise ValueError(
                "targets.accuracy_drop is held against the dense network trained alike; leave "
                "controls.dense on"
            )
        return self

    @model_validator(mode="after")
    def _front_can_be_searched(self) -> Self:
        if self.targets is None and self.search.trials == 1:
            raise ValueError("a front needs more than search.trials = 1; raise it, or name targets")
        if self.targets is None and self.search.sampler == "cmaes":
            raise ValueError("cmaes has one objective and cannot search a front; use tpe or nsga2")
        return self

    @model_validator(mode="after")
    def _knobs_can_be_searched(self) -> Self:
        if self.search.trials == 1:
            for arm in self.arms:
                if arm.knobs:
                    raise ValueError(
                        f"the arm {arm.name!r} has {', '.join(arm.knobs)} to search, and "
                        "search.trials is 1; raise it, or give the setting one value"
                    )
        return self

    @model_validator(mode="after")
    def _costs_are_settled(self, info: ValidationInfo) -> Self:
        if checking(info):
            for arm in self.arms:
                method = methods.create(arm.method, without_knobs(arm.settings))
                if method.sets_cost:
                    self._check_own_cost(arm)
                elif arm.allocation == "method" and self.targets is None:
                    raise ValueError(
                        f"the arm {arm.name!r} chooses its own ratios and needs a cost to meet; "
                        "name targets, or leave its allocation out"
                    )
        return self

    def _check_own_cost(self, arm: ArmSettings) -> None:
        """Refuse targets and ratios where the cost comes of the method's settings."""
        if self.targets is not None:
            raise ValueError(
                f"the arm {arm.name!r} has settings that say what goes, so it cannot meet a "
                "target; change its mode, or leave targets out to search the whole front"
            )
        if arm.allocation != "method" or not arm.knobs:
            raise ValueError(
                f"the arm {arm.name!r} has settings that say what goes; give it allocation: method "
                "and one of these settings a range, as in {alpha: {low: 1e-6, high: 1e-4}}"
            )

    @property
    def cost_targets(self) -> "tuple[methods.CostTarget, ...]":
        """The costs to meet, MACs first; none: a drop is named, or the front is searched."""
        return () if self.targets is None else self.targets.points

    @property
    def latency_targets(self) -> "tuple[methods.CostTarget, ...]":
        """The latencies to meet."""
        return () if self.targets is None else self.targets.latencies

    @property
    def control_targets(self) -> "tuple[methods.CostTarget, ...]":
        """Where controls with ratios sit: at the costs to meet, or at some of the front.

        None for a drop: these sit where its answer does.
        """
        shares = self.controls.macs_reduction or FRONT_CONTROLS
        is_front = self.targets is None
        return TargetSettings(macs_reduction=shares).points if is_front else self.cost_targets

    @property
    def baseline_recipe(self) -> Recipe:
        """The recipe the dense baseline is trained with."""
        recipe = self.recipe.at(self.recipe.learning_rate)
        return Recipe.model_validate({**recipe.model_dump(), **_of_recipe(self.baseline)})

    @property
    def adapts(self) -> bool:
        """The checkpoint is trained on the data before anything is compared."""
        return self.checkpoint is not None and bool(self.baseline.get("epochs"))

    @property
    def allows_chance(self) -> bool:
        """The sweep goes on with a dense network that knows no more than chance."""
        return bool(self.baseline.get(ALLOW_CHANCE))

    @property
    def content(self) -> dict[str, Any]:
        """What determines results: all but the name, machines, records and where files lie.

        Of the checkpoint it has the file's name; trials are identified by the weights in it.
        """
        content = self.model_dump(
            mode="json", exclude={"name", "resources", "recovery", "tracking"}
        )
        for key in ("path", "download"):
            del content["data"][key]
        content["checkpoint"] = self.checkpoint and Path(self.checkpoint).name
        return content

    @property
    def spec_hash(self) -> str:
        """Name of the content: 32 hexadecimal digits."""
        return content_hash(self.content)
