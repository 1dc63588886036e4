"""What a machine says of itself before it is given trials: images, versions, room."""

import shutil
import time
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import torch

from tracking.artifacts import ArtifactStore
from workers.node.environment import describe_environment
from workers.node.node import Node
from workers.settings import DataSettings


class Inspection(TypedDict):
    """One machine's answers."""

    data_hash: str  #: Checksum of its images and of their split.
    versions: dict[str, str | None]  #: Of Python and packages.
    commit: str | None  #: Of the code it runs.
    free_bytes: int  #: In the folder for decoded images.
    seconds: float  #: What reading the images took; they need not be decoded again.


def inspect_machine(data: dict[str, Any], cache_dir: str, artifacts: str) -> Inspection:
    """Prepare the images on this machine, and write, read and remove a file in the artifact store.

    Raises:
        DataError: The images cannot be read here.
        OSError: The artifact store cannot be written from here.
    """
    node = Node(
        device=torch.device("cpu"), cache_dir=Path(cache_dir), artifacts=ArtifactStore(artifacts)
    )
    began = time.perf_counter()
    images = node.data(DataSettings.model_validate(data))
    seconds = time.perf_counter() - began
    probe = f"doctor/{uuid4().hex}"
    node.artifacts.write_bytes(probe, b"probe")
    node.artifacts.remove(probe)
    here = describe_environment(node.device)
    return Inspection(
        data_hash=images.info.data_hash,
        versions={"python": here["python"], **here["packages"]},
        commit=here["commit"],
        free_bytes=shutil.disk_usage(cache_dir).free,
        seconds=seconds,
    )
