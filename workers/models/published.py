"""What torchvision and timm publish: networks by name, and weights that are on disk already."""

import importlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import torch

from workers.errors import ModelError, UnreadableCheckpointError

TORCHVISION: Final = "torchvision/"
TIMM: Final = "timm/"
_HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")  #: Of one repository, the first.


def load_timm(model: str) -> Any:
    """Return the module timm, which need not be installed.

    Raises:
        ModelError: It is not, or cannot be imported.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ModelError(
            f"Model {model!r} needs timm, which cannot be imported here ({error}); install it on "
            "every node: pip install timm."
        ) from error


def published_weights(model: str) -> Path:
    """Return the file of the weights published for a network; nothing is downloaded.

    Args:
        model: ``torchvision/NAME`` or ``timm/NAME``.

    Raises:
        ModelError: The network has none, or is not of these.
        UnreadableCheckpointError: They are not on this machine.
    """
    if model.startswith(TORCHVISION):
        name = model.removeprefix(TORCHVISION)
        looked_for = list(_of_torchvision(name))
        call = f"import torchvision; torchvision.models.get_model({name!r}, weights='DEFAULT')"
    elif model.startswith(TIMM):
        name = model.removeprefix(TIMM)
        looked_for = list(_of_timm(name))
        call = f"import timm; timm.create_model({name!r}, pretrained=True)"
    else:
        raise ModelError(
            f"Model {model!r} has no published weights; only torchvision/NAME and timm/NAME have. "
            "Give the path of a checkpoint."
        )
    if not looked_for:
        raise ModelError(f"There are no published weights for {model!r}; leave 'checkpoint' out.")
    for file in looked_for:
        if file.is_file():
            return file
    raise UnreadableCheckpointError(
        looked_for[0],
        f'is not here, and a sweep downloads no weights. Fetch them once: python -c "{call}"',
    )


def _of_torchvision(name: str) -> Iterator[Path]:
    """Yield where the weights may be, the newest first."""
    import torchvision  # only here: it takes a second

    weights = torchvision.models.get_model_weights(name)
    if not len(weights):
        return
    newest = weights.DEFAULT
    for one in (newest, *(other for other in weights if other is not newest)):
        yield _in_torch_hub(one.url)


def _of_timm(name: str) -> Iterator[Path]:
    """Yield where the weights may be: in the cache of the hub, or where torch keeps downloads."""
    timm = load_timm(f"{TIMM}{name}")
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag
        raise ModelError(f"Model {TIMM + name!r} has no published weights: {error}") from error
    if found is None or not found.has_weights:
        return
    if found.hf_hub_id:
        yield from _in_hub_cache(found.hf_hub_id, found.hf_hub_filename)
    if found.url:
        yield _in_torch_hub(found.url)


def _in_hub_cache(repository: str, filename: str | None) -> Iterator[Path]:
    hub = importlib.import_module("huggingface_hub")  # which timm needs
    repository, _, revision = repository.partition("@")
    for name in (filename,) if filename else _HUB_FILES:
        at = hub.try_to_load_from_cache(repository, name, revision=revision or None)
        folder = Path(hub.constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        yield Path(at) if isinstance(at, str) else folder / name


def _in_torch_hub(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(url).path).name
