"""Randomness: everything seeded before anything random, one stream for each purpose."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from methods import State


def derive_seed(seed: int, purpose: str) -> int:
    """Return a 63-bit seed that differs for every purpose of every trial seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed Python, NumPy and torch, and make torch exact: bit for bit on a CPU.

    On a CPU operations without a deterministic form raise. On CUDA float32 means float32 (no
    TF32), and sums may be added up in another order, which changes the last bits; see
    :func:`fastest_kernels`.
    """
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
    torch.manual_seed(derive_seed(seed, "torch"))  # every device
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def fastest_kernels(wanted: bool) -> Iterator[None]:
    """Let cuDNN choose its kernels by timing them while the context lasts, or not.

    Every shape is timed once, which takes as long as tens of steps with it, and every pruned
    network has shapes of its own. Which kernel wins may change the last bits.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def random_state(device: torch.device) -> State:
    """Return where Python, NumPy and torch are in their random numbers."""
    legacy = np.random.get_state(legacy=False)
    version, python_keys, gauss = random.getstate()
    state = {
        "python": [version, list(python_keys), gauss],
        "numpy": {**legacy, "state": {**legacy["state"], "key": legacy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def load_random_state(state: State, device: torch.device) -> None:
    """Go on in the random numbers where :func:`random_state` was, as far as ``device`` has them."""
    version, python_keys, gauss = state["python"]
    random.setstate((version, tuple(python_keys), gauss))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
