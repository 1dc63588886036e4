from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.training.measure import (
    EmptySplitError,
    evaluate,
    evaluate_each,
    recalibrate_batch_norm,
)


class Says(nn.Module):
    """Answers with the class written in the first pixel."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot(images[:, 0, 0, 0].long(), self.classes).float()


def batch(answers: list[int], labels: list[int]) -> tuple[Tensor, Tensor]:
    images = torch.tensor(answers).float().reshape(-1, 1, 1, 1)
    return images, torch.tensor(labels)


class TestEvaluate:
    def test_a_short_last_batch_weighs_what_it_holds(self) -> None:
        batches = [batch([1, 1, 1], [1, 1, 1]), batch([0], [1])]
        found = evaluate(Says(), batches)
        assert found.accuracy == 75.0  # the mean of the batches' means would be 50
        assert found.images == 4

    def test_loss_is_the_mean_over_images(self) -> None:
        images = [batch([1, 1, 1], [1, 1, 1]), batch([0], [1])]
        everything = batch([1, 1, 1, 0], [1, 1, 1, 1])
        expected = F.cross_entropy(Says()(everything[0]), everything[1])
        assert evaluate(Says(), images).loss == pytest.approx(float(expected), rel=1e-6)

    def test_leaves_modes_and_statistics_as_found(self) -> None:
        network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten())
        network[1].eval()
        before = network[0].running_mean.clone()  # type: ignore[operator]
        evaluate(network, [batch([1, 0], [0, 0])])
        assert network[0].training
        assert not network[1].training
        assert torch.equal(network[0].running_mean, before)  # type: ignore[arg-type]

    def test_says_which_images_were_right_in_their_order(self) -> None:
        found, correct = evaluate_each(Says(), [batch([1, 0, 1], [1, 1, 1]), batch([0], [0])])
        assert correct.tolist() == [True, False, True, True]
        assert found.accuracy == 75.0

    def test_refuses_an_empty_split(self) -> None:
        with pytest.raises(EmptySplitError, match="no image to evaluate"):
            evaluate(Says(), [])


class TestRecalibrateBatchNorm:
    @staticmethod
    def batches(images: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.split(images, size):
            yield part, torch.zeros(len(part), dtype=torch.long)

    def test_statistics_become_those_of_the_images(self) -> None:
        images = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
        norm = nn.BatchNorm2d(3)
        norm.running_mean.fill_(100.0)  # type: ignore[union-attr]
        seen = recalibrate_batch_norm(nn.Sequential(norm), self.batches(images, 16))
        assert seen == 64
        torch.testing.assert_close(norm.running_mean, images.mean(dim=(0, 2, 3)))
        parts = [part.var(dim=(0, 2, 3)) for part in torch.split(images, 16)]
        torch.testing.assert_close(norm.running_var, torch.stack(parts).mean(dim=0))

    def test_a_short_last_batch_weighs_what_it_holds(self) -> None:
        images = torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 5
        images[16:] += 9
        norm = nn.BatchNorm2d(3)
        assert recalibrate_batch_norm(nn.Sequential(norm), self.batches(images, 16)) == 20
        torch.testing.assert_close(norm.running_mean, images.mean(dim=(0, 2, 3)))

    def test_a_last_image_alone_is_left_out(self) -> None:
        norm = nn.BatchNorm2d(3)
        assert recalibrate_batch_norm(norm, self.batches(torch.randn(5, 3, 1, 1), 4)) == 4

    def test_momentum_and_modes_come_back(self) -> None:
        network = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), nn.Dropout()).eval()
        recalibrate_batch_norm(network, self.batches(torch.randn(4, 1, 2, 2), 2))
        assert network[0].momentum == 0.3
        assert not any(module.training for module in network.modules())

    def test_a_network_without_batch_norm_is_not_run(self) -> None:
        assert recalibrate_batch_norm(nn.Flatten(), self.batches(torch.randn(4, 1, 2, 2), 2)) == 0

    def test_refuses_no_images(self) -> None:
        with pytest.raises(EmptySplitError, match="recalibrate"):
            recalibrate_batch_norm(nn.Sequential(nn.BatchNorm2d(1)), [])
