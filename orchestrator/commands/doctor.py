"""Try the whole chain on a few images before anything is spent.

What a sweep would meet only after hours is met in a minute: the data on the workers, the
checkpoint, the groups at their extremes, every arm's method for one epoch, ledger and tracking.
"""

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from rich.console import Console
from torch import Tensor, nn

from methods import CostTarget, masked_difference
from orchestrator.agenda.front_controls import settled
from orchestrator.agenda.predictors import predictor_settings
from orchestrator.agenda.prunable import PrunableNetwork, prunable_or_why
from orchestrator.agenda.survey import Survey
from orchestrator.agenda.trial_matrix import trial_matrix
from orchestrator.cluster.machines import inspect_machines, verdict_of
from orchestrator.errors import InputError
from orchestrator.specification.arms import ArmSettings
from orchestrator.specification.settings import TrackingSettings
from orchestrator.specification.spec import ControlSettings, SweepSpec
from orchestrator.sweep import Sweep
from prunesweep import PrunesweepError
from tracking.artifacts import ArtifactStore
from tracking.errors import MissingLedgerError
from tracking.ledger.ledger import Ledger
from tracking.mlflow_mirror.server import sqlite_file, why_silent
from tracking.places import target_label
from tracking.plain_text import visible
from tracking.records import TrialState
from tracking.results import Result, given
from workers.data import describe
from workers.models import build_model
from workers.networks.checkpoints import fit
from workers.networks.shapes import POLICIES
from workers.raised import told

IMAGES_PER_CLASS = 8  #: Of the rehearsal, at least; and two batches.
CHEAP_S = 10.0  #: Policies that the sweep does not ask for are tried for that long.
FEW_SAMPLES = 30  #: Networks the rehearsal times where a method learns latency.


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One link of the chain, and whether it holds."""

    name: str
    ok: bool
    detail: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON-able data."""
        return asdict(self)


def examine(sweep: Sweep, tell: Callable[[Finding], None], *, debug: bool = False) -> list[Finding]:
    """Try every link; ``tell`` hears of each as soon as it has been tried.

    Whatever is raised unexpectedly becomes a finding; with ``debug`` its traceback is printed, too.
    Nothing is written where the sweep's records belong, and nothing else is left behind.
    """
    findings: list[Finding] = []

    def look(name: str, try_it: Callable[[], str]) -> bool:
        began = time.perf_counter()
        try:
            ok, detail = True, try_it()
        except (PrunesweepError, OSError) as error:
            ok, detail = False, str(error)
        except Exception as error:  # a user's network, method or file raises anything
            ok, detail = (
                False,
                f"{told(error)}; `prunesweep --debug doctor` shows more",
            )
            if debug:
                traceback.print_exc()
        seconds = time.perf_counter() - began
        findings.append(Finding(name=name, ok=ok, detail=detail, seconds=seconds))
        tell(findings[-1])
        return ok

    found: list[Survey] = []
    if look("data, network, checkpoint", lambda: _survey(sweep, found)):
        spec, surveyed = sweep.spec, found[0]
        look("dense network", lambda: _dense(sweep, surveyed))
        look("targets", lambda: _targets(spec, surveyed))
        look("layer policies", lambda: _policies(spec, surveyed))
        look("smallest network", lambda: _extreme(spec, surveyed))
    look("ledger", lambda: _ledger(sweep.spec.tracking))
    look("artifacts", lambda: _artifacts(sweep.spec.tracking))
    look("MLflow", lambda: _mlflow(sweep.spec.tracking))
    if found:
        look("rehearsal", lambda: _rehearse(sweep.spec))
        if sweep.spec.resources.address is not None:
            look("machines", lambda: _machines(sweep.spec))
    return findings


class _BrokenError(InputError):
    """A link does not hold; the message is the finding."""


def _survey(sweep: Sweep, found: list[Survey]) -> str:
    surveyed = sweep.survey()
    found.append(surveyed)
    data, layout = surveyed.data, surveyed.filters.layout
    weights = f"checkpoint {surveyed.weights_hash}" if surveyed.weights_hash else "no checkpoint"
    return (
        f"{visible(data.told())}; {layout.cost.dense('macs'):,} MACs, "
        f"{layout.cost.dense('params'):,} parameters, {len(layout.groups)} prunable groups; "
        f"{weights}"
    )


