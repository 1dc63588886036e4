"""Making, storing and loading the latency predictor that trials of a sweep train against."""

import copy
import hashlib
import json
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

import methods
from methods import Layout, PruningPlan, shrink
from methods.structure.latency_predictor import (
    LatencyPredictor,
    PredictorSettings,
    Samples,
    fit_predictor,
    sample_widths,
)
from tracking.artifacts import ArtifactNotFoundError, ArtifactStore
from workers.errors import ArtifactCorruptError, WorkerError
from workers.node.environment import device_name
from workers.settings import TrialSpec, content_hash
from workers.timing.latency import large_batch, time_by_turns
from workers.training.seeds import derive_seed

TOGETHER = 8  #: Networks timed by turns, beside the dense one.
FACTS, SAMPLES, WEIGHTS = "facts", "samples", "network."  #: What a file holds.


class PredictorMissingError(WorkerError, LookupError):
    """A trial trains against a predictor that is not there."""

    def __init__(self, method: str, content: str | None) -> None:
        super().__init__(method, content)
        self.method, self.content = method, content

    def __str__(self) -> str:
        what = f"{self.content} is not in the artifact store" if self.content else "none is named"
        return (
            f"The method {self.method!r} with cost 'latency' trains against a latency predictor, "
            f"and {what}. A sweep measures it before such trials: run the sweep, with the store it "
            "was run with, or use cost 'macs'."
        )


class PredictorMismatchError(WorkerError, ValueError):
    """A predictor was measured elsewhere, or of something else."""

    def __init__(self, differences: tuple[tuple[str, str, str], ...]) -> None:
        super().__init__(differences)
        self.differences = differences  #: Name, as measured, as it is here.

    def __str__(self) -> str:
        told = "; ".join(
            f"{name} was {then} and is {now} here" for name, then, now in self.differences
        )
        return (
            f"The latency predictor does not hold for this trial: {told}. Run the trial where it "
            "was measured and with the same versions, or start a new sweep, which measures anew."
        )


def predictor_key(
    spec: TrialSpec,
    settings: PredictorSettings,
    layout: Layout,
    classes: int,
    device: torch.device,
) -> dict[str, str]:
    """Return all that a measured latency depends on, by name, in words."""
    groups = [[group.name, group.width] for group in layout.groups]
    arguments = [f"{name}={value!r}" for name, value in sorted(spec.model.arguments.items())]
    cudnn: int | None = None
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    runtime = {} if settings.runtime == "eager" else {"runtime": settings.runtime}
    return {
        "network": f"{spec.model.name}({', '.join(arguments)}) with {classes} classes",
        "layers": f"{layout.policy.kind}, {content_hash(groups)}",
        "input shape": "x".join(map(str, layout.input_shape)),
        "device": device_name(device),
        "batch": str(settings.batch_size or large_batch(device)),
        "number type": spec.recipe.precision,
        "torch": torch.__version__,
        "cuDNN": str(cudnn),
        "CPU threads": str(settings.threads or torch.get_num_threads()),
        **runtime,
    }


