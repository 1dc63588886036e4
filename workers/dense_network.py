"""What a dense network is worth before anything is spent on it: its accuracy, beside chance."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from scipy.special import betaincinv
from torch import Tensor

from tracking.results import Result
from workers.data import load
from workers.models import build_model
from workers.networks.checkpoints import fit
from workers.settings import DataSettings, ModelSettings
from workers.training.measure import evaluate

IMAGES: Final = 1000  #: Of the validation split that a checkpoint is tried on, at most.
TAIL: Final = 0.025  #: On either side of the 95 % interval.


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseAccuracy:
    """How many images a dense network gets right, and how many a constant answer would."""

    accuracy: float  #: Percent.
    chance: float  #: Percent: the share of the most frequent class.
    images: int
    split: str

    @classmethod
    def of_result(cls, result: Result) -> Self | None:
        """Read a trial's result; None where it says nothing of chance, as old ones do not."""
        accuracy, chance, images = result.test_accuracy, result.test_chance, result.test_images
        if accuracy is None or chance is None or images is None:
            return None
        return cls(accuracy=accuracy, chance=chance, images=images, split="test")

    @property
    def is_near_chance(self) -> bool:
        """The 95 % interval of the accuracy (Clopper and Pearson) reaches down to chance."""
        right = round(self.accuracy / 100 * self.images)
        low = betaincinv(right, self.images - right + 1, TAIL) if right else 0.0
        return bool(100 * low <= self.chance)

    def __str__(self) -> str:
        return (
            f"the dense network gets {self.accuracy:.1f} % of {self.images:,} {self.split} images "
            f"right, where the most frequent class alone gives {self.chance:.1f} %"
        )

    @property
    def refusal(self) -> str:
        """Why nothing is to be compared, and the ways out."""
        said = str(self)
        return (
            f"{said[0].upper()}{said[1:]}: that cannot be told from chance, and nothing would be "
            "compared. Train the baseline longer, or see that checkpoint, classes and "
            "data.mean belong together; to go on all the same, set baseline.allow_chance: true."
        )


def try_checkpoint(
    model: ModelSettings, data: DataSettings, weights: Mapping[str, Tensor]
) -> DenseAccuracy:
    """Evaluate a checkpoint on the first validation images, on this machine's CPU.

    Raises:
        DataError: The images cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="prunesweep-") as folder:
        images = load(data, "cpu", folder, memory_limit=0)  # only what is looked at is decoded
        network = build_model(model, images.info.num_classes, images.info.channels)
        fit(network, weights)
        found = evaluate(network, images.eval_batches(images.val.first(IMAGES), 64))
    return DenseAccuracy(
        accuracy=found.accuracy, chance=found.chance, images=found.images, split="validation"
    )
