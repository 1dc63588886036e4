"""The session of a trial against a bare loop and, on CUDA, against one captured as a graph.

For networks dense and with half of their MACs, in both number types: images a second, the share of
a trial that is training, what passes before the first step, evaluation and recalibration; and
whether letting cuDNN time its kernels first pays for a shape.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.graph import graph_rate
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.shapes import halved
from benchmarks.loops import Case, measure_bare, measure_training, measure_trial
from workers.settings import Recipe

DENSE, HALF = "dense", "half of the MACs"


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield images a second and shares of time, by network, shape and number type."""
    cases, rows = _cases(setting), list[dict[str, Any]]()
    first = measure_trial(cases[0], setting.node())  # images are decoded, the device is woken
    parts = [
        (f"{case.model.name} {shape} {case.recipe.precision}", (case, shape))
        for case in cases
        for shape in (DENSE, HALF)
    ]
    for _, (case, shape) in setting.in_time(parts):
        rows.append(_row(case, shape, setting))
        yield {"first_trial": first, "rows": rows}


def _cases(setting: Setting) -> list[Case]:
    recipe = Recipe(epochs=3, batch_size=128, augmentation="shift_flip", learning_rate=0.02)
    if setting.miniature:
        recipe = recipe.model_copy(update={"epochs": 2, "batch_size": 32})
    names = ("digits_net",) if setting.miniature else ("cifar_resnet56", "cifar_resnet20")
    return [
        Case(
            model=setting.model(name),
            data=setting.cifar(),
            recipe=recipe.model_copy(update={"precision": precision}),
        )
        for name in names
        for precision in ("float32", "bfloat16")
    ]


def _row(case: Case, shape: str, setting: Setting) -> dict[str, Any]:
    node, rounds = setting.node(), 1 if setting.miniature else 3
    prepare = None if shape == DENSE else halved(case)
    row: dict[str, Any] = {
        "network": case.model.name,
        "shape": shape,
        "precision": case.recipe.precision,
        **measure_training(case, node, rounds, prepare),
    }
    row["bare_images_per_s_kernels_timed"] = measure_bare(case, node, rounds, prepare)
    if setting.device.type == "cuda":
        row["graph_images_per_s"] = graph_rate(case, setting.device, prepare)
    if shape == DENSE:
        row |= measure_trial(case, node)
    return row