def measure_predictor(
    network: nn.Module,
    layout: Layout,
    settings: PredictorSettings,
    key: dict[str, str],
    device: torch.device,
    progress: Callable[[int, dict[str, float]], None],
) -> tuple[LatencyPredictor, Samples, list[float]]:
    """Time narrowed networks on ``device`` and learn to predict others.

    A few networks take turns with the dense one, whose change from one such round to the next is
    taken out of the others' latencies.

    Args:
        network: The dense network; its weights do not matter.
        layout: What may be narrowed.
        settings: How many networks, at which batch size.
        key: As of :func:`predictor_key`.
        device: Where to time; nothing else should run there.
        progress: Told, round by round, how many networks were timed.

    Returns:
        The predictor, what was timed, and the latencies in milliseconds.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, "latency predictor"))
    samples = sample_widths(layout.cost.widths, settings.samples, generator)
    batch = settings.batch_size or large_batch(device)
    ratios: list[float] = []
    dense: list[float] = []
    for number, rows in enumerate(
        np.split(samples.kept, range(TOGETHER, len(samples.kept), TOGETHER))
    ):
        networks = [network, *(_narrowed(network, layout, kept.tolist()) for kept in rows)]
        times = time_by_turns(
            networks,
            layout.input_shape,
            device,
            batch_size=batch,
            dtype="bfloat16" if key["number type"] == "bfloat16" else "float32",
            runtime=settings.runtime,
            threads=settings.threads,
        )
        base, *others = [_undisturbed(taken) for taken in times]
        dense.append(base)
        ratios += [other / base for other in others]
        progress(number + 1, {"networks_timed": float(len(ratios))})
    typical = median(dense)
    latencies = [ratio * typical for ratio in ratios]
    made = fit_predictor(
        samples,
        latencies,
        key=key,
        groups=layout.cost.groups,
        widths=layout.cost.widths,
        drift=max(max(dense) / typical, typical / min(dense)) - 1.0,
        clock=time.perf_counter,
    )
    return made, samples, latencies


def _undisturbed(taken: list[float]) -> float:
    """Return the first decile: whatever else the machine does only adds to a time."""
    return quantiles(taken, n=10, method="inclusive")[0]


def _narrowed(network: nn.Module, layout: Layout, kept: list[int]) -> nn.Module:
    counts = dict(zip(layout.cost.groups, kept, strict=True))
    plan = PruningPlan(
        policy=layout.policy.kind,
        widths=layout.widths,
        kept={name: tuple(range(counts[name])) for name in layout.widths},
    )
    narrow = copy.deepcopy(network)
    shrink(narrow, plan, layout)
    return narrow


def store_predictor(
    store: ArtifactStore, made: LatencyPredictor, samples: Samples, latencies_ms: list[float]
) -> tuple[str, dict[str, str]]:
    """Store a predictor with what it learned from; return its content hash and the files."""
    facts = {**made.facts(), "drawn": list(samples.drawn)}
    tensors = {WEIGHTS + name: value.contiguous() for name, value in made.tensors().items()}
    tensors[f"{SAMPLES}.kept"] = torch.tensor(samples.kept)
    tensors[f"{SAMPLES}.latency_ms"] = torch.tensor(latencies_ms, dtype=torch.float64)
    data = safetensors.torch.save(tensors, {FACTS: json.dumps(facts, sort_keys=True)})
    content = hashlib.sha256(data).hexdigest()
    report = json.dumps({"key": facts["key"], **facts["report"]}, indent=2).encode()
    return content, {
        "predictor": store.write_bytes(predictor_path(content), data),
        "predictor_report": store.write_bytes(f"predictors/{content}.json", report),
    }


def predictor_path(content: str) -> str:
    """Return where the predictor with this content hash lies in the artifact store."""
    return f"predictors/{content}.safetensors"


def read_predictor(store: ArtifactStore, content: str) -> LatencyPredictor:
    """Return a stored predictor.

    Raises:
        ArtifactNotFoundError: The store does not hold it.
        ArtifactCorruptError: The file holds something else.
    """
    path = predictor_path(content)
    data = store.read_bytes(path)
    found = hashlib.sha256(data).hexdigest()
    if found != content:
        raise ArtifactCorruptError(path, found)
    tensors = safetensors.torch.load(data)
    weights = {
        name.removeprefix(WEIGHTS): tensor
        for name, tensor in tensors.items()
        if name.startswith(WEIGHTS)
    }
    return LatencyPredictor.rebuild(weights, _facts(data))


def _facts(data: bytes) -> dict[str, Any]:
    """Read the metadata of a safetensors file: JSON behind its length in eight bytes."""
    length = int.from_bytes(data[:8], "little")
    facts: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][FACTS])
    return facts


def predictor_of(
    spec: TrialSpec, store: ArtifactStore, layout: Layout, classes: int, device: torch.device
) -> LatencyPredictor | None:
    """Return the predictor that the trial's method trains against; None if it needs none.

    Raises:
        PredictorMissingError: The trial names none, or the store does not hold it.
        PredictorMismatchError: It was measured elsewhere, or of something else.
        ArtifactCorruptError: The file holds something else.
    """
    method = methods.create(spec.method or "", spec.method_settings)
    if method.predictor is None:
        return None
    if spec.predictor is None:
        raise PredictorMissingError(method.name, None)
    try:
        found = read_predictor(store, spec.predictor)
    except ArtifactNotFoundError:
        raise PredictorMissingError(method.name, spec.predictor) from None
    here = predictor_key(spec, method.predictor, layout, classes, device)
    differences = tuple(
        (name, str(found.key.get(name)), now)
        for name, now in here.items()
        if found.key.get(name) != now
    )
    if differences:
        raise PredictorMismatchError(differences)
    return found
