"""The same no-op trials by Ray Tune: OptunaSearch and MLflowLoggerCallback, two at a time.

    python -m benchmarks.noop.tune FOLDER --trials 40 --sampler tpe [--reuse]

prints one line of JSON. ``FOLDER/mlflow.db`` may be there already, with its schema.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch

from benchmarks.noop.trial import GROUPS, reports
from orchestrator.cluster.connection import connect
from orchestrator.specification.settings import ResourceSettings

WORKERS = 2


class Stopwatch(tune.Callback):
    """Notes when each trial has ended, every other callback included."""

    def __init__(self) -> None:
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.wall_s.append(time.time())
        self.cpu_s.append(time.process_time())


def train(config: dict[str, float]) -> None:
    """Report as `benchmarks.noop.trial` does."""
    for values in reports(config.values()):
        tune.report(values)


def sampler_named(name: str) -> optuna.samplers.BaseSampler:
    """Return the sampler with the settings a search of prunesweep gives it."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=0)
    return optuna.samplers.TPESampler(seed=0, multivariate=True)


def run(folder: Path, trials: int, sampler: str, *, reuse: bool) -> dict[str, Any]:
    """Run the trials; Ray is up already. Times are in seconds from here, or ms per trial."""
    begun = time.time()
    stopwatch = Stopwatch()
    search = OptunaSearch(
        space={group: optuna.distributions.FloatDistribution(0.0, 1.0) for group in GROUPS},
        metric="val_accuracy",
        mode="max",
        sampler=sampler_named(sampler),
    )
    mlflow = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="noop"
    )
    results = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=trials,
            max_concurrent_trials=WORKERS,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(
            name="noop", storage_path=str(folder), callbacks=[mlflow, stopwatch], verbose=0
        ),
    ).fit()
    assert len(results) == trials
    assert not results.errors
    whole_s, per_trial = time.time() - begun, 1000 / (trials - 1)
    wall_ms = (stopwatch.wall_s[-1] - stopwatch.wall_s[0]) * per_trial
    return {
        "trials": trials,
        "recorded_s": whole_s,
        "recorded_ms": wall_ms,
        "shown_s": whole_s,  # the callback writes to MLflow before anything goes on
        "shown_ms": wall_ms,
        "driver_cpu_ms": (stopwatch.cpu_s[-1] - stopwatch.cpu_s[0]) * per_trial,
    }


def main() -> None:
    """Run the trials and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--reuse", action="store_true")
    options = parser.parse_args()
    connect(ResourceSettings(workers=WORKERS, device="cpu"))
    measured = run(options.folder.absolute(), options.trials, options.sampler, reuse=options.reuse)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
