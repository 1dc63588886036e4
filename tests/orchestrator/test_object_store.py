"""A sweep whose images and artifacts are on an object store; only the ledger is a local file."""

import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.object_store import running_object_store
from tests.orchestrator.command_line import ended, facts, write_spec
from tracking.artifacts import ArtifactStore
from tracking.ledger.ledger import Ledger
from workers.networks.checkpoints import from_safetensors, weights_hash

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]


@pytest.fixture
def bucket() -> Iterator[str]:
    with running_object_store() as url:
        ArtifactStore(url).write_bytes("sets/digits.zip", some_digits())
        yield url


def some_digits() -> bytes:
    """Return a zip of forty images of each digit."""
    digits, buffer = load_digits(), BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for label in range(10):
            for at in np.flatnonzero(digits.target == label)[:40]:
                file = BytesIO()
                Image.fromarray((digits.images[at] * 15).astype(np.uint8)).save(file, "png")
                archive.writestr(f"{label}/{at}.png", file.getvalue())
    return buffer.getvalue()


def test_images_come_from_it_and_artifacts_go_there(tmp_path: Path, bucket: str) -> None:
    spec = write_spec(
        tmp_path,
        data={"name": "image_folder", "path": f"{bucket}/sets/digits.zip"},
        arms=["taylor"],
        recipe={"epochs": 2, "batch_size": 64},
        recovery={"checkpoint_epochs": 1},
        tracking={"artifacts": f"{bucket}/sweeps", "mlflow": "off"},
    )
    code, _, err = ended(tmp_path, "run", spec)
    assert code == 0, err
    store = ArtifactStore(f"{bucket}/sweeps")
    with Ledger.open(f"sqlite:///{tmp_path}/prunesweep-data/ledger.db", create=False) as ledger:
        sweep = ledger.sweep("tiny")
        trials = ledger.trials(sweep.id)
    assert {trial.state for trial in trials} == {"completed"}
    for path in sweep.artifacts.values():
        assert store.exists(path)
    for result in (trial.result or {} for trial in trials):
        if weights := (result.get("artifacts") or {}).get("weights"):
            assert weights_hash(from_safetensors(store.read_bytes(weights))) == result["weights"]
    assert store.files("statistics")  # of Taylor, for all machines
    assert not [t for t in trials if store.files(f"checkpoints/{t.uid}")]
    cache = tmp_path / "prunesweep-data" / "cache"
    assert len([file for file in cache.glob("fetched-*") if not file.suffix]) == 1
    assert not (tmp_path / "prunesweep-data" / "artifacts").exists()

    where = ("--store", tmp_path / "prunesweep-data")
    facts("export", "tiny", "best:taylor:macs-50%", "--to", tmp_path / "pruned", *where)
    assert (tmp_path / "pruned").is_dir()
