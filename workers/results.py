"""What a trial brings back: one flat, JSON-able record."""

from typing import Any, NotRequired, TypedDict


class LatencyRecord(TypedDict):
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


class TrialResult(TypedDict):
    """Result of one trial; accuracies in percent, times in seconds."""

    val_accuracy: float  #: After the last epoch, on the validation split: what search optimises.
    val_accuracy_best: float  #: Best epoch, on the validation split.
    val_accuracy_before: float  #: Of the shrunk network before any recovery (kind ``prune``).
    test_accuracy: float  #: After the last epoch; the test split is read once.
    val_loss: float
    test_loss: float
    macs: int
    params: int
    base_macs: int
    base_params: int
    macs_reduction: float  #: Share removed, in [0, 1).
    params_reduction: float
    masked_difference: float  #: Largest |masked - shrunk| logit, relative to the largest logit.
    epochs_select: int
    epochs_recover: int
    samples_seen: int
    seconds_select: float
    seconds_recover: float
    seconds_statistics: float  #: Cost of cached statistics this trial relied on, even when reused.
    seconds_total: float
    weights: str  #: Content hash of the final weights.
    plan: dict[str, Any] | None
    kept: dict[str, int]  #: Filters kept, by group.
    artifacts: dict[str, str]  #: Name -> path under the artifact store.
    base_weights: str | None
    data_hash: str
    recipe_hash: str
    policy_hash: str
    environment: dict[str, Any]  #: Package versions, git commit and dirtiness, device.
    latency: NotRequired[list[LatencyRecord]]  #: Kind ``latency`` only.
    shared_device: NotRequired[bool]  #: True when something else ran on the device meanwhile.
