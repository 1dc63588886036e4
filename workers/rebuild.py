"""A pruned network as a folder that anyone can load: settings, plan and weights, no pickle."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor, nn

from methods import PruningPlan, shrink
from tracking.artifacts import ArtifactStore
from tracking.results import Result, given
from workers.errors import WorkerError
from workers.exchange import BATCHES, FILES, Form, file_of, require_packages
from workers.models import build_model
from workers.networks.checkpoints import fit, from_safetensors, weights_hash
from workers.networks.shapes import layout_of
from workers.settings import (
    PRUNED_UNIT,
    LayerSettings,
    ModelSettings,
    Settings,
    TrialSpec,
    Unit,
)
from workers.staged_folder import FolderTakenError, write_folder

MODEL, PLAN, WEIGHTS, CARD = "model.json", "plan.json", "weights.safetensors", "README.md"
CLASSES = "classes.json"
_SHOWN_CLASSES = 20
#: May differ between two exports of one trial: what is known by then, what was asked for.
_VARYING = frozenset({CARD, CLASSES, *FILES.values()})


class ExportError(WorkerError, ValueError):
    """A folder does not hold a network that can be loaded, or a trial has none to export."""

    def __init__(self, folder: str, problem: str) -> None:
        super().__init__(folder, problem)
        self.folder, self.problem = folder, problem

    def __str__(self) -> str:
        return f"{self.folder}: {self.problem}"


class NetworkRecord(Settings):
    """``model.json``: all that is needed beside the plan and the weights."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    model: ModelSettings
    layers: LayerSettings
    unit: Unit = PRUNED_UNIT  #: What was pruned.
    num_classes: int
    classes: tuple[str, ...] = ()  #: Names, in the order of the logits; of old exports unknown.
    input_shape: tuple[int, int, int]  #: (C, H, W) of one image.
    mean: tuple[float, ...]  #: Per channel, of images in [0, 1]: subtract, then divide by ``std``.
    std: tuple[float, ...]
    weights: str  #: Content hash of the weights.


def load_pruned(folder: str | Path) -> nn.Module:
    """Rebuild an exported network, on the CPU and in evaluation mode.

    Its input is images in [0, 1], ``[N, C, H, W]``, normalised by the mean and standard deviation
    in ``model.json``. A model named as ``package.module:callable`` runs that code.

    Raises:
        ExportError: A file is missing or damaged, or the weights are not those of ``model.json``.
        ModelError: The network cannot be built here.
        PlanError: The plan does not fit the network.
        WeightsMismatchError: The weights do not fit the network.
    """
    folder = Path(folder)
    try:
        record = NetworkRecord.model_validate_json((folder / MODEL).read_bytes())
        plan_data = json.loads((folder / PLAN).read_bytes()) if (folder / PLAN).exists() else None
        weights = from_safetensors((folder / WEIGHTS).read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise ExportError(str(folder), f"not a folder written by export: {error}") from error
    return _rebuilt(folder, record, plan_data, weights)


def _rebuilt(
    folder: Path, record: NetworkRecord, plan_data: Any, weights: dict[str, Tensor]
) -> nn.Module:
    found = weights_hash(weights)
    if found != record.weights:
        raise ExportError(
            str(folder / WEIGHTS),
            f"the weights have content hash {found}, and {MODEL} says {record.weights}; the file "
            "was changed or damaged. Export the trial again.",
        )
    with torch.random.fork_rng(devices=[]):  # the fresh weights are thrown away
        network = build_model(record.model, record.num_classes, record.input_shape[0])
    if plan_data is not None:
        layout = layout_of(network, record.input_shape, record.layers, record.unit)
        shrink(network, PruningPlan.from_json(plan_data), layout)
    fit(network, weights)
    return network.eval()


def export_trial(
    spec: TrialSpec,
    stored: Mapping[str, Any],
    artifacts: ArtifactStore,
    folder: str | Path,
    *,
    forms: Collection[Form] = (),
    classes: Sequence[str] = (),
    standing: str = "",
) -> Path:
    """Write the network of a completed trial to ``folder``, with a model card, and return it.

    Args:
        spec: The trial.
        stored: Its result.
        artifacts: Store that holds its weights.
        folder: Created if needed, as a whole. The same trial may be exported to it again.
        forms: Files for other programs to write, too.
        classes: Names of the classes, in the order of the logits; none: they are not known.
        standing: What is known of the trial's arm beside others, Markdown for the card.

    Raises:
        PackagesMissingError: What a form needs is not installed.
        ExchangeError: The network cannot be written in a form.
        ExportError: The trial has no weights, or the folder holds something else or cannot be
            written.
    """
    require_packages(forms)
    folder, result = Path(folder), Result.read(stored)
    if result.weights is None:
        raise ExportError(str(folder), f"a trial of kind {spec.kind!r} leaves no network to export")
    record = NetworkRecord(
        model=spec.model,
        layers=spec.layers,
        unit=spec.unit,
        num_classes=given(result.num_classes),
        classes=result.classes or (),
        input_shape=given(result.input_shape),
        mean=given(result.mean),
        std=given(result.std),
        weights=result.weights,
    )
    files = {WEIGHTS: artifacts.read_bytes(given(result.artifacts)["weights"])}
    if result.plan is not None:
        files[PLAN] = f"{json.dumps(result.plan, sort_keys=True)}\n".encode()
    files[MODEL] = f"{record.model_dump_json(indent=2)}\n".encode()
    if classes:
        files[CLASSES] = f"{json.dumps(list(classes))}\n".encode()
    if forms:
        weights = from_safetensors(files[WEIGHTS])
        network = _rebuilt(folder, record, result.plan, weights)
        facts = _facts(record, classes)
        files |= {FILES[form]: file_of(form, network, record.input_shape, facts) for form in forms}
    files[CARD] = _model_card(spec, result, files, standing, classes).encode()
    try:
        write_folder(folder, files, _VARYING)
    except FolderTakenError as error:
        raise ExportError(error.folder, error.problem) from None
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}; name another folder"
        raise ExportError(str(folder), problem) from None
    return folder


