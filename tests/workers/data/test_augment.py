import pytest
import torch
from torch import Tensor

from workers.data.augment import Augmentation, draw_moves, move


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    height, width = images.shape[-2:]
    return move(images, draw_moves([len(images)], (height, width), augmentation, generator))


def numbered(count: int, height: int = 16, width: int = 16) -> Tensor:
    """Images whose pixels are told apart by value, none of them black."""
    image = torch.arange(1, 1 + height * width).clamp(max=255).to(torch.uint8)
    return image.reshape(1, 1, height, width).expand(count, 2, -1, -1).contiguous()


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """``image`` moved by whole pixels, black where nothing was."""
    result = torch.zeros_like(image)
    height, width = image.shape[-2:]
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[..., y, x] = image[..., y - down, x - right]
    return result


def candidates(image: Tensor, *, mirrored: bool) -> list[Tensor]:
    found = [shifted(image, y, x) for y in range(-2, 3) for x in range(-2, 3)]
    return [candidate.flip(-1) for candidate in found] if mirrored else found


def test_none_leaves_the_images_alone() -> None:
    images = numbered(4)
    assert augment(images, "none", generator()) is images


def test_a_shift_moves_by_up_to_an_eighth_and_reaches_every_place() -> None:
    images = numbered(400)
    places = candidates(images[0], mirrored=False)
    found = [
        next(i for i, place in enumerate(places) if torch.equal(place, image))
        for image in augment(images, "shift", generator())
    ]
    assert set(found) == set(range(25))


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    images = numbered(200)
    straight = candidates(images[0], mirrored=False)
    mirrored = candidates(images[0], mirrored=True)
    result = augment(images, "shift_flip", generator())
    are_straight = [any(torch.equal(place, image) for place in straight) for image in result]
    are_mirrored = [any(torch.equal(place, image) for place in mirrored) for image in result]
    assert all(one != other for one, other in zip(are_straight, are_mirrored, strict=True))
    assert 70 < sum(are_mirrored) < 130


@pytest.mark.parametrize("augmentation", ["shift", "shift_flip"])
def test_shape_and_type_are_kept(augmentation: Augmentation) -> None:
    images = numbered(3, height=8, width=24)
    result = augment(images, augmentation, generator())
    assert result.shape == images.shape
    assert result.dtype == torch.uint8


def test_images_of_fewer_than_8_pixels_do_not_move() -> None:
    images = numbered(3, height=7, width=7)
    assert torch.equal(augment(images, "shift", generator()), images)


def test_an_epoch_is_drawn_as_its_batches_would_be_one_by_one() -> None:
    whole = draw_moves([3, 5, 2], (16, 24), "shift_flip", generator())
    draws = generator()
    one_by_one = [draw_moves([size], (16, 24), "shift_flip", draws) for size in (3, 5, 2)]
    assert torch.equal(whole, torch.cat(one_by_one))
    assert whole.amax(dim=0).tolist() <= [4, 6, 1]
