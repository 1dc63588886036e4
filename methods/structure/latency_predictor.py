"""A small network that predicts how long a pruned network takes, from the filters it keeps.

Source: the Latency Predict Net of Li et al., arXiv:2007.02066 (W-Gates); its code was not
published. Departures: a thousand measured networks in place of 100,000, half of them drawn with
widths that go together, since independent widths crowd around the mean latency; the logarithm of
the latency is learned.

A prediction is good for the device, batch, number type, thread count and versions it was measured
with, which are its key. It guides training and is never reported as a latency.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, TypeAdapter
from torch import Tensor, nn, optim

Drawn = Literal["uniform", "correlated", "independent"]  #: How the widths of a sample came about.

NARROWEST = 0.1  #: Smallest share of a group's filters that is sampled.
HELD_OUT = 0.2  #: Share of the drawn samples that only the report sees.
VALIDATION = 0.15  #: Share of the others that says which epoch was best.
HIDDEN, BATCH = 128, 64
MOST_STEPS, PATIENCE = 3000, 500  #: Of fitting; it ends after so many without improvement.


@dataclass(frozen=True, kw_only=True)
class PredictorSettings:
    """How a predictor is made."""

    samples: Annotated[int, Field(ge=20)] = 1000  #: Networks that are narrowed and timed.
    batch_size: Annotated[int, Field(ge=1)] | None = None  #: None: latency's large batch.
    runtime: Literal["eager", "compile", "onnxruntime"] = "eager"  #: What runs the networks.
    threads: Annotated[int, Field(ge=1)] | None = None  #: Of the CPU; None: those torch has.

    def stated(self) -> dict[str, Any]:
        """Return what identifies it: what is said of runtime and threads only if it is said."""
        unsaid = {"runtime": "eager", "threads": None}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in unsaid or value != unsaid[name]
        }


class Samples(NamedTuple):
    """Widths to time."""

    kept: np.ndarray[tuple[int, int], np.dtype[np.int64]]  #: ``[samples, groups]``
    drawn: tuple[Drawn, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """How predictions do on networks that were measured and not learned from."""

    samples: int
    r2: float  #: 1: all of the variance is predicted; 0: no better than the mean.
    spearman: float  #: Correlation of the ranks.
    error: float  #: Mean absolute error, share of the measured latency.


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformWidth:
    """The network at one share of filters in every group; these were learned from."""

    share: float
    measured_ms: float
    predicted_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorReport:
    """What a predictor is worth."""

    samples: int  #: Measured networks, held out ones included.
    correlated: HeldOut
    independent: HeldOut
    full_width_error: float  #: Share by which the dense network is predicted wrong.
    uniform: tuple[UniformWidth, ...]  #: By ascending width; the last is the dense network.
    drift: float  #: Largest change of the dense network's latency while the others were timed.
    fit_seconds: float

    def numbers(self) -> dict[str, float]:
        """Return what there is to plot, flat."""
        found = {
            f"predictor_{drawn}_{name}": getattr(judged, name)
            for drawn, judged in (
                ("correlated", self.correlated),
                ("independent", self.independent),
            )
            for name in ("r2", "spearman", "error")
        }
        return found | {
            "predictor_samples": float(self.samples),
            "predictor_full_width_error": self.full_width_error,
            "predictor_drift": self.drift,
        }


@dataclass(frozen=True, kw_only=True)
class LatencyPredictor:
    """Predicts milliseconds per batch."""

    key: Mapping[str, str]  #: What the measurements hold for, by name.
    groups: tuple[str, ...]
    widths: tuple[int, ...]  #: Dense widths, same order.
    network: nn.Sequential
    scale: tuple[float, float]  #: Mean and deviation of the logarithm of the latency.
    report: PredictorReport

    def latency_ms(self, kept: Tensor) -> Tensor:
        """Return the predicted latency, differentiable, in milliseconds per batch.

        Args:
            kept: Filters that stay, ``[..., groups]``, floating, on the CPU.
        """
        mean, spread = self.scale
        found: Tensor = self.network(_encoded(kept, self.widths)).squeeze(-1)
        return torch.exp(found * spread + mean)

    @property
    def dense_ms(self) -> float:
        """Predicted latency of the unpruned network."""
        return float(self.latency_ms(torch.tensor(self.widths, dtype=torch.float64)).detach())

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, by name."""
        return dict(self.network.state_dict())

    def facts(self) -> dict[str, Any]:
        """Return all but the weights, as JSON-able data."""
        return {
            "key": dict(self.key),
            "groups": list(self.groups),
            "widths": list(self.widths),
            "scale": list(self.scale),
            "report": asdict(self.report),
        }

    @classmethod
    def rebuild(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "LatencyPredictor":
        """Rebuild a predictor from what :meth:`tensors` and :meth:`facts` gave."""
        network = _network(len(facts["groups"]))
        network.load_state_dict(dict(tensors))
        return cls(
            key=facts["key"],
            groups=tuple(facts["groups"]),
            widths=tuple(facts["widths"]),
            network=network.requires_grad_(False),
            scale=(facts["scale"][0], facts["scale"][1]),
            report=TypeAdapter(PredictorReport).validate_python(facts["report"]),
        )


def sample_widths(widths: Sequence[int], samples: int, generator: torch.Generator) -> Samples:
    """Draw different widths to time: tenths of every group, then correlated and independent ones.

    Correlated widths scatter by up to 0.3 around a common share; independent ones are uniform.

    Args:
        widths: Dense filters by group.
        samples: How many; fewer where the network has not as many.
        generator: Draws, on the CPU.
    """
    dense = torch.tensor(widths, dtype=torch.float64)
    found: dict[tuple[int, ...], Drawn] = {}

    def enter(shares: Tensor, drawn: Drawn) -> None:
        kept = (dense * shares.clamp(NARROWEST, 1.0)).round().clamp(min=1.0).long()
        found.setdefault(tuple(kept.tolist()), drawn)

    for tenth in range(10, 0, -1):
        enter(torch.tensor(tenth / 10), "uniform")
    for attempt in range(20 * samples):
        if len(found) >= samples:
            break
        shares = NARROWEST + (1.0 - NARROWEST) * torch.rand(len(dense), generator=generator)
        if attempt % 2:
            enter(shares, "independent")
        else:
            around = (torch.rand(len(dense), generator=generator) - 0.5) * 0.6
            enter(shares[0] + around, "correlated")
    return Samples(kept=np.array([*found], dtype=np.int64), drawn=tuple(found.values()))


def fit_predictor(
    samples: Samples,
    latencies_ms: Sequence[float],
    *,
    key: Mapping[str, str],
    groups: Sequence[str],
    widths: Sequence[int],
    drift: float,
    clock: Callable[[], float],
) -> LatencyPredictor:
    """Learn to predict measured latencies, and report on samples that were not learned from.

    Args:
        samples: What was timed; the first ones are uniform widths, the dense network the first.
        latencies_ms: Of each sample.
        key: What the measurements hold for.
        groups: Names of the columns of the samples.
        widths: Dense filters by group.
        drift: For the report.
        clock: Gives seconds.
    """
    began = clock()
    kept = torch.tensor(samples.kept, dtype=torch.float64)
    measured = torch.tensor(latencies_ms, dtype=torch.float64)
    learned, checked, held_out = _split(samples.drawn)
    logs = measured.log()
    scale = (float(logs[learned].mean()), float(logs[learned].std()) or 1.0)
    network = _network(len(groups))
    _fit(
        network,
        _encoded(kept, widths),
        (logs - scale[0]) / scale[1],
        learned=learned,
        checked=checked,
    )
    made = LatencyPredictor(
        key=key,
        groups=tuple(groups),
        widths=tuple(widths),
        network=network.requires_grad_(False),
        scale=scale,
        report=_NO_REPORT,
    )
    predicted = made.latency_ms(kept)
    uniform = [i for i, drawn in enumerate(samples.drawn) if drawn == "uniform"]
    report = PredictorReport(
        samples=len(measured),
        correlated=_judge(measured, predicted, held_out["correlated"]),
        independent=_judge(measured, predicted, held_out["independent"]),
        full_width_error=abs(float(predicted[0] / measured[0]) - 1.0),
        uniform=tuple(
            UniformWidth(
                share=float((kept[i] / torch.tensor(widths)).mean()),
                measured_ms=float(measured[i]),
                predicted_ms=float(predicted[i]),
            )
            for i in reversed(uniform)
        ),
        drift=drift,
        fit_seconds=clock() - began,
    )
    return LatencyPredictor.rebuild(made.tensors(), {**made.facts(), "report": asdict(report)})


def _network(groups: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(groups, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        ).double()


def _encoded(kept: Tensor, widths: Sequence[int]) -> Tensor:
    """Return shares of the filters, moved from [0.1, 1] to about [-1, 1]."""
    shares = kept.double() / torch.tensor(widths, dtype=torch.float64)
    return (shares - 0.55) / 0.45


def _split(drawn: Sequence[Drawn]) -> tuple[Tensor, Tensor, dict[Drawn, Tensor]]:
    """Return which samples are learned from, which choose the epoch, and which are held out."""
    generator = torch.Generator().manual_seed(0)
    held_out: dict[Drawn, Tensor] = {}
    learned = [i for i, how in enumerate(drawn) if how == "uniform"]
    checked: list[int] = []
    for how in ("correlated", "independent"):
        mine = torch.tensor([i for i, other in enumerate(drawn) if other == how], dtype=torch.int64)
        order = mine[torch.randperm(len(mine), generator=generator)]
        last = math.ceil(HELD_OUT * len(mine))
        middle = last + math.ceil(VALIDATION * (len(mine) - last))
        held_out[how] = order[:last]
        checked += order[last:middle].tolist()
        learned += order[middle:].tolist()
    return torch.tensor(learned), torch.tensor(checked), held_out


def _fit(
    network: nn.Sequential, inputs: Tensor, wanted: Tensor, *, learned: Tensor, checked: Tensor
) -> None:
    """Minimise the squared error; the network ends with its weights of the best epoch."""
    generator = torch.Generator().manual_seed(0)
    adam = optim.Adam(network.parameters(), lr=1e-3)
    best, best_at, steps = math.inf, 0, 0
    weights = copy.deepcopy(network.state_dict())
    while steps < min(MOST_STEPS, best_at + PATIENCE):
        order = learned[torch.randperm(len(learned), generator=generator)]
        for chosen in torch.split(order, BATCH):
            steps += 1
            adam.zero_grad()
            loss = F.mse_loss(network(inputs[chosen]).squeeze(-1), wanted[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        with torch.no_grad():
            error = float(F.mse_loss(network(inputs[checked]).squeeze(-1), wanted[checked]))
        if error < best:
            best, best_at, weights = error, steps, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)


def _judge(measured: Tensor, predicted: Tensor, which: Tensor) -> HeldOut:
    truth, found = measured[which], predicted[which]
    spread = float((truth - truth.mean()).square().sum())
    missed = float((truth - found).square().sum())
    ranks = torch.stack([values.argsort().argsort().double() for values in (truth, found)])
    return HeldOut(
        samples=len(which),
        r2=1.0 - missed / spread if spread else 0.0,
        spearman=float(torch.corrcoef(ranks)[0, 1]) if len(which) > 1 else 0.0,
        error=float((found / truth - 1.0).abs().mean()),
    )


_NOTHING = HeldOut(samples=0, r2=0.0, spearman=0.0, error=0.0)
_NO_REPORT = PredictorReport(
    samples=0,
    correlated=_NOTHING,
    independent=_NOTHING,
    full_width_error=0.0,
    uniform=(),
    drift=0.0,
    fit_seconds=0.0,
)
