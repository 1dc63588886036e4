"""Which sampler finds the best ratios: every one on the same real judgement, resumable.

``python -m benchmarks.samplers FOLDER [--networks cifar_resnet20 ...] [--seeds 5] ...``

TPE (each dimension by itself, and all together), CMA-ES, GP, NSGA-II, QMC and random search a
network's ratios at a cost, one number per group or per stage, from uniform ratios, from how
sensitive each layer is, or from the ratios an allocating method chose. A proposal is judged as a
sweep judges it: shrunk by L1, batch norms re-estimated, looked at on validation images, untrained.
Proposals of equal widths are judged once: what was found is kept in FOLDER, by network, and shared
by all. Killed and started again it goes on; ``--report`` only writes the table. What counts is the
best validation accuracy after 50, 100 and 300 proposals.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from benchmarks.surroundings import publish, surroundings
from methods import CostTarget, Layout
from search_spaces import SAMPLERS, RatioSpace, Search, SpaceSettings, project, samplers
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.models import build_model
from workers.networks.shapes import layout_of
from workers.node.node import Node
from workers.settings import DataSettings, LayerSettings, ModelSettings, Recipe, TrialSpec
from workers.trial import run_trial

ONE_BY_ONE: Final = "tpe-one-by-one"
BUDGETS: Final = (50, 100, 300)
STARTS: Final = ("uniform", "sensitivity", "method")
PER: Final = ("group", "stage")
HALF: Final = 0.5  #: Of one group alone, to see how sensitive it is.
DATA: Final = DataSettings(validation_fraction=0.3)
LARGER: Final = DATA.model_copy(update={"image_size": 16})
CASES: Final[Mapping[str, DataSettings]] = {
    "cifar_resnet20": LARGER,  # 9 groups
    "cifar_resnet56": LARGER,  # 27
    "digits_net": DATA,  # 2: to try the script
}
NETWORKS: Final = ("cifar_resnet20", "cifar_resnet56")
DENSE: Final = Recipe(epochs=15, batch_size=64, learning_rate=0.05)


class OneByOne(BaseSampler):
    """TPE that models each dimension by itself, as Optuna's default does."""

    def __init__(self, seed: int) -> None:
        self._tpe = TPESampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return nothing: the dimensions are handed to :meth:`sample_relative`."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a number for each dimension, sampled by itself."""
        return {
            name: self._tpe.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Sample one dimension."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


class Judge:
    """A dense network, trained once, and what proposals of it were found to be worth."""

    def __init__(self, network: str, folder: Path, reduction: float) -> None:
        self.target = CostTarget(axis="macs", reduction=reduction)
        self._model, self._data = ModelSettings(name=network), CASES[network]
        self._node = Node(
            device=torch.device("cpu"),
            cache_dir=folder / "cache",
            artifacts=ArtifactStore(str(folder / "artifacts")),
        )
        info = describe(self._data)
        self._hash = info.data_hash
        self._weights = self._dense(folder / f"dense-{network}.json")
        built = build_model(self._model, info.num_classes, info.input_shape[0])
        self.layout: Layout = layout_of(built, info.input_shape, LayerSettings())
        self._file = folder / f"judged-{network}-{reduction:g}.jsonl"
        self._known: dict[str, float] = dict(_lines(self._file))

    def _dense(self, file: Path) -> str:
        """Train the dense network, unless it is here; return its weights' name."""
        if not file.exists():
            spec = self._spec(kind="baseline", recipe=DENSE, weights=None)
            result = run_trial(spec, self._node, lambda *_: None)
            file.write_text(json.dumps({k: result[k] for k in ("weights", "val_accuracy")}))
            print(f"{self._model.name}: dense {result['val_accuracy']:.2f} %", file=sys.stderr)
        return str(json.loads(file.read_text())["weights"])

    def _spec(self, **fields: Any) -> TrialSpec:
        return TrialSpec(model=self._model, data=self._data, data_hash=self._hash, seed=0, **fields)

    def _proxy(self, **fields: Any) -> dict[str, Any]:
        spec = self._spec(
            kind="proxy",
            recipe=Recipe(epochs=0, batch_size=128),
            weights=self._weights,
            method="filter_norm",
            judge_images=1000,
            reads_test=False,
            **fields,
        )
        return run_trial(spec, self._node, lambda *_: None)

    def accuracy(self, ratios: Mapping[str, float]) -> float:
        """Return what a network of these ratios is worth untrained, judged once."""
        widths = self.layout.widths
        name = ",".join(str(round(widths[g] * (1.0 - ratios[g]))) for g in widths)
        if name not in self._known:
            found = float(self._proxy(ratios=dict(ratios))["val_accuracy"])
            self._known[name] = found
            _append(self._file, [name, found])
        return self._known[name]

    def allocated(self) -> dict[str, float]:
        """Return the ratios that L1 chooses by itself at the cost, by group."""
        kept = self._proxy(target=self.target)["kept"]
        return {group: 1.0 - kept[group] / width for group, width in self.layout.widths.items()}

    def sensitivity(self) -> dict[str, float]:
        """Return what is lost when one group alone loses half of its filters, by group."""
        none = dict.fromkeys(self.layout.widths, 0.0)
        whole = self.accuracy(none)
        return {
            group: max(0.0, whole - self.accuracy({**none, group: int(HALF * width) / width}))
            for group, width in self.layout.widths.items()
        }


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search."""

    network: str
    per: str
    start: str
    sampler: str
    seed: int

    @property
    def name(self) -> str:
        """What it is kept by."""
        return f"{self.network}/{self.per}/{self.start}/{self.sampler}/{self.seed}"

    @property
    def row(self) -> tuple[str, str, str, str]:
        """All but the seed."""
        return (self.network, self.per, self.start, self.sampler)


def first_of(judge: Judge, space: RatioSpace, start: str) -> dict[str, float]:
    """Return the numbers of proposal 0, in [0, 1], of which only relative sizes matter."""
    if start == "uniform":
        return {}
    if start == "method":
        by_group = judge.allocated()
    else:  # the least sensitive loses most, the most sensitive a tenth of that
        lost = judge.sensitivity()
        most = max(lost.values()) or 1.0
        by_group = {group: 1.0 - 0.9 * lost[group] / most for group in lost}
    top = max(by_group.values()) or 1.0
    is_by_stage = space.settings.per == "stage"
    stages = {g.name: g.stage if is_by_stage else g.name for g in judge.layout.groups}
    members: dict[str, list[float]] = defaultdict(list)
    for group, stage in stages.items():
        members[stage].append(by_group[group] / top)
    return {stage: statistics.fmean(values) for stage, values in members.items()}


def search(judge: Judge, run: Run, most: int) -> list[float]:
    """Run one search; return the best accuracy so far, by proposal."""
    settings = SpaceSettings(per="stage" if run.per == "stage" else "group")
    space = RatioSpace(judge.layout.groups, settings)
    search = Search(
        space.dimensions,
        sampler=run.sampler,
        seed=run.seed,
        window=4,
        first=first_of(judge, space, run.start),
    )
    best: list[float] = []
    for number in range(most):
        proposal = search.ask(number)
        found = project(proposal.params, space, judge.layout.cost, judge.target)
        value = judge.accuracy(found.ratios)
        search.tell(number, [value], "completed")
        best.append(max(value, best[-1] if best else value))
    return best


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield what was kept; a last line that was cut short is left out."""
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            name, value = json.loads(line)
        except ValueError:
            continue
        yield name, value


def _append(file: Path, line: Sequence[Any]) -> None:
    with file.open("a") as handle:
        handle.write(json.dumps(line) + "\n")


def table(
    runs: Mapping[str, Sequence[float]], plan: Sequence[Run], budgets: Sequence[int]
) -> list[str]:
    """Return the best accuracies, mean and deviation over seeds, best sampler first."""
    found: dict[tuple[str, str, str, str], list[Sequence[float]]] = defaultdict(list)
    for run in plan:
        if run.name in runs:
            found[run.row].append(runs[run.name])
    heads = " | ".join(f"{budget} proposals" for budget in budgets)
    lines = [
        f"| network | per | start | sampler | seeds | {heads} |",
        f"|---|---|---|---|---:|{'---:|' * len(budgets)}",
    ]

    def last(row: tuple[str, str, str, str]) -> float:
        return -statistics.fmean(best[-1] for best in found[row])

    for row in sorted(found, key=lambda row: (*row[:3], last(row))):
        cells = []
        for budget in budgets:
            values = [best[budget - 1] for best in found[row] if len(best) >= budget]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.2f}{spread}" if values else "")
        lines.append(f"| {' | '.join(row)} | {len(found[row])} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Search what is not kept yet, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = (ONE_BY_ONE, *SAMPLERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(NETWORKS))
    parser.add_argument("--samplers", nargs="+", choices=known, default=list(known))
    parser.add_argument("--per", nargs="+", choices=PER, default=list(PER))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--reduction", type=float, default=0.6, help="share of the MACs to remove")
    parser.add_argument("--report", action="store_true", help="only write the table")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    samplers._SAMPLERS[ONE_BY_ONE] = OneByOne
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    cells = [*product(options.networks, options.per, options.starts, options.samplers)]
    plan = [
        Run(network=network, per=per, start=start, sampler=sampler, seed=seed)
        for seed in range(options.seeds)  # every cell has a first seed before one has a second
        for network, per, start, sampler in cells
    ]
    file, most = options.folder / f"searches-{options.reduction:g}.jsonl", max(options.budgets)
    done = {name: best for name, best in _lines(file) if len(best) >= most}
    judges: dict[str, Judge] = {}
    for number, run in enumerate([] if options.report else plan):
        if run.name in done:
            continue
        if run.network not in judges:
            judges[run.network] = Judge(run.network, options.folder, options.reduction)
        best = done[run.name] = search(judges[run.network], run, most)
        _append(file, [run.name, best])
        print(f"{number + 1} of {len(plan)}: {run.name} {best[-1]:.2f} %", file=sys.stderr)
    lines = ["# Which sampler finds the best ratios", "", *table(done, plan, options.budgets)]
    lines += [
        "",
        f"Best validation accuracy untrained, at {options.reduction:.0%} fewer MACs; mean and "
        "deviation over seeds of the sampler. The dense network and the judgement are the same for "
        "all.",
    ]
    publish([*lines, "", *surroundings(), ""], options.output)


if __name__ == "__main__":
    main()
