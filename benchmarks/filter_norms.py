"""Why a network that was softly pruned trains slowly: how long its filters are, and what that does.

``python -m benchmarks.filter_norms FOLDER [FOLDER ...] [--epochs 16] [--output FILE]``

FOLDER is what ``prunesweep export`` wrote of a ``digits_net`` from
``examples/soft_schedules_digits.yaml``. Each network is trained on as it is, and as the same
function with every filter that a batch norm follows brought to length one, alike.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.loops import BareLoop
from benchmarks.surroundings import publish, surroundings
from workers.data import DataSet, load
from workers.rebuild import load_pruned
from workers.settings import DataSettings, Recipe
from workers.training.measure import evaluate
from workers.training.seeds import seed_everything

RECIPE = Recipe(epochs=16, batch_size=64, learning_rate=0.01)
SEEDS = (1, 2, 3)


def pairs(network: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution with the batch norm that follows it, in the network's order."""
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    last: nn.Conv2d | None = None
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and last is not None:
            found.append((last, module))
        last = module if isinstance(module, nn.Conv2d) else None
    return found


def lengths(conv: nn.Conv2d) -> torch.Tensor:
    """Return the L2 norm of every filter, ``[C_out]``."""
    found: torch.Tensor = torch.linalg.vector_norm(conv.weight.detach().flatten(1), dim=1)
    return found


@torch.no_grad()
def brought_to_length_one(network: nn.Module) -> nn.Module:
    """Return a network that computes the same, with filters of length one."""
    network = copy.deepcopy(network)
    for conv, norm in pairs(network):
        scale = lengths(conv)
        conv.weight /= scale[:, None, None, None]
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean /= scale
        norm.running_var /= scale**2
    return network


def trained(network: nn.Module, data: DataSet, epochs: int) -> list[float]:
    """Train copies by a bare loop, a seed each; return their accuracies in percent."""
    found = []
    for seed in SEEDS:
        seed_everything(seed, torch.device("cpu"))
        one = copy.deepcopy(network).requires_grad_(True)
        loop = BareLoop(one, data, RECIPE)
        for _ in range(epochs):
            loop.epoch()
        found.append(accuracy(one, data))
    return found


def accuracy(network: nn.Module, data: DataSet) -> float:
    """Return the accuracy on the validation split in percent: the test split is for verdicts."""
    return evaluate(network, data.eval_batches(data.val, 512)).accuracy


def line(folder: Path, data: DataSet, epochs: int) -> str:
    """Return one row of the table."""
    network = load_pruned(folder)
    middle = [float(lengths(conv).median()) for conv, _ in pairs(network)]
    before, after = network, brought_to_length_one(network)
    cells = [folder.name, ", ".join(f"{length:.2f}" for length in middle)]
    for each in (before, after):
        ends = torch.tensor(trained(each, data, epochs))
        cells.append(f"{accuracy(each, data):.2f}")
        cells.append(f"{float(ends.mean()):.2f} ± {float(ends.std()):.2f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="filter-norms-") as cache:
        data = load(DataSettings(validation_fraction=0.2), "cpu", cache)
        rows = [line(folder, data, options.epochs) for folder in options.folders]
    lines = [
        "# How long filters are after a soft schedule, and what that does to training",
        "",
        f"`python -m benchmarks.filter_norms`: pruned networks as exported, trained on for "
        f"{options.epochs} epochs at learning rate {RECIPE.learning_rate:g}, {len(SEEDS)} seeds; "
        "then the same with every filter that a batch norm follows brought to length one, "
        "which changes nothing of what the network computes. Validation accuracy in percent.",
        "",
        "| network | median length of filters, by layer | as it is | trained on | of length one "
        "| trained on |",
        "|---|---:|---:|---:|---:|---:|",
        *rows,
    ]
    publish([*lines, "", *surroundings(), ""], options.output)


if __name__ == "__main__":
    main()