def _facts(record: NetworkRecord, classes: Sequence[str]) -> dict[str, str]:
    """Say beside the network how to feed it, and what its logits are."""
    facts = {
        "input_shape": json.dumps(record.input_shape),
        "mean": json.dumps(record.mean),
        "std": json.dumps(record.std),
        "weights": record.weights,
    }
    return facts | ({"classes": json.dumps(list(classes))} if classes else {})


def _model_card(
    spec: TrialSpec,
    result: Result,
    files: Collection[str],
    standing: str,
    classes: Sequence[str],
) -> str:
    how = f"method {spec.method}" if spec.method else f"kind {spec.kind}"
    test = result.test_accuracy
    tested = "" if test is None else f"{test:.2f} % (test), "
    return f"""# {spec.model.name}, {how}

| | this network | dense | removed |
|---|---|---|---|
| MACs (one image, conv and linear) | {given(result.macs):,} | {given(result.base_macs):,} \
| {given(result.macs_reduction):.1%} |
| parameters | {given(result.params):,} | {given(result.base_params):,} \
| {given(result.params_reduction):.1%} |

Accuracy on {spec.data.name}: {tested}{given(result.val_accuracy):.2f} % (validation); one run, \
seed {spec.seed}.
{standing and f"{chr(10)}{standing}{chr(10)}"}
Load it with prunesweep installed: \
`from workers.rebuild import load_pruned; network = load_pruned("this/folder")`
{_other_files(files)}
Input: images in [0, 1], shape {given(result.input_shape)}, minus mean \
{_numbers(given(result.mean))}, divided by {_numbers(given(result.std))}.
Output: one logit for each of {given(result.num_classes)} classes{_named(classes)}.

Trial `{spec.uid}`, weights `{result.weights}`, data `{result.data_hash}`.
{_classes(result)}"""


def _classes(result: Result) -> str:
    """Return a table of the classes with their images; nothing for a result that has none."""
    if not result.classes:
        return ""
    rows = zip(range(len(result.classes)), result.classes, result.class_images or (), strict=True)
    return "\n| logit | class | training | validation | test |\n|---|---|---|---|---|\n" + "".join(
        f"| {n} | {_cell(name)} | {a} | {b} | {c} |\n" for n, name, (a, b, c) in rows
    )


def _cell(text: str) -> str:
    """Return a name of the user's that stays within its cell."""
    return " ".join(text.replace("|", "\\|").split())


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _other_files(files: Collection[str]) -> str:
    """Tell of the files that run without prunesweep."""
    told = {
        FILES["onnx"]: "ONNX, input `images`, output `logits`",
        FILES["torch_export"]: "for `torch.export.load`",
    }
    there = [f"`{name}` ({what})" for name, what in told.items() if name in files]
    if not there:
        return ""
    checked = f"logits were checked on {' and '.join(map(str, BATCHES))} images"
    return f"\nWithout prunesweep: {', '.join(there)}; any number of images, {checked}.\n"


def _named(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:_SHOWN_CLASSES])
    more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
    return f", in the order of `{CLASSES}`: {shown}{more}" if classes else ""