def _dense(sweep: Sweep, surveyed: Survey) -> str:
    """Say what the dense network is worth, as far as is known before it is trained."""
    found = sweep.try_dense(surveyed)
    if found is None:
        return "no checkpoint: the sweep trains it, and ends there if it stays at chance"
    return str(found)


def _targets(spec: SweepSpec, surveyed: Survey) -> str:
    def gap(target: CostTarget, prunable: PrunableNetwork) -> str:
        projected = prunable.projected(target, spec.search.tolerance)
        label = target_label(target.axis, target.reduction)
        if not projected.within_tolerance:
            raise _BrokenError(
                f"Uniform ratios meet {label} only within {projected.gap:+.2%}; the "
                f"tolerance is {spec.search.tolerance:.2%}. The network has too few filters for "
                "it: raise search.tolerance or move the target."
            )
        unit = prunable.layout.policy.unit
        what = "" if unit == "filters" else f" by {unit}"
        return f"{label}{what} {projected.gap:+.2%}"

    gaps = [
        gap(target, prunable) for prunable in surveyed.every_unit for target in spec.cost_targets
    ]
    if gaps:
        return "uniform ratios meet " + ", ".join(gaps)
    if spec.targets is not None:
        least, most = surveyed.filters.reachable_on(spec.targets.cost)
        drops = ", ".join(f"{points:g}" for points in spec.targets.accuracy_drop)
        return f"the cheapest within {drops} points is searched, from {least:.1%} to {most:.1%}"
    controls = settled(spec, surveyed).control_targets
    labels = ", ".join(target_label(target.axis, target.reduction) for target in controls)
    return f"none: the front is searched, with controls at {labels}"


def _policies(spec: SweepSpec, surveyed: Survey) -> str:
    """Say what may go under the policy of the sweep, and what under others that let more go."""
    network = build_model(spec.model, surveyed.data.num_classes, surveyed.data.channels)
    own, told = surveyed.filters, [surveyed.filters.told()]
    began = time.perf_counter()
    for policy in POLICIES:
        if time.perf_counter() - began > CHEAP_S:
            return "; ".join([*told, "`prunesweep inspect SPEC` shows the other policies"])
        if policy != own.layout.policy.kind:
            other = prunable_or_why(policy, spec, network, surveyed.data.input_shape)
            if isinstance(other, PrunableNetwork) and other.reachable[1] > own.reachable[1]:
                told.append(f"{policy} would let {other.reachable[1]:.1%} go")
    return "; ".join(told)


def _extreme(spec: SweepSpec, surveyed: Survey) -> str:
    """Shrink every group as far as it may go, and compare with the masked network."""
    network = build_model(spec.model, surveyed.data.num_classes, surveyed.data.channels).eval()
    if surveyed.weights is not None:
        fit(network, surveyed.weights)
    images = torch.rand(8, *surveyed.data.input_shape)
    difference = max(_difference(network, prunable, images) for prunable in surveyed.every_unit)
    if not difference <= 1e-3:
        raise _BrokenError(
            f"At the largest ratios the masked and the shrunk network differ by {difference:.1e} "
            "of the largest logit. Some layer passes its channels on in a way that is not "
            "understood: protect it."
        )
    return f"every group at its largest ratio; masked and shrunk differ by {difference:.0e}"


def _difference(network: nn.Module, prunable: PrunableNetwork, images: Tensor) -> float:
    return masked_difference(network, prunable.smallest, prunable.layout, images)


def _ledger(tracking: TrackingSettings) -> str:
    file = sqlite_file(tracking.ledger_url)
    try:
        with Ledger.open(tracking.ledger_url, create=False) as ledger:
            return f"{ledger.url} holds {len(ledger.sweeps())} sweeps"
    except MissingLedgerError as error:
        return f"new, in {_writable(file.parent) if file else error.url}"


