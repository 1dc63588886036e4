"""Proves and measures on a GPU what can be known only there, in stages of eight minutes.

``python -m benchmarks.gpu [STAGE ...] --results FOLDER [--data PATH] [--checkpoint PATH]``

Without STAGE all of them, in the order below. Each writes FOLDER/STAGE.json, at every part that is
done. ``--page FILE`` makes a page of whatever is in FOLDER; alone, it runs nothing.
"""

import argparse
import importlib
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu.machine import describe_machine
from benchmarks.gpu.page import page
from benchmarks.gpu.setting import Setting, StageSkippedError, write_json

log = logging.getLogger("benchmarks.gpu")

STAGES: Final = {
    "correct": "every method on the device against the CPU",
    "worker": "images a second of a trial's session against bare loops",
    "packing": "several worker processes on one device",
    "latency": "pruned networks beside the dense one",
    "rows": "published rows of ResNet-56, resumable",
}


def main() -> int:
    """Run stages and write the page.

    Returns:
        0; 1 where a stage failed or found something wrong.
    """
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("workers").setLevel(logging.WARNING)
    failed = False
    stages = options.stages or ([] if options.page else list(STAGES))
    if stages and not options.miniature and not torch.cuda.is_available():
        print(
            "Skipped: there is no CUDA device here. --miniature runs every stage on the CPU, and "
            "shows that the kit works."
        )
        stages = []
    for stage in stages:
        with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
            kept = stage == "rows"  # goes on from what an earlier call left
            artifacts = options.results.resolve() / "artifacts" if kept else Path(scratch)
            failed = not _run(stage, _setting(options, artifacts)) or failed
    if options.page:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(page(options.results, list(STAGES)))
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="stages:\n" + "\n".join(f"  {name:8}  {what}" for name, what in STAGES.items()),
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    parser.add_argument("--results", type=Path, default=Path("gpu-results"), metavar="FOLDER")
    parser.add_argument("--page", type=Path, metavar="FILE")
    parser.add_argument("--data", type=Path, help="the CIFAR copy: an image folder, or its zip")
    parser.add_argument("--checkpoint", type=Path, help="a CIFAR ResNet-56, for the rows")
    parser.add_argument("--seconds", type=float, default=480.0, help="of each stage; 480")
    parser.add_argument("--processes", type=int, default=4, help="that train rows at once; 4")
    parser.add_argument("--miniature", action="store_true", help="all stages, tiny, on the CPU")
    options = parser.parse_args()
    for stage in options.stages:
        if stage not in STAGES:
            parser.error(f"there is no stage {stage!r}; there are {', '.join(STAGES)}")
    return options


def _setting(options: argparse.Namespace, artifacts: Path) -> Setting:
    return Setting(
        device=torch.device("cpu" if options.miniature else "cuda"),
        folder=options.results.resolve(),
        artifacts=artifacts,
        miniature=options.miniature,
        data=options.data,
        checkpoint=options.checkpoint,
        seconds=options.seconds,
        processes=2 if options.miniature else options.processes,
    )


def _run(stage: str, setting: Setting) -> bool:
    """Run one stage; return whether all is as it should be."""
    module = importlib.import_module(f"benchmarks.gpu.{stage}")
    log.info("%s: %s", stage, STAGES[stage])
    found: dict[str, Any] = {}
    try:
        for found in module.run(setting):
            _write(stage, setting, found)
        _write(stage, setting, found)  # with what is left out
    except StageSkippedError as reason:
        print(f"Skipped {stage}: {reason}.")
        return True
    except Exception:
        log.exception("The stage %s failed", stage)
        return False
    for problem in found.get("problems", []):
        print(f"{stage}: {problem}")
    print(f"{stage}: done in {time.time() - setting.started:.0f} s")
    return not found.get("problems")


def _write(stage: str, setting: Setting, found: dict[str, Any]) -> None:
    content = {
        "stage": stage,
        "miniature": setting.miniature,
        "machine": describe_machine(setting.device),
        "seconds": time.time() - setting.started,
        "left_out": setting.left_out,
        "result": found,
    }
    write_json(setting.folder / f"{stage}.json", content)


if __name__ == "__main__":
    sys.exit(main())
