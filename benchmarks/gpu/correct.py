"""Every method, one trial each: the device against the CPU, resumed, and twice the same.

A network is trained on drawn pictures, and every method prunes it on both. Methods that look at
weights alone must choose the same filters on both, others nearly the same where nothing is trained
to choose. A trial that is killed after its first epoch and goes on must come to what an undisturbed
one came to, within what two undisturbed ones differ by. That the shrunk network computes what the
masked one does is checked by every trial.
"""

import logging
import math
from collections.abc import Iterator
from typing import Any, Final

import torch

import methods
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.shapes import uniform_ratios
from benchmarks.loops import Case, to_nobody
from methods import CostTarget
from workers.networks.shapes import layout_of
from workers.settings import LayerSettings, Recipe, TrialSpec
from workers.training.trial_checkpoints import checkpoint_folder
from workers.trial import run_trial

log = logging.getLogger(__name__)

TARGET: Final = CostTarget(axis="macs", reduction=0.4)
WEIGHTS_ALONE: Final = {"filter_norm", "geometric_median", "bn_scale", "random"}
MOST_OTHER_FILTERS: Final = (
    0.05  #: Of those kept, where sums of the device differ in the last bits.
)
#: Forms of a method besides its defaults: what is trained to choose, and other layers.
FORMS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "network_slimming": ("network_slimming", {}),
    "free_gates": ("free_gates", {}),
    "iterative": ("filter_norm", {"schedule": {"name": "iterative"}}),
    "ghfp": ("filter_norm", {"schedule": {"name": "ghfp"}}),
    "scatter": ("filter_norm", {"layers": LayerSettings(policy="scatter")}),
}
CHEAPER: Final[dict[str, dict[str, Any]]] = {"functionality": {"am_steps": 5, "images": 64}}
IN_MINIATURE: Final = ("filter_norm", "weight_gates", "stripe_wise", "ghfp")


class _KilledError(BaseException):
    """The process ends here: the trial sees to nothing any more."""


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield, by method, how the device differs from the CPU, and what is not as it should be."""
    epochs, batch = (6, 16) if setting.miniature else (8, 64)
    case = Case(
        model=setting.model("cifar_resnet20"),
        data=setting.pictures(),
        recipe=Recipe(epochs=epochs, batch_size=batch, learning_rate=0.1, augmentation="shift"),
    )
    baseline = run_trial(case.spec(), setting.node(), to_nobody)
    found: dict[str, Any] = {
        "dense_accuracy": baseline["test_accuracy"],
        "test_images": baseline["test_images"],
        "methods": {},
        "problems": _switches(setting.device),
    }
    names = IN_MINIATURE if setting.miniature else (*methods.available(), *FORMS)
    recipe = case.recipe.model_copy(update={"epochs": 4, "learning_rate": 0.01})
    start = case.spec(kind="prune", weights=baseline["weights"], recipe=recipe, method="random")
    for name, _ in setting.in_time([(name, None) for name in names]):
        try:
            spec = form(name, start, case)
            row = _compared(spec, setting)
        except Exception as error:  # the other methods go on
            log.exception("%s", name)
            found["problems"].append(f"{name}: {type(error).__name__}: {error}")
        else:
            found["methods"][name] = row
            found["problems"] += [f"{name}: {problem}" for problem in problems_of(row)]
        yield found


def form(name: str, start: TrialSpec, case: Case) -> TrialSpec:
    """Return the trial of one method, or of one form of it, at the same cost as the others."""
    method, changes = FORMS.get(name, (name, {"method_settings": CHEAPER.get(name, {})}))
    layers = changes.get("layers", start.layers)
    kind = methods.kind_of(method)
    if kind.name in {"weight_gates", "stripe_wise"}:  # they are given the cost
        changes = {**changes, "target": TARGET, "unit": kind.unit}
    else:
        layout = layout_of(case.network(), case.info.input_shape, layers)
        changes = {**changes, "ratios": uniform_ratios(layout, TARGET)}
    return TrialSpec.model_validate({**start.model_dump(), "method": method, **changes})


def _switches(device: torch.device) -> list[str]:
    """Return what differs from what is documented of a trial's determinism, after a trial."""
    wanted = {
        "deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            device.type == "cpu",
        ),
        "cudnn.benchmark": (torch.backends.cudnn.benchmark, False),
        "TF32 in convolutions": (torch.backends.cudnn.allow_tf32, False),
        "TF32 in products": (torch.backends.cuda.matmul.allow_tf32, False),
    }
    return [f"{name} is {found}" for name, (found, right) in wanted.items() if found != right]


