"""What a worker adds to training: a trial's session against a bare hand-written loop, in turns.

``python -m benchmarks.worker [--images 2000] [--rounds 5] [--output FILE]``

Epoch by epoch by turns, so that whatever else the machine does hits both: the session as a trial
trains, and a loop that does the same arithmetic on the same images and nothing else. Then whole
trials: how much of the time passes in training, and how much before the first step. On a GPU:
`benchmarks.gpu`.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.loops import Case, measure_training, measure_trial
from benchmarks.surroundings import publish, surroundings
from tracking.artifacts import ArtifactStore
from workers.node.node import Node
from workers.settings import DataSettings, ModelSettings, Recipe

GOAL_RATE, GOAL_SHARE = 0.95, 0.95


def cases(images: int) -> list[Case]:
    """Return ResNet-20 on digits of 32x32 pixels, and the digits' own network."""
    recipe = Recipe(epochs=3, batch_size=128, augmentation="shift", learning_rate=0.02)
    large = DataSettings(image_size=32, train_images=images, test_images=200)
    return [
        Case(model=ModelSettings(name="cifar_resnet20"), data=large, recipe=recipe),
        Case(
            model=ModelSettings(name="digits_net"),
            data=DataSettings(),
            recipe=recipe.model_copy(update={"epochs": 10}),
        ),
    ]


def main() -> None:
    """Measure, print and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# What a worker adds to training",
        "",
        "`python -m benchmarks.worker`: a trial's session against a bare hand-written loop, epoch "
        "by epoch in turns; then a whole trial, the second of its process.",
        "",
        "| network | bare loop, images/s | session, images/s | ratio (goal "
        f"{GOAL_RATE}) | evaluation, ms per 1,000 images | recalibration, ms | trial, s "
        f"| in training (goal {GOAL_SHARE:.0%}) | before the first step, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory(prefix="worker-") as name:
        node = Node(
            device=torch.device("cpu"),
            cache_dir=Path(name) / "cache",
            artifacts=ArtifactStore(f"{name}/artifacts"),
        )
        for case in cases(options.images):
            found = measure_training(case, node, options.rounds)
            measure_trial(case, node)
            trial = measure_trial(case, node)
            lines.append(line(case.model.name, found, trial))
    publish([*lines, "", *surroundings(), ""], options.output)


def line(name: str, found: dict[str, float], trial: dict[str, float]) -> str:
    """Return one row of the table."""
    evaluation = 1e6 * found["evaluation_s"] / found["evaluated_images"]
    return (
        f"| {name} | {found['bare_images_per_s']:,.0f} | {found['session_images_per_s']:,.0f} "
        f"| {found['ratio']:.3f} | {evaluation:.0f} | {1e3 * found['recalibration_s']:.0f} "
        f"| {trial['trial_s']:.1f} | {trial['training_share']:.0%} "
        f"| {trial['before_first_step_s']:.2f} |"
    )


if __name__ == "__main__":
    main()
