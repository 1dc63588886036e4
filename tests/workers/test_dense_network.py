import pytest
import torch

from tracking.results import Result
from workers.data import describe
from workers.dense_network import DenseAccuracy, try_checkpoint
from workers.models import build_model
from workers.settings import DataSettings, ModelSettings

DATA = DataSettings(train_images=200, test_images=60, validation_fraction=0.2)
MODEL = ModelSettings(name="digits_net")


def found(accuracy: float, images: int, chance: float = 10.0) -> DenseAccuracy:
    return DenseAccuracy(accuracy=accuracy, chance=chance, images=images, split="test")


@pytest.mark.parametrize(
    ("accuracy", "images", "is_near"),
    [
        (0.0, 1000, True),
        (10.0, 1000, True),
        (11.5, 1000, True),  # the interval begins at 9.6 %
        (13.0, 1000, False),  # at 11.0 %
        (13.0, 100, True),
        (90.0, 1000, False),
        (100.0, 10, False),
    ],
)
def test_near_chance_is_where_the_interval_reaches_it(
    accuracy: float, images: int, is_near: bool
) -> None:
    assert found(accuracy, images).is_near_chance == is_near


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    assert found(70.0, 1000, chance=70.0).is_near_chance


def test_an_untrained_checkpoint_is_at_chance() -> None:
    torch.manual_seed(0)
    tried = try_checkpoint(MODEL, DATA, build_model(MODEL, 10, 1).state_dict())
    assert (tried.images, tried.split) == (describe(DATA).val_images, "validation")
    assert 10.0 <= tried.chance < 20.0
    assert tried.is_near_chance
    assert "the most frequent class alone gives" in tried.refusal


def test_results_from_before_say_nothing_of_chance() -> None:
    assert DenseAccuracy.of_result(Result(test_accuracy=10.0)) is None
    result = Result(test_accuracy=12.0, test_chance=10.0, test_images=50)
    assert DenseAccuracy.of_result(result) == found(12.0, 50)
