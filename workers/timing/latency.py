"""Forward time of a pruned network beside the dense one, on the device at hand."""

import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from workers.node.environment import device_name
from workers.results import LatencyRecord
from workers.timing.runtimes import DType, Runtime, forget_compiled, ready, threads_of
from workers.training.measure import synchronize
from workers.training.seeds import fastest_kernels

Forward = Callable[[Tensor], Tensor]
LARGE_BATCH = {"cpu": 32}  #: Images of the large batch, by kind of device; else 128.
REPETITIONS = 30  # fewer say little about the 90th percentile
MOST_REPETITIONS = 500
WARM_UP = 5


def measure_latency(
    base: nn.Module,
    pruned: nn.Module,
    input_shape: tuple[int, int, int],
    device: torch.device,
    *,
    batch_sizes: Sequence[int] = (1, 128),
    dtype: DType = "float32",
    runtime: Runtime = "eager",
    threads: int | None = None,
    predicted_speed_up: float | None = None,
    seconds: float = 2.0,
) -> list[LatencyRecord]:
    """Time both networks by turns, so that whatever else the machine does hits both.

    Args:
        base: Dense network; neither network is changed.
        pruned: Shrunk network.
        input_shape: ``(C, H, W)`` of one image.
        device: Where to run.
        batch_sizes: Images per batch; one record each.
        dtype: Of weights and images.
        runtime: What runs the networks.
        threads: CPU threads; None: those torch has.
        predicted_speed_up: What a latency model expects, to stand beside what is measured.
        seconds: Per batch size, stop after this long; 30 repetitions are always taken.

    Returns:
        One record per batch size, in milliseconds per batch.
    """
    records = []
    for batch_size in batch_sizes:
        base_ms, pruned_ms = time_by_turns(
            (base, pruned),
            input_shape,
            device,
            batch_size=batch_size,
            dtype=dtype,
            runtime=runtime,
            threads=threads,
            seconds=seconds,
        )
        records.append(
            LatencyRecord(
                batch_size=batch_size,
                median_ms=median(pruned_ms),
                p90_ms=_p90(pruned_ms),
                base_median_ms=median(base_ms),
                base_p90_ms=_p90(base_ms),
                speed_up=median(base_ms) / median(pruned_ms),
                repetitions=len(base_ms),
                dtype=dtype,
                device_name=device_name(device),
                threads=threads or torch.get_num_threads(),
                runtime=runtime,
                predicted_speed_up=predicted_speed_up,
            )
        )
    return records


def large_batch(device: torch.device) -> int:
    """Return how many images the larger of the two batches has."""
    return LARGE_BATCH.get(device.type, 128)


def time_by_turns(
    networks: Sequence[nn.Module],
    input_shape: tuple[int, int, int],
    device: torch.device,
    *,
    batch_size: int,
    dtype: DType = "float32",
    runtime: Runtime = "eager",
    threads: int | None = None,
    seconds: float = 0.0,
    runner: Callable[[nn.Module], Forward] | None = None,
) -> list[list[float]]:
    """Time several networks, each forward pass of one followed by one of the next.

    Args:
        networks: They are not changed.
        input_shape: ``(C, H, W)`` of one image.
        device: Where to run.
        batch_size: Images per batch.
        dtype: Of weights and images.
        runtime: What runs the networks.
        threads: CPU threads; None: those torch has.
        seconds: Stop after this long; 30 repetitions are always taken.
        runner: Gives what is run of a network, in place of ``runtime``.

    Returns:
        Milliseconds of each forward pass, by network.
    """
    images = torch.randn(batch_size, *input_shape, generator=torch.Generator().manual_seed(0)).to(
        device, getattr(torch, dtype)
    )
    times: list[list[float]] = [[] for _ in networks]
    with threads_of(threads) as count, fastest_kernels(True):
        twins = [ready(network, images, runtime, count, runner) for network in networks]
        _by_turns(twins, times, device, seconds)
    if runtime == "compile":
        forget_compiled()
    return times


def _by_turns(
    twins: Sequence[Callable[[], object]],
    times: Sequence[list[float]],
    device: torch.device,
    seconds: float,
) -> None:
    with torch.inference_mode():
        for twin in twins:
            for _ in range(WARM_UP):
                twin()
        deadline = time.perf_counter() + seconds
        forward = list(zip(twins, times, strict=True))
        while len(times[0]) < REPETITIONS or (
            len(times[0]) < MOST_REPETITIONS and time.perf_counter() < deadline
        ):
            # neither end is always first
            for twin, taken in forward if len(times[0]) % 2 == 0 else forward[::-1]:
                taken.append(_forward_ms(twin, device))


def _forward_ms(forward: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    forward()
    synchronize(device)
    return (time.perf_counter() - started) * 1e3


def _p90(values: Sequence[float]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1]
