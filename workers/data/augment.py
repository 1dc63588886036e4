"""Random shifts and flips of a whole batch at once, on the device it lies on."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Literal["none", "shift", "shift_flip"]


def draw_moves(
    sizes: Sequence[int],
    edges: tuple[int, int],
    augmentation: Augmentation,
    generator: torch.Generator,
) -> Tensor:
    """Draw how every image of an epoch moves, batch by batch, so that one transfer brings it all.

    Args:
        sizes: Images of each batch.
        edges: Height and width of an image.
        augmentation: ``shift`` moves by up to 1/8 of the edge, ``shift_flip`` also mirrors left to
            right, each image with probability one half.
        generator: On the CPU whatever the device, so that every device sees the same images.

    Returns:
        int64 ``[N, 3]`` on the CPU: first row and column of the padded image, and 1 where it is
        mirrored; ``[N, 0]`` where nothing moves.
    """
    if augmentation == "none":
        return torch.empty(sum(sizes), 0, dtype=torch.int64)
    ends = [2 * (edge // 8) + 1 for edge in edges]
    if augmentation == "shift_flip":
        ends.append(2)
    drawn = [
        torch.cat([torch.randint(0, end, (size, 1), generator=generator) for end in ends], dim=1)
        for size in sizes
    ]
    return F.pad(torch.cat(drawn), (0, 3 - len(ends)))


def move(images: Tensor, moves: Tensor) -> Tensor:
    """Shift each image, filling with black, and mirror it if that was drawn.

    Args:
        images: uint8, ``[N, C, H, W]``, on any device.
        moves: Of these images, as :func:`draw_moves` gives them, on the same device.

    Returns:
        Images of the same shape, type and device.
    """
    if not moves.shape[1]:
        return images
    count, _, height, width = images.shape
    top, left, mirrored = torch.split(moves, 1, dim=1)  # [N, 1] each
    rows = top + torch.arange(height, device=images.device)  # [N, H], in the padded image
    columns = left + torch.arange(width, device=images.device)  # [N, W]
    columns = torch.where(mirrored.bool(), columns.flip(1), columns)
    pad_y, pad_x = height // 8, width // 8
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y))
    where = torch.arange(count, device=images.device)[:, None, None]
    picked = padded[where, :, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return picked.permute(0, 3, 1, 2)
