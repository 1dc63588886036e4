"""Published rows for ResNet-56 at half of the MACs, as drops below a dense baseline of their own.

The published checkpoint is trained on the CIFAR copy, whose pixels are not the ones it knows; what
comes of that is the baseline. From there every method prunes and recovers, and the dense control
trains as long. A call goes on where the one before ended, also within a trial: results lie in the
folder, one file each, as do the checkpoints of trials that were cut short.
"""

import json
import logging
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu.setting import Setting, write_json
from benchmarks.gpu.shapes import HALF, layout_for, uniform_ratios
from benchmarks.loops import Case
from workers.node.node import weights_path
from workers.settings import Recipe, TrialSpec
from workers.trial import run_trial

log = logging.getLogger(__name__)

SEEDS: Final = (1, 2, 3)
BASELINE: Final = "baseline"
DENSE: Final = "dense control"
METHODS: Final = {
    "L1": "filter_norm",
    "FPGM": "geometric_median",
    "SCOP": "scop",
    "network slimming": "network_slimming",
}
#: Percent of the original CIFAR-10 before and after, at 52 to 56 % fewer MACs: Torch-Pruning's
#: table for L1 and slimming; the papers' own for FPGM (from a trained network) and SCOP.
PUBLISHED: Final = {
    "L1": (93.53, 92.93),
    "FPGM": (93.59, 93.49),
    "SCOP": (93.70, 93.64),
    "network slimming": (93.53, 93.29),
}
NUMBERS: Final = (
    "test_accuracy",
    "val_accuracy_before",
    "macs_reduction",
    "masked_difference",
    "seconds_total",
    "seconds_select",
    "seconds_recover",
)


class _TimeIsUpError(BaseException):
    """The process ends here: the trial sees to nothing any more, and its checkpoint stays."""


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield the accuracies so far, by row and seed."""
    case = _case(setting)
    start = case.spec(weights=setting.published(), seed=0)
    if stored(setting, BASELINE, start) is None:
        train(BASELINE, start, setting)
    baseline = stored(setting, BASELINE, start)
    if baseline is None:
        setting.left_out.append("all rows, and what is left of the baseline: call it again")
        yield {"rows": {}}
        return
    specs = dict(_specifications(setting, case, baseline["weights"]))
    _train_all(setting, specs)
    rows = {name: stored(setting, name, spec) for name, spec in specs.items()}
    setting.left_out.extend(name for name, row in rows.items() if row is None)
    yield {
        "baseline": baseline,
        "rows": {name: row for name, row in rows.items() if row is not None},
        "recipe": case.recipe.model_dump(mode="json"),
        "published": {name: list(pair) for name, pair in PUBLISHED.items()},
    }


def _case(setting: Setting) -> Case:
    recipe = Recipe(
        epochs=2 if setting.miniature else 40,
        batch_size=16 if setting.miniature else 128,
        learning_rate=0.05,
        augmentation="shift_flip",
    )
    return Case(model=setting.model("cifar_resnet56"), data=setting.cifar(), recipe=recipe)


def _specifications(setting: Setting, case: Case, weights: str) -> Iterator[tuple[str, TrialSpec]]:
    """Yield every row of the first seed, then of the next."""
    ratios = uniform_ratios(layout_for(case, case.network()), HALF)
    for seed in SEEDS[:1] if setting.miniature else SEEDS:
        yield f"{DENSE} {seed}", case.spec(kind="dense", weights=weights, seed=seed)
        for name, method in METHODS.items():
            yield (
                f"{name} {seed}",
                case.spec(kind="prune", weights=weights, seed=seed, method=method, ratios=ratios),
            )


def _train_all(setting: Setting, specs: Mapping[str, TrialSpec]) -> None:
    """Run what has no result yet, in several processes at once, as long as there is time.

    Raises:
        RuntimeError: A process failed.
    """
    context = multiprocessing.get_context("spawn")
    waiting: Queue[tuple[str, TrialSpec] | None] = context.Queue()
    for name, spec in specs.items():
        if stored(setting, name, spec) is None:
            waiting.put((name, spec))
    processes = [
        context.Process(target=_train_in_turn, args=(waiting, setting), daemon=True)
        for _ in range(setting.processes)
    ]
    for process in processes:
        waiting.put(None)
        process.start()
    for process in processes:
        process.join()
    waiting.cancel_join_thread()  # what nobody had time for
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise RuntimeError(f"a process ended with status {failed[0]}; what it said is above")


def _train_in_turn(waiting: "Queue[tuple[str, TrialSpec] | None]", setting: Setting) -> None:
    """Be one of the processes: take trials until none is left or the time is up."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("workers").setLevel(logging.WARNING)
    while (given := waiting.get()) is not None and setting.seconds_left > 0:
        train(*given, setting)


def train(name: str, spec: TrialSpec, setting: Setting) -> None:
    """Run a trial, or as much of it as there is time for."""
    attempts = _file(setting, name).with_suffix(".attempts")
    attempt = int(attempts.read_text()) + 1 if attempts.exists() else 1
    write_json(attempts, attempt)
    node = setting.node(checkpoint_epochs=1, attempt=attempt)
    moments = [time.time()]

    def report(step: int, values: Mapping[str, float]) -> None:
        moments.append(time.time())
        longest = max(after - before for before, after in pairwise(moments))
        has_kept = len(moments) > 2  # an epoch is kept after its report, so every call gets on
        if has_kept and setting.seconds_left < 2 * longest and step < spec.recipe.epochs:
            log.info("%s: no time is left after epoch %d", name, step)
            raise _TimeIsUpError

    try:
        result = run_trial(spec, node, report)
    except _TimeIsUpError:
        return
    if name != BASELINE:  # the next trials start from that
        node.artifacts.remove(weights_path(result["weights"]))
    numbers = {key: result[key] for key in (*NUMBERS, "weights")}
    write_json(_file(setting, name), {"uid": spec.uid, **numbers})
    log.info("%s: %.2f %%", name, result["test_accuracy"])
    attempts.unlink()


def _file(setting: Setting, name: str) -> Path:
    return setting.folder / "rows" / f"{name.replace(' ', '-')}.json"


def stored(setting: Setting, name: str, spec: TrialSpec) -> dict[str, Any] | None:
    """Return the result of a trial; None where there is none, or one of another trial."""
    path = _file(setting, name)
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if found["uid"] == spec.uid else None
