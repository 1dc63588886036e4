"""The machine a trial runs on, and what a long-lived process keeps from trial to trial."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from methods import Layout
from methods.structure.stored_layout import layout_name
from tracking.artifacts import ArtifactStore
from workers.data import DataSet, load
from workers.errors import ArtifactCorruptError, WorkerError
from workers.files import SharedFiles
from workers.networks.checkpoints import from_safetensors, to_safetensors, weights_hash
from workers.networks.known_layouts import known_layout
from workers.networks.shapes import policy_of
from workers.settings import DataSettings, LayerSettings, Unit, content_hash

T = TypeVar("T")


class DeviceError(WorkerError, ValueError):
    """A device was asked for that is not there."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return (
            f"Device {self.name!r} cannot be used: {self.problem}. Choose 'auto', 'cpu', 'mps', "
            "'cuda' or 'cuda:N'."
        )


def resolve_device(name: str) -> torch.device:
    """Turn a device name into a device; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: The name is unknown or the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(name, "no such kind of device") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(name, f"{torch.cuda.device_count()} CUDA devices are visible")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(name, "MPS is not available")
    if device.type not in {"cuda", "mps", "cpu"}:
        raise DeviceError(name, "this kind of device is not supported")
    return device


def weights_path(content: str) -> str:
    """Return where weights with this content hash lie in the artifact store."""
    return f"weights/{content}.safetensors"


def store_weights(artifacts: ArtifactStore, weights: Mapping[str, Tensor]) -> None:
    """Store weights under their content hash, unless they are there."""
    path = weights_path(weights_hash(weights))
    if not artifacts.exists(path):
        artifacts.write_bytes(path, to_safetensors(weights))


class Recent(Generic[T]):
    """The values used last, by key; older ones are dropped."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return the value of ``key``, made now unless it is still here."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return self._values[key]


@dataclass(frozen=True, kw_only=True)
class Node:
    """A device, its caches and the artifact store; one per worker process."""

    device: torch.device
    cache_dir: Path  #: Of this machine: decoded images, what was fetched from elsewhere.
    artifacts: ArtifactStore
    is_shared: bool = True  #: Something else may run on the device; matters to latency.
    attempt: int = 1  #: Number of this attempt at the trial that is run.
    checkpoint_epochs: int = 0  #: Epochs of training from one checkpoint to the next; 0: none.
    _data: Recent[DataSet] = field(default_factory=lambda: Recent(2), repr=False, compare=False)
    _weights: Recent[Mapping[str, Tensor]] = field(
        default_factory=lambda: Recent(2), repr=False, compare=False
    )
    _layouts: Recent[Layout] = field(default_factory=lambda: Recent(4), repr=False, compare=False)

    @property
    def files(self) -> SharedFiles:
        """What trials on all machines share."""
        return SharedFiles(artifacts=self.artifacts, cache_dir=self.cache_dir)

    def data(self, settings: DataSettings) -> DataSet:
        """Return the images, on the device; decoded once per process."""
        key = content_hash(settings.model_dump(mode="json"))
        return self._data.get(key, lambda: load(settings, self.device, self.cache_dir))

    def weights(self, content: str) -> Mapping[str, Tensor]:
        """Return the weights with this content hash, on the CPU; load them, do not change them.

        Raises:
            ArtifactNotFoundError: The store does not hold them.
            ArtifactCorruptError: The file holds something else.
        """
        return self._weights.get(content, lambda: self._read_weights(content))

    def layout(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        layers: LayerSettings,
        unit: Unit,
    ) -> Layout:
        """Return what may shrink in ``network``; found and proven once for all machines.

        Raises:
            LayoutError: Nothing may be pruned, or the policy does not fit the network.
        """
        policy = policy_of(layers, unit)
        name = layout_name(network, input_shape, policy)
        return self._layouts.get(
            name, lambda: known_layout(self.files, name, network, input_shape, policy)
        )

    def _read_weights(self, content: str) -> Mapping[str, Tensor]:
        path = weights_path(content)
        weights = from_safetensors(self.files.read(path))
        found = weights_hash(weights)
        if found != content:
            raise ArtifactCorruptError(path, found)
        return weights
