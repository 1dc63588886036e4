"""Everything that determines a trial's result, as data: what identity is computed from."""

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)

if TYPE_CHECKING:
    from methods import CostTarget
else:
    CostTarget = Any  # reading a ledger does without torch

Share = Annotated[float, Field(ge=0.0, lt=1.0)]

_MANY: Final = 10**9  #: Images; more than any data set has, fewer than any counter holds.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000)]  #: 0: none.
ImageCount = Annotated[int, Field(ge=1, le=_MANY)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
PerChannel = Annotated[
    tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], Field(min_length=1, max_length=64)
]

TrialKind = Literal["baseline", "prune", "dense", "scratch", "latency", "predictor", "proxy"]

Unit = Literal["filters", "stripes"]

PolicyName = Literal["inside_blocks", "scatter", "coupled", "every_layer"]

RECALIBRATION_IMAGES = 1000  #: For new batch-norm statistics, where nobody says how many.

#: Left out of what is stored where it is ``filters``, so that the identity of such trials stays.
PRUNED_UNIT: Any = Field(default="filters", exclude_if=lambda unit: unit == "filters")

#: Of what settings mean. Left out of what is stored where it is 1, so that identities stay.
FIRST_REVISION: Any = Field(default=1, ge=1, exclude_if=lambda revision: revision == 1)


class Settings(BaseModel):
    """A frozen record in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def content_hash(value: Any) -> str:
    """Name JSON-able data by its content: 32 hexadecimal digits of SHA-256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ModelSettings(Settings):
    """Which network."""

    #: A zoo name, ``torchvision/NAME``, ``timm/NAME``, ``mynet.py:build``, ``package.module:build``
    name: str
    arguments: dict[str, Any] = {}  #: Keyword arguments for the callable.
    #: Content of the user's own code, filled in as a sweep begins; None: there is none.
    code: str | None = Field(default=None, exclude_if=lambda code: code is None)


class DataSettings(Settings):
    """Which images, and how they are split."""

    name: Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "image_folder"] = (
        "digits"
    )
    #: Folder of the data set; an image folder may be a zip file, also at an fsspec URL.
    path: str | None = None
    download: bool = False  #: Let torchvision fetch a missing data set.
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None  #: Edge in pixels; None: native.
    train_images: ImageCount | None = None  #: Use a class-balanced subset.
    test_images: ImageCount | None = None  #: Use a class-balanced subset.
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1  #: Carved from training.
    split_seed: Int64 = 0  #: Seed of the subset and of the validation split.
    mean: PerChannel | None = None  #: Per channel, of images in [0, 1]; None: measured.
    std: PerChannel | None = None  #: Per channel; None: measured.


#: What ``learning_rate: auto`` tries, by optimizer; highest first.
LEARNING_RATES = {
    "sgd": (0.1, 0.03, 0.01, 0.003, 0.001),
    "adamw": (0.01, 0.003, 0.001, 0.0003, 0.0001),
}


class Recipe(Settings):
    """How networks are trained; the same for every method of a comparison."""

    epochs: CountOrNone = 10  #: Whole budget of a trial, selection included.
    batch_size: Annotated[int, Field(ge=2, le=_MANY)] = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0.0, le=1e6)] = 0.01
    #: Rates that one is chosen from for all trials; none: it is ``learning_rate``.
    learning_rates: Annotated[
        tuple[Annotated[float, Field(gt=0.0, le=1e6)], ...], Field(max_length=20)
    ] = Field(default=(), exclude_if=lambda rates: not rates)
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0.0, le=1e6)] = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    #: Of ``step``, as shares of the epochs.
    milestones: Annotated[tuple[Share, ...], Field(max_length=1000)] = (0.5, 0.75)
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1  #: Factor at each milestone.
    warmup_epochs: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0
    augmentation: Literal["none", "shift", "shift_flip"] = "none"  #: By up to 1/8 of the edge.
    label_smoothing: Share = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    #: Training images by which batch-norm statistics are estimated again after shrinking.
    recalibration_images: Annotated[int, Field(ge=0, le=_MANY)] = RECALIBRATION_IMAGES

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_grid(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("learning_rate") == "auto":
            rates = LEARNING_RATES.get(given.get("optimizer", "sgd"), ())
            rest = {key: value for key, value in given.items() if key != "learning_rate"}
            return {"learning_rates": rates, **rest}
        return given

    def at(self, learning_rate: float) -> "Recipe":
        """Return the recipe with a rate that was chosen."""
        return self.model_copy(update={"learning_rate": learning_rate, "learning_rates": ()})

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Recipe":
        if self.nesterov and not self.momentum and self.optimizer == "sgd":
            raise ValueError("nesterov needs a momentum above 0; raise it, or leave nesterov out")
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Recipe":
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, longer than the {self.epochs} epochs; "
                "shorten it"
            )
        return self


