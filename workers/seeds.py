"""Randomness: everything seeded before anything random, one stream for each purpose."""

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, purpose: str) -> int:
    """Return a 63-bit seed that differs for every purpose of every trial seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed Python, NumPy and torch, and make torch exact: bit for bit on a CPU.

    On a CPU operations without a deterministic form raise. On CUDA float32 means float32 (no
    TF32), and kernels are chosen by timing them, which may change the last bits.
    """
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
    torch.manual_seed(derive_seed(seed, "torch"))  # every device
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
