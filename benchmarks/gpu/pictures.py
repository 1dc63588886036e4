"""Pictures that are drawn here, so that a stage needs no data: ten classes, hard enough to err."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from workers.settings import DataSettings

CLASSES, EDGE = 10, 16  #: Pixels of an edge.
NOISE = 0.9  #: Standard deviation, beside patterns of 1.


def draw_pictures(folder: Path, *, train: int, test: int) -> DataSettings:
    """Draw an image folder, unless it is there: every class is a coarse pattern, under noise.

    Args:
        folder: Where; named by what is drawn.
        train: Pictures to train on, a multiple of the classes.
        test: Pictures to test on, likewise.
    """
    root = folder / f"pictures-{train}-{test}"
    done = root / "done"
    if not done.exists():
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(CLASSES, 3, 4, 4, generator=generator)
        patterns = F.interpolate(coarse, size=(EDGE, EDGE), mode="bilinear")
        for split, count in (("train", train), ("test", test)):
            for name, pattern in enumerate(patterns):
                place = root / "images" / split / f"class{name}"
                place.mkdir(parents=True, exist_ok=True)
                noise = torch.randn(count // CLASSES, 3, EDGE, EDGE, generator=generator)
                values = (128 + 40 * (pattern + NOISE * noise)).clamp(0, 255).byte()
                for number, pixels in enumerate(values.permute(0, 2, 3, 1).numpy()):
                    Image.fromarray(np.ascontiguousarray(pixels)).save(place / f"{number:04}.png")
        done.touch()
    return DataSettings(
        name="image_folder", path=str(root / "images"), mean=(0.5,) * 3, std=(0.25,) * 3
    )
