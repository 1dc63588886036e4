"""Weights in and out: read without running code, named by content, loaded exactly or not at all."""

import hashlib
import pickle
import re
import stat
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import fsspec
import safetensors.torch
import torch
from torch import Tensor, nn

from workers.bounded_memory import bounded_memory
from workers.errors import UnreadableCheckpointError, WeightsMismatchError
from workers.pointers import in_place_of_a_file

_NESTS = (
    *("state_dict", "model_state_dict", "model", "net", "weights", "network", "params"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema"),
)
_WRAPPERS = ("module.", "_orig_mod.")  #: Left by DataParallel and by torch.compile.
_COUNTER = "num_batches_tracked"  #: Of batch norms; does not change what a network computes.
#: What averaging and FLOP counters leave among the weights, one number each.
_FOREIGN_COUNTERS = frozenset({"n_averaged", "total_ops", "total_params"})
_MOST_BYTES = 16 << 30  #: Of a checkpoint file: four thousand million weights.
_SPARE_BYTES = 256 << 20  #: What decoding may take beyond thrice the file.
_DEEPEST = 4  #: Nests inside each other; a checkpoint may contain itself.
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  #: What torch.save wrote begins with, now and long ago.
_NO_MEMORY: Final = "can't allocate memory"  #: What torch says of an allocation that failed.
#: How lines of torch begin that advise to read the file without protection.
_ADVICE: Final = ("Weights only load failed", "Please file an issue", "Check the documentation")
#: How a refused pickle names what it would have called, in the words of several versions of torch.
_FOREIGN: Final = re.compile(r"[^\n]*\b(?:global|class)\b[^\n]*", re.IGNORECASE)


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read the weights in a checkpoint, onto the CPU.

    Takes safetensors, and what ``torch.save`` wrote of tensors and plain containers: the weights
    alone, or below ``state_dict``, ``model``, ``ema`` and the like. Prefixes of wrappers are
    dropped.

    Args:
        path: A file, or an fsspec URL, whose credentials come from the environment.

    Raises:
        UnreadableCheckpointError: The file is missing or damaged, holds no weights, or reading it
            would run code.
    """
    if str(path).startswith("file://"):
        path = unquote(urlsplit(str(path)).path)
    if "://" in str(path):
        return _fetch_weights(str(path))
    path = Path(path)
    content = _decoded(path)
    try:
        weights = _unwrapped(_find_weights(content))
    except Exception as error:  # containers of the file's own making
        raise _unreadable(path, error) from error
    if not weights:
        raise UnreadableCheckpointError(
            path, f"holds no weights; they must be at the top or below one of {', '.join(_NESTS)}."
        )
    for name, tensor in weights.items():
        if problem := _no_plain_numbers(tensor):
            raise UnreadableCheckpointError(
                path, f"holds {name!r}, {problem}; save plain tensors with real values."
            )
    return weights


def _decoded(path: Path) -> Any:
    """Return what a file holds, without running code; anything a decoder raises is a message."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableCheckpointError(path, "is no file; name a file.")
        if found.st_size > _MOST_BYTES:
            raise UnreadableCheckpointError(
                path,
                f"has {found.st_size / 2**30:,.0f} GiB, and one may have {_MOST_BYTES >> 30}; save "
                "the weights alone.",
            )
        with path.open("rb") as file:
            start = file.read(256)
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableCheckpointError):
            raise
        raise _unreadable(path, error) from error
    if what := in_place_of_a_file(start):
        raise UnreadableCheckpointError(path, f"is {what}; bring the file itself here.")
    if start[8:9] != b"{" and not start.startswith((_ZIP, _PICKLE)):
        raise UnreadableCheckpointError(
            path, "is no checkpoint; give a safetensors file or what torch.save wrote."
        )
    try:
        with bounded_memory(3 * found.st_size + _SPARE_BYTES):
            return _parsed(path, is_safetensors=start[8:9] == b"{")
    except pickle.UnpicklingError as error:
        foreign = _FOREIGN.search(str(error))
        if foreign is None:
            raise _unreadable(path, error) from error
        raise UnreadableCheckpointError(
            path,
            "is refused: it holds more than tensors and plain containers, and reading it would "
            "run code. Save the weights alone: torch.save(model.state_dict(), path), or as "
            f"safetensors. ({foreign.group()})",
        ) from error
    except Exception as error:  # damaged files make a decoder raise anything
        if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
            raise UnreadableCheckpointError(
                path,
                f"declares far more than the {found.st_size / 2**20:,.1f} MiB of the file hold; "
                "save the weights anew, uncompressed, as torch.save does.",
            ) from error
        raise _unreadable(path, error) from error


def _parsed(path: Path, *, is_safetensors: bool) -> Any:
    if is_safetensors:
        return safetensors.torch.load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters of it is checked by the caller
        return torch.load(path, map_location="cpu", weights_only=True)