def _compared(spec: TrialSpec, setting: Setting) -> dict[str, Any]:
    cpu = run_trial(spec, setting.node(torch.device("cpu")), to_nobody)
    device = run_trial(spec, setting.node(), to_nobody)
    again = run_trial(spec, setting.node(), to_nobody)
    resumed = _resumed(spec, setting)
    reduced = spec.recipe.model_copy(update={"precision": "bfloat16"})
    bfloat16 = run_trial(spec.model_copy(update={"recipe": reduced}), setting.node(), to_nobody)
    return {
        "method": methods.kind_of(spec.method or "").name,
        "learns_to_choose": device["epochs_select"] > 0,
        "other_filters": _other_filters(cpu["plan"], device["plan"]),
        "test_images": cpu["test_images"],
        "cpu_accuracy": cpu["test_accuracy"],
        "device_accuracy": device["test_accuracy"],
        "bfloat16_accuracy": bfloat16["test_accuracy"],
        "masked_difference": device["masked_difference"],
        "loss": device["val_loss"],
        "loss_of_two_runs": abs(device["val_loss"] - again["val_loss"]),
        "loss_when_resumed": abs(device["val_loss"] - resumed["val_loss"]),
        "device_seconds": device["seconds_total"],
        "cpu_seconds": cpu["seconds_total"],
    }


def problems_of(row: dict[str, Any]) -> list[str]:
    """Return what one method's numbers should not be."""
    problems = []
    if not row["learns_to_choose"]:
        most = 0.0 if row["method"] in WEIGHTS_ALONE else MOST_OTHER_FILTERS
        if row["other_filters"] > most:
            problems.append(f"{row['other_filters']:.1%} of the filters are others than on the CPU")
    noise = _noise(row["cpu_accuracy"], row["test_images"])
    for name in ("device", "bfloat16"):
        accuracy = row[f"{name}_accuracy"]
        if abs(accuracy - row["cpu_accuracy"]) > noise:
            problems.append(
                f"{accuracy:.1f} % ({name}) against {row['cpu_accuracy']:.1f} % on the CPU, noise "
                f"is {noise:.1f}"
            )
    rounding = 3 * row["loss_of_two_runs"] + 0.02 * row["loss"]
    if row["loss_when_resumed"] > rounding:
        problems.append(f"resumed, its loss is {row['loss_when_resumed']:.4f} away")
    return problems


def _noise(accuracy: float, images: int) -> float:
    """Return three standard errors of the difference of two such accuracies, in points."""
    share = min(max(accuracy / 100, 0.05), 0.95)
    return 100 * 3 * math.sqrt(2 * share * (1 - share) / images)


def _resumed(spec: TrialSpec, setting: Setting) -> dict[str, Any]:
    """Run a trial that is killed at the first report behind a checkpoint, and goes on."""
    node = setting.node(checkpoint_epochs=1)

    def report(_step: int, _values: dict[str, float]) -> None:
        if node.artifacts.files(checkpoint_folder(spec.uid)):
            raise _KilledError

    try:
        run_trial(spec, node, report)
    except _KilledError:
        pass
    else:
        raise AssertionError("the trial left no checkpoint before its last report")
    return run_trial(spec, setting.node(checkpoint_epochs=1, attempt=2), to_nobody)


def _other_filters(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the share of filters that only one of two plans keeps, of those that either keeps."""
    both = either = 0
    for group, kept in one["kept"].items():
        first, second = set(kept), set(other["kept"][group])
        both, either = both + len(first & second), either + len(first | second)
    return 1 - both / either
