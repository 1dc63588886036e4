"""Random shifts and flips of a whole batch at once, on the device it lies on."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Literal["none", "shift", "shift_flip"]


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Shift each image by up to 1/8 of its edge, filling with black, and perhaps mirror it.

    Args:
        images: uint8, ``[N, C, H, W]``, on any device.
        augmentation: ``shift`` moves, ``shift_flip`` also mirrors left to right, each image with
            probability one half.
        generator: On the CPU whatever the device, so that every device sees the same images.

    Returns:
        Images of the same shape, type and device.
    """
    if augmentation == "none":
        return images
    count, _, height, width = images.shape
    pad_y, pad_x = height // 8, width // 8
    top = torch.randint(0, 2 * pad_y + 1, (count, 1), generator=generator)
    left = torch.randint(0, 2 * pad_x + 1, (count, 1), generator=generator)
    rows = top + torch.arange(height)  # [N, H], in the padded image
    columns = left + torch.arange(width)  # [N, W]
    if augmentation == "shift_flip":
        mirrored = torch.randint(0, 2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y))
    where = torch.arange(count, device=images.device)[:, None, None]
    rows, columns = rows.to(images.device), columns.to(images.device)
    picked = padded[where, :, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return picked.permute(0, 3, 1, 2)