def _no_plain_numbers(tensor: Tensor) -> str | None:
    """Say why a tensor cannot be taken as it is; None where it can."""
    if tensor.is_meta:
        return "a tensor without values (on the meta device)"
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    if tensor.is_quantized:
        return "a quantised tensor"
    return "complex numbers" if tensor.is_complex() else None


def _fetch_weights(url: str) -> dict[str, Tensor]:
    """Read the weights in a checkpoint that is not on this machine."""
    with tempfile.TemporaryDirectory(prefix="prunesweep-") as folder:
        try:
            files, path = fsspec.core.url_to_fs(url)
            files.get_file(path, f"{folder}/checkpoint", callback=_AtMost())
        except Exception as error:  # each kind of store has its own
            reason = f"cannot be fetched ({type(error).__name__}: {error}); check the address."
            raise UnreadableCheckpointError(url, reason) from error
        try:
            return read_weights(f"{folder}/checkpoint")
        except UnreadableCheckpointError as error:
            raise UnreadableCheckpointError(url, error.problem) from error


class _AtMost(fsspec.Callback):  # type: ignore[misc]  # fsspec has no types
    """Ends a download that goes on beyond what a checkpoint may have."""

    def call(self, *_: Any, **__: Any) -> None:
        if max(self.value, self.size or 0) > _MOST_BYTES:
            raise ValueError(f"more than the {_MOST_BYTES >> 30} GiB a checkpoint may have")


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


def adopt(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a checkpoint from elsewhere, exactly or not at all.

    Counters that averaging and FLOP counting leave are dropped, and a first part that all names
    share, on one side only, is looked through.

    Raises:
        WeightsMismatchError: As for :func:`fit`, or a value is not finite, or more precise than
            the network can hold; the model is then unchanged.
    """
    own = model.state_dict()
    weights = _named_as(own, weights)
    alike = [k for k in own if k in weights and weights[k].shape == own[k].shape]
    if inexact := [k for k in alike if not _is_held(weights[k], own[k])]:
        raise WeightsMismatchError([], [], [], inexact)
    fit(model, weights)


def with_own_head(
    model: nn.Module, weights: Mapping[str, Tensor], num_classes: int
) -> Mapping[str, Tensor]:
    """Return the weights with the network's own last layer, where theirs tells other classes apart.

    That is a layer of ``num_classes`` outputs whose weights differ from the checkpoint's in the
    number of outputs alone; of several, none is exchanged.
    """
    own = model.state_dict()
    named = _named_as(own, weights)
    other = {
        name: value
        for name, value in own.items()
        if name in named
        and value.dim()
        and value.shape[0] == num_classes != named[name].shape[:1].numel()
        and named[name].shape[1:] == value.shape[1:]
    }
    layers = {name.rpartition(".")[0] for name in other}
    return {**named, **other} if len(layers) == 1 else weights


def _is_held(value: Tensor, own: Tensor) -> bool:
    """Say whether ``own`` can hold ``value`` exactly, and it is finite where ``own`` is."""
    held = value.to(own.dtype)
    if not torch.equal(held.to(value.dtype), value):  # also where there is NaN
        return False
    if not held.is_floating_point():
        return True
    return bool((held.isfinite() | (held == own.to(held.device))).all())


def _named_as(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights without foreign counters, and under the network's own names if need be."""
    kept = {k: v for k, v in weights.items() if k in own or not _is_foreign_counter(k, v)}
    needed = {name for name in own if not name.endswith(_COUNTER)}
    inner = kept
    while (part := _shared_part(inner)) is not None and not needed <= inner.keys():
        inner = {name.removeprefix(part): value for name, value in inner.items()}
    part = _shared_part(own)
    outer = {f"{part}{name}": value for name, value in kept.items()} if part else kept
    return next((names for names in (kept, inner, outer) if needed <= names.keys()), kept)


def _shared_part(weights: Mapping[str, Tensor]) -> str | None:
    """Return the first part that all names share, with its dot; None where there is none."""
    parts = {name.partition(".")[0] for name in weights}
    part = f"{parts.pop()}." if len(parts) == 1 else None
    return part if part and all(name.startswith(part) for name in weights) else None


def _is_foreign_counter(name: str, value: Tensor) -> bool:
    return name.rpartition(".")[2] in _FOREIGN_COUNTERS and value.numel() == 1


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


def _find_weights(content: Any, depth: int = 0) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return {}
    for nest in _NESTS:
        if found := _find_weights(content.get(nest), depth + 1):
            return found
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        names = [k for k, v in weights.items() if not _is_foreign_counter(k, v)]
        if names and all(name.startswith(wrapper) for name in names):
            return _unwrapped({k.removeprefix(wrapper): v for k, v in weights.items()})
    return weights


def _unreadable(path: Path, error: Exception) -> UnreadableCheckpointError:
    said = [line for line in str(error).splitlines() if line and not line.startswith(_ADVICE)]
    reason = said[0] if said else type(error).__name__
    return UnreadableCheckpointError(
        path, f"cannot be read ({reason}); give a safetensors file or what torch.save wrote."
    )
