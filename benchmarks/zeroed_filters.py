"""What training does to a filter that a soft schedule has set to zero before a batch norm.

``python -m benchmarks.zeroed_filters [--output FILE]``

The digits network is trained, half of the filters of every convolution are set to zero as soft
filter pruning does after an epoch, and training goes on by plain PyTorch, nothing of this project's
schedules in between. A channel that is zero everywhere has no variance, so its batch norm divides
what flows back by the square root of its epsilon alone.
"""

import argparse
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.filter_norms import lengths, pairs
from benchmarks.loops import BareLoop
from benchmarks.surroundings import publish, surroundings
from workers.data import DataSet, load
from workers.models.digits_net import DigitsNet
from workers.settings import DataSettings, Recipe
from workers.training.seeds import seed_everything

EPOCHS = 16  #: Of training before filters are set to zero.
STEPS = 18  #: Between two selections of examples/soft_schedules_digits.yaml.
LOOKED_AT = (1, 2, STEPS)
SEEDS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How training goes on."""

    momentum: float = 0.9
    epsilon: float = 1e-5  #: Of every batch norm.
    learning_rate: float = 0.01


SETTINGS = (
    Setting(),
    Setting(momentum=0.0),
    Setting(learning_rate=0.001),
    Setting(epsilon=1e-3),
    Setting(epsilon=1e-1),
)


@dataclass(frozen=True, kw_only=True)
class Regrowth:
    """What became of the filters set to zero that training reaches, means over them."""

    share: float  #: Of the filters set to zero.
    gradient: float  #: Length of a filter's gradient at the first step, in those of kept filters.
    lengths: tuple[float, ...]  #: After each of LOOKED_AT steps, in lengths of kept filters.


def trained(data: DataSet, seed: int) -> nn.Module:
    """Return a digits network trained from its beginning."""
    seed_everything(seed, torch.device("cpu"))
    network = DigitsNet()
    recipe = Recipe(epochs=EPOCHS, batch_size=64, learning_rate=0.05)
    loop = BareLoop(network, data, recipe)
    for _ in range(EPOCHS):
        loop.epoch()
    return network


def set_shortest_to_zero(network: nn.Module) -> list[Tensor]:
    """Set the shorter half of every convolution's filters to zero; return which, a mask each."""
    masks = []
    for conv, _ in pairs(network):
        found = lengths(conv)
        mask = torch.zeros_like(found, dtype=torch.bool)
        mask[found.argsort()[: len(found) // 2]] = True
        conv.weight.data[mask] = 0.0
        masks.append(mask)
    return masks


def regrowth(network: nn.Module, images: Tensor, labels: Tensor, how: Setting) -> Regrowth:
    """Set filters of a copy to zero, and train it on."""
    network = copy.deepcopy(network).requires_grad_(True).train()
    for _, norm in pairs(network):
        norm.eps = how.epsilon
    masks = set_shortest_to_zero(network)
    zeroed = torch.cat(masks)
    optimizer = SGD(network.parameters(), how.learning_rate, how.momentum, weight_decay=5e-4)
    each = [(conv, mask) for (conv, _), mask in zip(pairs(network), masks, strict=True)]
    found: list[float] = []
    for step in range(1, STEPS + 1):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        if step == 1:
            gradients = torch.cat([in_kept(gradient_of(c), m) for c, m in each])
            reached = zeroed & (gradients > 0)
            ratio = gradients[reached].mean()
        optimizer.step()
        if step in LOOKED_AT:
            now = torch.cat([in_kept(lengths(c), m) for c, m in each])
            found.append(float(now[reached].mean()))
    share = float(reached.sum() / zeroed.sum())
    return Regrowth(share=share, gradient=float(ratio), lengths=tuple(found))


def gradient_of(conv: nn.Conv2d) -> Tensor:
    """Return the length of every filter's gradient, ``[C_out]``."""
    assert conv.weight.grad is not None
    found: Tensor = torch.linalg.vector_norm(conv.weight.grad.flatten(1), dim=1)
    return found


def in_kept(values: Tensor, zeroed: Tensor) -> Tensor:
    """Return values per filter, in the mean of those that were not set to zero."""
    return values / values[~zeroed].mean()


def row(networks: Sequence[nn.Module], images: Tensor, labels: Tensor, how: Setting) -> str:
    """Return one row of the table: means over networks, a seed each."""
    found = []
    for seed, network in zip(SEEDS, networks, strict=True):
        seed_everything(seed, torch.device("cpu"))
        found.append(regrowth(network, images, labels, how))
    after = [sum(one.lengths[at] for one in found) / len(found) for at in range(len(LOOKED_AT))]
    share, gradient = (
        sum(values) / len(found)
        for values in ([one.share for one in found], [one.gradient for one in found])
    )
    cells = [f"{how.momentum:g}", f"{how.epsilon:g}", f"{how.learning_rate:g}"]
    cells += [f"{100 * share:.0f} %", f"{gradient:.1f}", *(f"{length:.2f}" for length in after)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="zeroed-filters-") as cache:
        data = load(DataSettings(validation_fraction=0.2), "cpu", cache)
        networks = [trained(data, seed) for seed in SEEDS]
        batches = [*data.eval_batches(data.train, 1024)]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        rows = [row(networks, images, labels, how) for how in SETTINGS]
    steps = " | ".join(f"{step} step{'s' if step > 1 else ''}" for step in LOOKED_AT)
    lines = [
        "# What training does to a filter that was set to zero before a batch norm",
        "",
        "`python -m benchmarks.zeroed_filters`: the digits network, trained; the shorter half of "
        "every convolution's filters set to zero; then trained on by plain PyTorch (SGD, batch "
        f"64). Means over {len(SEEDS)} networks and over the filters that training reaches at "
        "all, in the mean of the filters that were kept.",
        "",
        "| momentum | epsilon of batch norms | learning rate | reached | gradient, first step "
        f"| length after {steps} |",
        "|---:|---:|---:|---:|---:|" + "---:|" * len(LOOKED_AT),
        *rows,
    ]
    publish([*lines, "", *surroundings(), ""], options.output)


if __name__ == "__main__":
    main()
