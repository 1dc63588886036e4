"""Weights in and out: read without running code, named by content, loaded exactly or not at all."""

import hashlib
import pickle
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from workers.errors import UnreadableCheckpointError, WeightsMismatchError

_NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
_WRAPPERS = ("module.", "_orig_mod.")  #: Left by DataParallel and by torch.compile.
_COUNTER = "num_batches_tracked"  #: Of batch norms; does not change what a network computes.


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read the weights in a checkpoint, onto the CPU.

    Takes safetensors, and what ``torch.save`` wrote of tensors and plain containers: the weights
    alone, or below ``state_dict``, ``model`` and the like. Prefixes of wrappers are dropped.

    Args:
        path: A file, or an fsspec URL, whose credentials come from the environment.

    Raises:
        UnreadableCheckpointError: The file is missing or damaged, holds no weights, or reading it
            would run code.
    """
    if "://" in str(path):
        return _fetch_weights(str(path))
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:] == b"{":  # the length of a JSON header, then the header
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnreadableCheckpointError(
            path,
            "is refused: it holds more than tensors and plain containers, and reading it would "
            "run code. Save the weights alone: torch.save(model.state_dict(), path), or as "
            f"safetensors. ({str(error).splitlines()[0]})",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    except SafetensorError as error:
        raise _unreadable(path, error) from error
    weights = _find_weights(content)
    if not weights:
        raise UnreadableCheckpointError(
            path, f"holds no weights; they must be at the top or below one of {', '.join(_NESTS)}."
        )
    return _unwrapped(weights)


def _fetch_weights(url: str) -> dict[str, Tensor]:
    """Read the weights in a checkpoint that is not on this machine."""
    with tempfile.TemporaryDirectory(prefix="prunesweep-") as folder:
        try:
            files, path = fsspec.core.url_to_fs(url)
            files.get_file(path, f"{folder}/checkpoint")
        except Exception as error:  # each kind of store has its own
            reason = f"cannot be fetched ({type(error).__name__}: {error}); check the address."
            raise UnreadableCheckpointError(url, reason) from error
        try:
            return read_weights(f"{folder}/checkpoint")
        except UnreadableCheckpointError as error:
            raise UnreadableCheckpointError(url, error.problem) from error


def fit(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights that fit exactly; batch-norm counters may be absent.

    Raises:
        WeightsMismatchError: A name is missing or unexpected, or a shape differs; the model is
            then unchanged.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in weights and not k.endswith(_COUNTER)]
    unexpected = [k for k in weights if k not in own]
    mismatched = [
        f"{k} {list(weights[k].shape)} for {list(own[k].shape)}"
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    if missing or unexpected or mismatched:
        raise WeightsMismatchError(missing, unexpected, mismatched)
    model.load_state_dict(dict(weights), strict=False)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Name weights by their content: 32 hexadecimal digits of SHA-256.

    Names, types, shapes and values count; order, device, memory layout and the counters of batch
    norms do not.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in weights if not name.endswith(_COUNTER)):
        tensor = _plain(weights[name])
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def to_safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """Serialise weights; equal weights give equal bytes."""
    return safetensors.torch.save({name: _plain(weights[name]).clone() for name in sorted(weights)})


def from_safetensors(content: bytes) -> dict[str, Tensor]:
    """Restore what ``to_safetensors`` made, onto the CPU."""
    return safetensors.torch.load(content)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _find_weights(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for nest in _NESTS:
        if found := _find_weights(content.get(nest)):
            return found
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            return _unwrapped({k.removeprefix(wrapper): v for k, v in weights.items()})
    return weights


def _unreadable(path: Path, error: Exception) -> UnreadableCheckpointError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UnreadableCheckpointError(
        path, f"cannot be read ({reason}); give a safetensors file or what torch.save wrote."
    )
