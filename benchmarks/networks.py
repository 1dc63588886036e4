"""What of published networks can be pruned, policy by policy, beside Torch-Pruning.

``python -m benchmarks.networks [NAME ...] [--size 64] [--latency] [--output FILE]``

NAME is what ``model.name`` takes; without any, the smaller classifiers of torchvision. Weights are
random, batch norms have statistics of their own, and half of each group goes, at random. Each row
holds the shrunk network against the masked one and counts both. Torch-Pruning prunes the same share
of every layer but the last, the stem as well, at random, by its own groups, unproven.
``--latency`` times forward passes of one image, too, which takes a machine with nothing else on it.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn

from benchmarks.surroundings import publish, surroundings
from methods import LayoutError, PruningPlan, count_cost, masked, shrink
from methods.structure.cost import output_tensors
from methods.structure.groups import Layout
from workers.models import build_model
from workers.networks.shapes import POLICIES, layout_of
from workers.settings import LayerSettings, ModelSettings, PolicyName

SMALL = (
    *("alexnet", "squeezenet1_1", "resnet18", "mobilenet_v2", "mobilenet_v3_small"),
    *("shufflenet_v2_x0_5", "mnasnet0_5", "regnet_x_400mf", "regnet_y_400mf", "efficientnet_b0"),
)
COLUMNS = (
    *("network", "policy", "groups", "MACs that can go", "MACs left at half", "difference"),
    *("costs", "ms dense", "ms pruned"),
)
TIMED = 2  #: Columns of times, the last ones.
CLASSES = 10
RUNS = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A network with half of each group gone."""

    groups: int
    can_go: float  #: Share of the MACs.
    left: float  #: Share of the MACs.
    difference: float  #: Largest of masked and shrunk logits, relative to the dense ones' spread.
    agrees: bool  #: Predicted and counted cost.
    dense_ms: float
    pruned_ms: float

    def cells(self) -> list[str]:
        """Return the rest of a row."""
        shares = [f"{share:.0%}" for share in (self.can_go, self.left)]
        times = [f"{each:.1f}" for each in (self.dense_ms, self.pruned_ms)]
        costs = "equal" if self.agrees else "DIFFER"
        return [str(self.groups), *shares, f"{self.difference:.0e}", costs, *times]


def network_of(name: str) -> nn.Module:
    """Build a network whose batch norms are not neutral, so that a wrong channel shows."""
    torch.manual_seed(0)
    network = build_model(ModelSettings(name=name), CLASSES, 3)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0.0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    return network.eval()


def half_of(layout: Layout) -> PruningPlan:
    """Keep half of each group, at random."""
    draw = torch.Generator().manual_seed(0)
    kept = {
        name: tuple(sorted(torch.randperm(width, generator=draw)[width // 2 :].tolist()))
        for name, width in layout.widths.items()
    }
    return PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)


@torch.no_grad()
def cut(name: str, policy: PolicyName, size: int) -> Cut:
    """Prune half of a network under a policy.

    Raises:
        LayoutError: Nothing may go.
    """
    network, shape = network_of(name), (3, size, size)
    layout = layout_of(network, shape, LayerSettings(policy=policy))
    plan, dense = half_of(layout), layout.cost.dense("macs")
    small = copy.deepcopy(network)
    shrink(small, plan, layout)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    expected = logits_of(masked(network, plan, layout).eval(), images)
    spread = logits_of(network, images)
    gap = (expected - logits_of(small, images)).abs().max() / (spread.max() - spread.min())
    counted = count_cost(small, shape)
    predicted = (layout.cost_of("macs", plan.kept), layout.cost_of("params", plan.kept))
    return Cut(
        groups=len(layout.groups),
        can_go=1 - layout.cost_of("macs", dict.fromkeys(layout.widths, (0,))) / dense,
        left=counted.macs / dense,
        difference=float(gap),
        agrees=tuple(counted) == predicted,
        dense_ms=median_ms(lambda: network(images[:1])),
        pruned_ms=median_ms(lambda: small(images[:1])),
    )


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return the first tensor that a network gives."""
    return next(output_tensors(network(images)))


def median_ms(run: Callable[[], object]) -> float:
    """Time some runs behind one that is not counted."""
    run()
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def by_torch_pruning(name: str, size: int) -> list[str]:
    """Prune half of every layer but the last by Torch-Pruning; return the rest of a row."""
    network, images = network_of(name), torch.zeros(1, 3, size, size)
    dense = count_cost(network, (3, size, size)).macs
    dense_ms = median_ms(lambda: network(images))
    heads = [layer for layer in network.modules() if getattr(layer, "out_features", 0) == CLASSES]
    heads += [layer for layer in network.modules() if getattr(layer, "out_channels", 0) == CLASSES]
    pruner = tp.pruner.BasePruner(
        network,
        images,
        importance=tp.importance.RandomImportance(),
        pruning_ratio=0.5,
        ignored_layers=heads,
    )
    pruner.step()
    with torch.no_grad():
        left = count_cost(network, (3, size, size)).macs / dense
        pruned_ms = median_ms(lambda: network(images))
    return ["", "", f"{left:.0%}", "", "", f"{dense_ms:.1f}", f"{pruned_ms:.1f}"]


def rows(name: str, size: int) -> list[list[str]]:
    """Return the cells of one network, row by row."""
    found = []
    for policy in POLICIES:
        try:
            cells = cut(name, policy, size).cells()
        except LayoutError as error:
            cells = [str(error).split(". ")[0].split(" (")[0], *[""] * 6]
        found.append([policy, *cells])
    try:
        found.append(["Torch-Pruning", *by_torch_pruning(name, size)])
    except Exception as error:  # it raises anything
        found.append(["Torch-Pruning", f"{type(error).__name__}", *[""] * 6])
    for cells in found:
        print(name, *cells, file=sys.stderr, flush=True)  # as they come: it takes long
    return [[name, *cells] for cells in found]


def row(cells: Sequence[str]) -> str:
    """Return a line of the table."""
    return "| " + " | ".join(cells) + " |"


def page(names: Sequence[str], size: int, latency: bool) -> list[str]:
    """Measure all networks, one after another."""
    shown = len(COLUMNS) if latency else -TIMED
    columns = COLUMNS[:shown]
    table = [cells[:shown] for name in names for cells in rows(name, size)]
    return [
        *("# What of published networks can be pruned", ""),
        *((__doc__ or "").split("\n\n", 2)[2].strip().split("\n")),
        "",
        f"Images of {size} x {size}, {CLASSES} classes. Difference: of masked and shrunk logits,",
        "relative to the spread of the dense network's.",
        *("", row(columns), row(["---"] * len(columns)), *map(row, table), ""),
        *surroundings(),
        f"- torchvision {version('torchvision')}, torch-pruning {version('torch-pruning')}",
        "",
    ]


def main() -> None:
    """Print the page, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=[f"torchvision/{name}" for name in SMALL])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    publish(page(given.names, given.size, given.latency), given.output)


if __name__ == "__main__":
    main()