class LayerSettings(Settings):
    """Which layers may lose filters; the same for every method of a comparison."""

    #: auto: settled as a sweep begins, so that its trials name the one that was taken.
    policy: PolicyName | Literal["auto"] = "inside_blocks"
    protect: tuple[str, ...] = ()  #: Patterns of layer names that keep all filters.
    protect_stem: bool = True  #: The first convolution keeps all filters.


def _cost_target(value: Any) -> Any:
    """Read a stored target; the type is a method's, and methods need torch."""
    if not isinstance(value, dict):
        return value
    from methods import CostTarget

    return TypeAdapter(CostTarget).validate_python(value)


class TrialSpec(Settings):
    """One trial: what is run, down to the ratios and the seed.

    ``weights`` names the starting weights by content; where they lie is not part of the identity.
    """

    kind: TrialKind
    model: ModelSettings
    data: DataSettings
    data_hash: str  #: Checksum of the images and of the split.
    recipe: Recipe
    layers: LayerSettings = LayerSettings()
    seed: int
    weights: str | None = None  #: Content hash of the starting weights; None: trained from scratch.
    method: str | None = None
    method_settings: dict[str, Any] = {}
    method_revision: int = FIRST_REVISION
    #: Content of the user's own code that the method comes from.
    method_code: str | None = Field(default=None, exclude_if=lambda code: code is None)
    schedule: dict[str, Any] = {}
    schedule_revision: int = FIRST_REVISION
    unit: Unit = PRUNED_UNIT  #: What the method prunes.
    target: Annotated[CostTarget | None, BeforeValidator(_cost_target)] = None
    ratios: dict[str, float] = {}  #: Share of filters or stripes removed, by group, in [0, 1).
    plan: dict[str, Any] | None = None  #: Shape to build, kinds ``scratch`` and ``latency``.
    device: str | None = None  #: What a latency is measured on; part of its identity.
    #: Validation images that a ``proxy`` is judged on; all of them when there are fewer.
    judge_images: ImageCount | None = Field(default=None, exclude_if=lambda count: count is None)
    #: Content hash of the latency predictor that the method trains against.
    predictor: str | None = Field(default=None, exclude_if=lambda name: name is None)
    #: The test split is read, once, at the end; not by trials of a search, which choose by others.
    reads_test: bool = Field(default=True, exclude_if=lambda reads: reads)

    @field_validator("layers")
    @classmethod
    def _policy_is_settled(cls, layers: LayerSettings) -> LayerSettings:
        if layers.policy == "auto":
            raise ValueError("policy is auto; a trial names the policy that a sweep has settled on")
        return layers

    @property
    def is_exclusive(self) -> bool:
        """Nothing else may run meanwhile, because time is what is measured."""
        return self.kind in {"latency", "predictor"}

    @property
    def uid(self) -> str:
        """Content hash of all that determines the result: asking twice finds the first."""
        location = {"data": {"path", "download"}}
        return content_hash(self.model_dump(mode="json", exclude=location))
