"""The forward pass of pruned networks beside the dense one: small and large batches, compiled too.

Networks with half of their MACs, without filters and without stripes, each forward pass followed by
one of the next network, so that whatever else the device does hits all.
"""

import logging
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any, Final, Literal

import torch
from torch import nn

from benchmarks.gpu.setting import Setting
from benchmarks.gpu.shapes import halved
from benchmarks.loops import Case
from workers.settings import Recipe
from workers.timing.latency import Forward, time_by_turns
from workers.timing.runtimes import DType

log = logging.getLogger(__name__)

BATCHES: Final = (1, 32, 256)
TYPES: Final[tuple[DType, ...]] = ("float32", "bfloat16")
HOWS: Final[tuple[Literal["eager", "compiled"], ...]] = ("eager", "compiled")


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield milliseconds a batch of the dense network, and of two with half of its MACs."""
    names = ("digits_net",) if setting.miniature else ("cifar_resnet56", "cifar_resnet20")
    batches = (1, 4) if setting.miniature else BATCHES
    rows: list[dict[str, Any]] = []
    parts = [
        (f"{name} {how} {dtype} batch {batch}", (name, how, dtype, batch))
        for how in HOWS  # compiling takes half a minute a network: last
        for name in names
        for dtype in TYPES
        for batch in batches
    ]
    failed: list[str] = []
    for part, (name, how, dtype, batch) in setting.in_time(parts):
        try:
            times = _timed(name, setting, how=how, dtype=dtype, batch=batch)
        except Exception as error:  # a compiler refuses more than the eager network does
            log.exception("%s", part)
            failed.append(f"{part}: {type(error).__name__}: {str(error)[:200]}")
        else:
            row = {"network": name, "how": how, "dtype": dtype, "batch": batch, **times}
            rows.append(row)
        yield {"rows": rows, "problems": failed}


def _timed(
    name: str, setting: Setting, *, how: str, dtype: DType, batch: int
) -> dict[str, dict[str, float]]:
    case = Case(model=setting.model(name), data=setting.pictures(), recipe=Recipe())
    shape = case.info.input_shape if setting.miniature else (3, 32, 32)
    networks = {"dense": case.network(), "filters": case.network(), "stripes": case.network()}
    halved(case)(networks["filters"])
    halved(case, "stripes")(networks["stripes"])
    times = time_by_turns(
        [*networks.values()],
        shape,
        setting.device,
        batch_size=batch,
        dtype=dtype,
        seconds=0.0 if setting.miniature else 1.0,
        runner=_eager if how == "eager" else partial(_compiled, miniature=setting.miniature),
    )
    return {
        name: {"median_ms": median(taken), "least_ms": min(taken)}
        for name, taken in zip(networks, times, strict=True)
    }


def _eager(network: nn.Module) -> Forward:
    return network


def _compiled(network: nn.Module, *, miniature: bool) -> Forward:
    """Compile for speed, with CUDA graphs where there are; in miniature only trace."""
    torch.compiler.reset()  # each shape anew, and none takes the place of another
    if miniature:
        return torch.compile(network, backend="eager", dynamic=False)
    return torch.compile(network, mode="reduce-overhead", dynamic=False)
