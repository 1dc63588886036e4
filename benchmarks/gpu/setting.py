"""Where a stage runs and on what: device, images, checkpoint, time, and the folder of results."""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import nn

from benchmarks.gpu.pictures import draw_pictures
from tracking.artifacts import ArtifactStore
from workers.models import build_model
from workers.networks.checkpoints import fit, read_weights, weights_hash
from workers.node.node import Node, store_weights
from workers.settings import DataSettings, ModelSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Normalisation of the published CIFAR checkpoints.
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
MARGIN: Final = 1.2  #: A part begins when so many times the longest so far is left.


class StageSkippedError(Exception):
    """A stage lacks what it needs."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Of one stage."""

    device: torch.device
    folder: Path  #: Results, and what a later call goes on from.
    artifacts: Path  #: Weights and checkpoints.
    miniature: bool = False  #: Everything small: shows that the kit works, and measures nothing.
    data: Path | None = None  #: Image folder of the CIFAR copy, or a zip of it.
    checkpoint: Path | None = None  #: Of a CIFAR ResNet-56.
    seconds: float = 480.0  #: Nothing begins that would not end within them.
    processes: int = 4  #: That train at once, in the stage of rows.
    left_out: list[str] = field(default_factory=list)  #: Parts for which no time was left.
    started: float = field(default_factory=time.time)  # the same clock in every process

    @property
    def seconds_left(self) -> float:
        """Of the stage."""
        return self.seconds - (time.time() - self.started)

    def in_time(self, parts: Sequence[tuple[str, T]]) -> Iterator[tuple[str, T]]:
        """Yield named parts while the longest so far would still end in time; note the others."""
        longest = 0.0
        for number, (name, part) in enumerate(parts):
            if self.seconds_left < MARGIN * longest:
                self.left_out.extend(name for name, _ in parts[number:])
                log.warning("No time is left for: %s", ", ".join(self.left_out))
                return
            began = time.time()
            yield name, part
            longest = max(longest, time.time() - began)
            log.info("%s: %.1f s, %.0f s left", name, time.time() - began, self.seconds_left)

    def node(self, device: torch.device | None = None, **changes: Any) -> Node:
        """Return a node on ``device``, by default the one that is measured."""
        return Node(
            device=device or self.device,
            cache_dir=cache_folder(),
            artifacts=ArtifactStore(self.artifacts),
            **changes,
        )

    def cifar(self, **changes: Any) -> DataSettings:
        """Return the CIFAR copy; a few drawn pictures in miniature.

        Raises:
            StageSkippedError: No path was given.
        """
        if self.miniature:
            return self.pictures()
        if self.data is None:
            raise StageSkippedError("it needs --data, the CIFAR copy as an image folder or its zip")
        path = str(self.data.resolve())
        return DataSettings(name="image_folder", path=path, mean=MEAN, std=STD, **changes)

    def pictures(self) -> DataSettings:
        """Return the pictures that need no path."""
        train, test = (80, 40) if self.miniature else (1000, 600)
        return draw_pictures(cache_folder(), train=train, test=test)

    def model(self, name: str) -> ModelSettings:
        """Return the network of that name; a tiny one in miniature."""
        return ModelSettings(name="digits_net" if self.miniature else name)

    def published(self) -> str:
        """Store the weights of the checkpoint, or fresh ones in miniature; return their name.

        Raises:
            StageSkippedError: No checkpoint was given.
        """
        torch.manual_seed(0)
        network = build_model(self.model("cifar_resnet56"), 10, 3)
        if not self.miniature:
            if self.checkpoint is None:
                raise StageSkippedError("it needs --checkpoint, a CIFAR ResNet-56")
            fit(network, read_weights(self.checkpoint))
        return self.keep(network)

    def keep(self, network: nn.Module) -> str:
        """Store the weights of a network where trials find them; return their name."""
        weights = network.state_dict()
        store_weights(self.node().artifacts, weights)
        return weights_hash(weights)


def cache_folder() -> Path:
    """Where decoded images lie on this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "prunesweep-gpu"


def write_json(path: Path, content: Any) -> None:
    """Write a result whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    partial.replace(path)
