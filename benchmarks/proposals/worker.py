"""A worker of `benchmarks.proposals`: judges proposals by the code of the checkout it runs in.

``python worker.py IMAGES STORE SEED``: for every line of standard input, a number, it
judges that many proposals and prints the seconds they took, by the wall and of CPU. Modules are
looked up by their names of today and of earlier commits, so that these can be measured beside
today's.
"""

import importlib
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import torch

JUDGED = 1000  #: Images to re-estimate batch norms with, and as many to judge on.
FIRST_PLACES = {
    "node": ("workers.node.node", "workers.node"),
    "checkpoints": ("workers.networks.checkpoints", "workers.checkpoints"),
    "shapes": ("workers.networks.shapes", "workers.shapes"),
}


def module(name: str) -> Any:
    """Import a module of this checkout, wherever that has it."""
    for place in FIRST_PLACES.get(name, (name,)):
        with suppress(ModuleNotFoundError):
            return importlib.import_module(place)
    raise ModuleNotFoundError(name)


def known(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that this checkout's settings have a field for."""
    return {name: value for name, value in values.items() if name in kind.model_fields}


class Proposals:
    """Random ratios of ResNet-20, each judged as a trial of this checkout judges it."""

    def __init__(self, images: str, store: str, seed: int) -> None:
        settings, data, models = map(module, ("workers.settings", "workers.data", "workers.models"))
        node, checkpoints = module("node"), module("checkpoints")
        artifacts = importlib.import_module("tracking.artifacts").ArtifactStore(store)
        self._run = module("workers.trial").run_trial
        self._node = node.Node(
            device=torch.device("cpu"), cache_dir=Path(store) / "cache", artifacts=artifacts
        )
        self._random, self._settings = random.Random(seed), settings
        self._images = settings.DataSettings(
            name="image_folder", path=images, validation_fraction=0.5
        )
        self._info = data.describe(self._images)
        self._model = settings.ModelSettings(name="cifar_resnet20")
        torch.manual_seed(0)
        network = models.build_model(self._model, self._info.num_classes, 3)
        weights = network.state_dict()
        self._weights = checkpoints.weights_hash(weights)
        artifacts.write_bytes(node.weights_path(self._weights), checkpoints.to_safetensors(weights))
        layers = settings.LayerSettings()
        layout = module("shapes").layout_of(network, self._info.input_shape, layers)
        self._groups = [group.name for group in layout.groups]

    def _spec(self) -> Any:
        settings = self._settings
        is_proxy = "proxy" in get_args(settings.TrialKind)
        recipe = {"epochs": 0, "recalibration_images": JUDGED}
        values = {
            "kind": "proxy" if is_proxy else "prune",
            "model": self._model,
            "data": self._images,
            "data_hash": self._info.data_hash,
            "recipe": settings.Recipe(**known(settings.Recipe, recipe)),
            "seed": 0,
            "weights": self._weights,
            "method": "filter_norm",
            "ratios": {group: self._random.uniform(0.3, 0.7) for group in self._groups},
            "judge_images": JUDGED,
            "reads_test": False,
        }
        return settings.TrialSpec(**known(settings.TrialSpec, values))

    def judge(self, count: int) -> tuple[float, float]:
        """Judge so many proposals; return the seconds by the wall and of CPU."""
        specs = [self._spec() for _ in range(count)]
        began, used = time.perf_counter(), time.process_time()
        for spec in specs:
            self._run(spec, self._node, lambda *_: None)
        return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    """Judge as many as each line asks for."""
    torch.set_num_threads(1)
    with suppress(ModuleNotFoundError):  # as an actor does, in commits that have it
        importlib.import_module("workers.node.heap").keep_freed_memory()
    images, store, seed = sys.argv[1:]
    proposals = Proposals(images, store, int(seed))
    proposals.judge(1)
    print("ready", flush=True)
    for line in sys.stdin:
        print(*proposals.judge(int(line)), flush=True)


if __name__ == "__main__":
    main()