def _writable(folder: Path) -> str:
    """Return ``folder`` if it could be made and written to."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    with tempfile.TemporaryFile(dir=there):
        return str(folder)


def _artifacts(tracking: TrackingSettings) -> str:
    if "://" not in tracking.artifacts_url:
        return f"folder {_writable(Path(tracking.artifacts_url))}"
    store = ArtifactStore(tracking.artifacts_url)
    probe = f"doctor/{uuid4().hex}"
    store.write_bytes(probe, b"probe")
    same = store.read_bytes(probe) == b"probe"
    store.remove(probe)
    if not same:
        raise _BrokenError(f"{store!r} does not give back what was written.")
    return f"{store!r} takes and gives files"


def _mlflow(tracking: TrackingSettings) -> str:
    url = tracking.mlflow_url
    if url is None:
        return "off"
    if not url.startswith("http"):
        return "a database, written directly"
    problem = why_silent(url)
    if problem is not None:
        raise _BrokenError(
            f"{tracking.mlflow} does not answer: {problem}. A sweep would run all the same, and "
            "`prunesweep publish` would show it later."
        )
    return f"{tracking.mlflow} answers"


def _machines(spec: SweepSpec) -> str:
    """Prepare the images on every machine of the cluster, and compare what they say."""
    ok, detail = verdict_of(inspect_machines(spec))
    if not ok:
        raise _BrokenError(detail)
    return detail


def _rehearse(spec: SweepSpec) -> str:
    """Run every arm once, on a few images for one epoch, through workers, ledger and MLflow."""
    with _somewhere_else(spec) as small:
        sweep = Sweep(small)
        sweep.run(console=Console(file=StringIO()))
        with Ledger.open(small.tracking.ledger_url) as ledger:
            trials = ledger.trials(ledger.sweep(small.name).id)
    broken = [trial for trial in trials if trial.state is not TrialState.COMPLETED]
    if broken:
        causes = "\n".join(f"{t.spec['method'] or t.spec['kind']}: {t.cause}" for t in broken)
        raise _BrokenError(f"{len(broken)} of {len(trials)} trials failed:\n{causes}")
    pruned = [Result.read(trial.result) for trial in trials if trial.spec["kind"] == "prune"]
    images = sum(given(result.samples_seen) for result in pruned)
    seconds = sum(given(r.seconds_select) + given(r.seconds_recover) for r in pruned)
    rate = images / max(seconds, 1e-9)
    hours = _epochs(spec) * describe(spec.data).train_images / rate / 3600
    return (
        f"{len(trials)} trials through worker, ledger and MLflow; about {rate:,.0f} images/s per "
        f"worker, so about {hours / spec.resources.workers:.1f} h with {spec.resources.workers} "
        f"workers ({hours:.1f} device hours)"
    )


def _epochs(spec: SweepSpec) -> int:
    return trial_matrix(spec).all_epochs


@contextmanager
def _somewhere_else(spec: SweepSpec) -> Iterator[SweepSpec]:
    """Give a specification as small as can be, whose records are gone afterwards."""
    data, recipe = describe(spec.data), spec.recipe
    images = max(IMAGES_PER_CLASS * data.num_classes, 2 * recipe.batch_size)
    keep = 1 - spec.data.validation_fraction
    most = data.train_images + data.val_images
    with tempfile.TemporaryDirectory(prefix="prunesweep-doctor-") as folder:
        yield spec.model_copy(
            update={
                "name": f"doctor-{uuid4().hex[:8]}",
                "data": spec.data.model_copy(
                    update={
                        "train_images": min(most, round(images / keep) + 1),
                        "test_images": min(data.test_images, 4 * data.num_classes),
                    }
                ),
                "arms": tuple(_rehearsed(arm) for arm in spec.arms),
                "search": spec.search.model_copy(update={"trials": 2, "window": 1}),
                "seeds": spec.seeds[:2],
                "recipe": recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0.0}),
                "baseline": _rehearsed_baseline(spec),
                "controls": ControlSettings(
                    dense=False, random=False, uniform_l1=False, scratch=False
                ),
                "tracking": TrackingSettings(store=folder),
            }
        )


def _rehearsed_baseline(spec: SweepSpec) -> dict[str, Any]:
    """Return what trains the dense network where it is trained, for one epoch."""
    trained = {} if spec.checkpoint and not spec.adapts else {"epochs": 1}
    return {**spec.baseline, **trained, "warmup_epochs": 0.0, "allow_chance": True}


def _rehearsed(arm: ArmSettings) -> ArmSettings:
    """Return the arm, timing few networks where it learns latency."""
    if predictor_settings(arm) is None:
        return arm
    return arm.model_copy(update={"settings": {**arm.settings, "samples": FEW_SAMPLES}})
