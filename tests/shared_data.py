"""Real data that lies beside the checkout on some machines; a test without it skips and says so."""

import os
from pathlib import Path

import pytest

JPEG_COPY = "data/cifar10-jpeg.zip"
RESNET20 = "checkpoints/resnet20-12fca82f.th"
RESNET56 = "checkpoints/resnet56-4bfd9763.th"

#: Normalisation of the published checkpoints.
PUBLISHED_MEAN, PUBLISHED_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def shared_file(name: str) -> Path:
    """Path of a shared file; skips the test where it is absent."""
    beside = Path(__file__).parents[2] / "shared"
    path = Path(os.environ.get("PRUNESWEEP_SHARED", beside)) / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set PRUNESWEEP_SHARED to the folder that holds {name}")
    return path
