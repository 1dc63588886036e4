"""What a trial brings back: a record, stored as one flat object of JSON.

`tracking.results` reads it, field for field.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

#: How a trial tells of an epoch while it runs: the step, from 1, and values by name.
Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """Is stored flat: the fields of its parts beside its own; a part that is None leaves none."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it, flat, as JSON-able data."""
        flat: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, _Written):
                flat |= value.to_json()
            elif field.name not in _PARTS:
                flat[field.name] = value
        return flat


_PARTS = frozenset({"shape", "test"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyRecord:
    """Forward time of one network on one device, in milliseconds per batch."""

    batch_size: int
    median_ms: float
    p90_ms: float
    base_median_ms: float  #: The dense network, interleaved in the same process.
    base_p90_ms: float
    speed_up: float  #: base_median_ms / median_ms
    repetitions: int  #: Of each network.
    dtype: str  #: Of weights and images.
    device_name: str
    threads: int  #: CPU threads torch may use.
    runtime: str = "eager"  #: What ran the networks.
    predicted_speed_up: float | None = None  #: What the latency model of a target expected.


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeResult(_Written):
    """What every trial says of the network it ended with, and of what it was made from."""

    macs: int  #: Counted on the shrunk network: conv and linear layers, one image.
    params: int
    base_macs: int  #: Of the dense network.
    base_params: int
    macs_reduction: float  #: Share removed, in [0, 1).
    params_reduction: float
    plan: dict[str, Any] | None  #: None where nothing was removed.
    kept: dict[str, int]  #: Filters kept, by group.
    input_shape: list[int]  #: (C, H, W) of one image.
    num_classes: int
    classes: list[str]  #: Names, in the order of the logits.
    class_images: list[list[int]]  #: Training, validation and test images of each class.
    mean: list[float]  #: Per channel, of images in [0, 1]: how the network's input is normalised.
    std: list[float]
    base_weights: str | None  #: Content hash of the starting weights.
    data_hash: str
    recipe_hash: str
    policy_hash: str
    environment: dict[str, Any]  #: Package versions, git commit and dirtiness, device.
    seconds_total: float  #: From start to result, loading and measuring included.


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultOnTest(_Written):
    """What the test split says, read once after the last epoch."""

    test_accuracy: float  #: Percent.
    test_loss: float
    test_images: int
    test_chance: float  #: Percent: the share of the most frequent class.
    test_correct: str  #: Which were got right, in test order; read by `tracking.answers`.


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult(_Written):
    """Result of a trial that trains; accuracies in percent, times in seconds."""

    shape: ShapeResult
    val_accuracy: float  #: After the last epoch, on the validation split: what search optimises.
    val_accuracy_best: float  #: Best epoch of recovery, on the validation split.
    val_accuracy_before: float  #: Of the network recovery starts from: cut and recalibrated.
    val_loss: float
    test: ResultOnTest | None  #: None in trials of a search.
    masked_difference: float  #: Largest |masked - shrunk| logit, relative to the largest logit.
    epochs_select: float  #: Statistics included; a call that ended early counts its share.
    epochs_recover: float
    samples_seen: int  #: Training images, each time one was used, by whatever act.
    seconds_select: float  #: Training and scoring; measuring and statistics apart.
    seconds_recover: float
    seconds_statistics: float  #: Cost of statistics this trial relied on, even when reused.
    statistics_computed: int  #: Statistics this trial computed itself.
    statistics_reused: int  #: Statistics taken from the machine's cache.
    notes: dict[str, float]  #: What the method recorded of its choice, by name.
    weights: str  #: Content hash of the final weights.
    artifacts: dict[str, str]  #: Name -> path under the artifact store.


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyResult(_Written):
    """Result of a trial of kind ``proxy``: shrunk, re-calibrated and judged, never trained."""

    shape: ShapeResult
    val_accuracy: float  #: On the first validation images: what search optimises.
    val_loss: float
    val_images: int
    masked_difference: float  #: Largest |masked - shrunk| logit, relative to the largest logit.
    samples_seen: int  #: Training images, for statistics and re-calibration.
    seconds_select: float
    seconds_statistics: float  #: Cost of statistics this trial relied on, even when reused.
    statistics_computed: int
    statistics_reused: int
    notes: dict[str, float]  #: What the method recorded of its choice, by name.


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyResult(_Written):
    """Result of a trial of kind ``latency``: nothing is trained."""

    shape: ShapeResult
    latency: list[LatencyRecord]  #: By batch size.
    shared_device: bool  #: True when something else may have run on the device meanwhile.

    def to_json(self) -> dict[str, Any]:
        """Return all of it, flat, as JSON-able data."""
        return {**_Written.to_json(self), "latency": [asdict(record) for record in self.latency]}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorResult(_Written):
    """Result of a trial of kind ``predictor``: networks are timed, and latency is learned."""

    shape: ShapeResult
    predictor: str  #: Content hash, by which trials name it.
    predictor_key: dict[str, str]  #: What it holds for: network, device, batch, versions ...
    predictor_report: dict[str, Any]  #: A ``methods.structure.latency_predictor.PredictorReport``.
    notes: dict[str, float]  #: The report's numbers.
    shared_device: bool  #: True when something else may have run on the device meanwhile.
    artifacts: dict[str, str]  #: Name -> path under the artifact store.
