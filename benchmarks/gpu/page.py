"""The page of results, from whatever stages left in a folder."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Stored = dict[str, Any]
DENSE = "dense control"


def page(folder: Path, stages: Sequence[str]) -> str:
    """Return a page of Markdown on the stages that have results in ``folder``."""
    stored = [json.loads(path.read_text()) for path in _files(folder, stages)]
    lines = ["# On a GPU", ""]
    lines += [
        "Made by `python -m benchmarks.gpu --page`; [how to run it, and what each number should be "
        "near](../gpu.md).",
        "",
    ]
    if any(one["miniature"] for one in stored):
        lines += [
            "**A miniature on a CPU: it shows that the kit works, and measures nothing.**",
            "",
        ]
    if not stored:
        lines += ["Nothing was measured yet.", ""]
    for one in stored:
        lines += [f"## {_TITLES[one['stage']]}", ""]
        lines += [*_TABLES[one["stage"]](one["result"]), ""]
        if problems := one["result"].get("problems"):
            lines += [*(f"- **{problem}**" for problem in problems), ""]
        if one["left_out"]:
            lines += ["Not measured, for time: " + ", ".join(one["left_out"]) + ".", ""]
        lines += [_machine(one), ""]
    return "\n".join(lines)


def _files(folder: Path, stages: Sequence[str]) -> Iterator[Path]:
    for stage in stages:
        path = folder / f"{stage}.json"
        if path.exists():
            yield path


def _machine(stored: Stored) -> str:
    machine = stored["machine"]
    commit = machine["commit"] or "unknown"
    parts = [machine["date"], f"commit {commit[:10]}{' and changes' * bool(machine['dirty'])}"]
    parts.append(machine["device_name"])
    if machine["device"] == "cuda":
        parts.append(f"{machine['memory_gib']} GiB, driver {machine['driver']}")
        parts.append(f"CUDA {machine['cuda']}, cuDNN {machine['cudnn']}")
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts.append(f"{machine['cpus']} CPUs, load {machine['load']}")
    return f"{'; '.join(parts)}. Python {machine['python']}, {packages}. {stored['seconds']:.0f} s."


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = [":---", *["---:"] * (len(names) - 1)]
    return [f"| {' | '.join(row)} |" for row in (names, ruler, *rows)]


def _correct(result: Stored) -> Iterator[str]:
    yield (
        f"Dense: {result['dense_accuracy']:.1f} % of {result['test_images']:,} pictures. Loss: how "
        "far two undisturbed trials are apart on the device, and one that was killed and went on."
    )
    yield ""
    yield from _table(
        [
            "method",
            "other filters than on the CPU, %",
            "CPU, %",
            "device, %",
            "bfloat16, %",
            "masked against shrunk",
            "loss, two runs",
            "loss, resumed",
            "CPU, s",
            "device, s",
        ],
        [
            [
                name + " (learns)" * row["learns_to_choose"],
                f"{100 * row['other_filters']:.1f}",
                f"{row['cpu_accuracy']:.1f}",
                f"{row['device_accuracy']:.1f}",
                f"{row['bfloat16_accuracy']:.1f}",
                f"{row['masked_difference']:.0e}",
                f"{row['loss_of_two_runs']:.1e}",
                f"{row['loss_when_resumed']:.1e}",
                f"{row['cpu_seconds']:.1f}",
                f"{row['device_seconds']:.1f}",
            ]
            for name, row in result["methods"].items()
        ],
    )
    if not result["problems"]:
        yield ""
        yield "Nothing is wrong."


def _worker(result: Stored) -> Iterator[str]:
    first = result["first_trial"]
    yield (
        f"The first trial of a process took {first['trial_s']:.1f} s, of which "
        f"{first['before_first_step_s']:.1f} s passed before its first step."
    )
    yield ""
    yield from _table(
        [
            "network",
            "session, images/s",
            "bare loop",
            "ratio",
            "kernels timed",
            "CUDA graph",
            "session, augmenting",
            "evaluation, ms per 1,000",
            "recalibration, ms",
        ],
        [
            [
                f"{row['network']}, {row['shape']}, {row['precision']}",
                f"{row['session_images_per_s']:,.0f}",
                f"{row['bare_images_per_s']:,.0f}",
                f"{row['ratio']:.3f}",
                f"{row['bare_images_per_s_kernels_timed']:,.0f}",
                f"{row['graph_images_per_s']:,.0f}" if "graph_images_per_s" in row else "",
                f"{row['augmenting_images_per_s']:,.0f}",
                f"{1e6 * row['evaluation_s'] / row['evaluated_images']:.0f}",
                f"{1e3 * row['recalibration_s']:.0f}",
            ]
            for row in result["rows"]
        ],
    )
    yield ""
    yield from _table(
        ["whole trials", "s", "in training steps, %", "before the first step, s"],
        [
            [
                f"{row['network']}, {row['precision']}",
                f"{row['trial_s']:.1f}",
                f"{100 * row['training_share']:.0f}",
                f"{row['before_first_step_s']:.2f}",
            ]
            for row in result["rows"]
            if "trial_s" in row
        ],
    )


def _packing(result: Stored) -> Iterator[str]:
    yield from _table(
        [
            "processes",
            "images/s, all",
            f"trials an hour (goal {result['goal']})",
            "a trial beside its epochs, s",
            "memory as told, MiB",
            "memory as used, MiB",
            "share that `auto` takes",
        ],
        [
            [
                f"{row['processes']}{', MPS' * row['mps']}",
                f"{row['images_per_s']:,.0f}",
                f"{row['trials_per_hour']:.0f}",
                f"{row['beside_s']:.1f}",
                *(
                    [
                        f"{row['peak_bytes'] / 2**20:,.0f}",
                        f"{row['used_bytes_per_process'] / 2**20:,.0f}",
                        f"{row['auto_share']:.4f}",
                    ]
                    if "peak_bytes" in row
                    else ["", "", ""]
                ),
            ]
            for row in result["rows"]
        ],
    )
    if "without_mps" in result:
        yield ""
        yield f"MPS was not started: {result['without_mps']}."


def _latency(result: Stored) -> Iterator[str]:
    yield "Median milliseconds a batch; in brackets how much faster than the dense network."
    yield ""
    yield from _table(
        ["network", "batch", "dense", "half, filters", "half, stripes"],
        [
            [
                f"{row['network']}, {row['how']}, {row['dtype']}",
                str(row["batch"]),
                f"{row['dense']['median_ms']:.3f}",
                *(_beside(row[name], row["dense"]) for name in ("filters", "stripes")),
            ]
            for row in result["rows"]
        ],
    )


def _beside(timed: Stored, dense: Stored) -> str:
    faster = dense["median_ms"] / timed["median_ms"]
    return f"{timed['median_ms']:.3f} ({faster:.2f})"


def _rows(result: Stored) -> Iterator[str]:
    if "baseline" not in result:
        yield "The baseline is not trained yet."
        return
    yield (
        f"{result['recipe']['epochs']} epochs, on the JPEG copy of CIFAR-10, whose pixels are not "
        f"the original ones: drops compare, accuracies do not. Baseline: "
        f"{result['baseline']['test_accuracy']:.2f} %. Drop: below the dense control of the same "
        "seed, in points, mean and standard deviation."
    )
    yield ""
    by_name: dict[str, dict[str, Stored]] = {}
    for key, row in result["rows"].items():
        name, _, seed = key.rpartition(" ")
        by_name.setdefault(name, {})[seed] = row
    yield from _table(
        ["row", "seeds", "accuracy, %", "drop", "published drop", "fewer MACs, %", "s a trial"],
        [
            _of_seeds(name, seeds, by_name.get(DENSE, {}), result["published"].get(name))
            for name, seeds in by_name.items()
        ],
    )


def _of_seeds(
    name: str, seeds: dict[str, Stored], dense: dict[str, Stored], published: list[float] | None
) -> list[str]:
    rows = list(seeds.values())
    drops = [
        dense[seed]["test_accuracy"] - row["test_accuracy"]
        for seed, row in seeds.items()
        if seed in dense and name != DENSE
    ]
    return [
        name,
        str(len(rows)),
        _spread([row["test_accuracy"] for row in rows]),
        _spread(drops),
        f"{published[0] - published[1]:.2f}" if published else "",
        f"{100 * rows[0]['macs_reduction']:.1f}",
        f"{mean(row['seconds_total'] for row in rows):.0f}",
    ]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


_TITLES = {
    "correct": "Is it right?",
    "worker": "Does a worker keep the device busy?",
    "packing": "Several workers on one device",
    "latency": "What pruning brings at inference",
    "rows": "Published rows of ResNet-56",
}
_TABLES: dict[str, Callable[[Stored], Iterator[str]]] = {
    "correct": _correct,
    "worker": _worker,
    "packing": _packing,
    "latency": _latency,
    "rows": _rows,
}
