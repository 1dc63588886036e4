"""Trials that are cut short and gone on with: the numbers are those of a trial that was not."""

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import methods
from methods import State
from tracking.artifacts import ArtifactStore
from workers.data import describe
from workers.node.node import Node, resolve_device
from workers.settings import DataSettings, ModelSettings, Recipe, TrialSpec
from workers.training.session import PruningSession
from workers.training.trial_checkpoints import Checkpoint, TrialCheckpoints, checkpoint_folder
from workers.trial import run_trial

DATA = DataSettings(train_images=100, test_images=30, validation_fraction=0.2)
EPOCHS = 5
RATIOS = {"2": 0.5, "5": 0.25}  #: The prunable convolutions of the network below.
Fields = Mapping[str, Any]
Reports = list[tuple[int, dict[str, float]]]


def network(num_classes: int, in_channels: int) -> nn.Module:
    """Return a small network that draws random numbers while it trains."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, num_classes),
    )


class Killed(BaseException):
    """The process ends here: nothing of the trial sees to anything any more."""


@dataclass(frozen=True)
class Bench:
    """Runs trials on machines that share weights and checkpoints, and no statistics."""

    folder: Path
    node: Node
    weights: str | None = None

    def spec(self, **changes: Any) -> TrialSpec:
        recipe = {"epochs": EPOCHS, "batch_size": 32, "learning_rate": 0.05}
        given = {
            "kind": "prune",
            "method": "filter_norm",
            "ratios": RATIOS,
            "weights": self.weights,
            "seed": 3,
            **changes,
        }
        return TrialSpec(
            model=ModelSettings(name=f"{__name__}:network"),
            data=DATA,
            data_hash=describe(DATA).data_hash,
            recipe=Recipe.model_validate({**recipe, **given.pop("recipe", {})}),
            **given,
        )

    def run(
        self, spec: TrialSpec, *, attempt: int = 1, killed_at: int | None = None, every: int = 1
    ) -> tuple[dict[str, Any], Reports]:
        """Return the result, but for what the clock says, and the reports."""
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        self.node.artifacts.remove_folder("statistics")  # results say whether they were there
        node = replace(self.node, cache_dir=cache, attempt=attempt, checkpoint_epochs=every)
        reports: Reports = []

        def report(step: int, values: dict[str, float]) -> None:
            if len(reports) + 1 == killed_at:
                raise Killed
            reports.append((step, values))

        try:
            result = run_trial(spec, node, report)
        except Killed:
            return {}, reports
        return {k: v for k, v in result.items() if not k.startswith("seconds")}, reports

    def checkpoints(self, spec: TrialSpec) -> list[str]:
        """Return the names of the checkpoints there are, the furthest last."""
        return self.node.artifacts.files(checkpoint_folder(spec.uid))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small only lose by sharing
    folder = tmp_path_factory.mktemp("bench")
    node = Node(
        device=resolve_device("cpu"),
        cache_dir=folder / "cache",
        artifacts=ArtifactStore(folder / "artifacts"),
    )
    fresh = Bench(folder, node)
    result, _ = fresh.run(fresh.spec(kind="baseline", method=None, ratios={}))
    yield replace(fresh, weights=result["weights"])
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


STRIPES = {"unit": "stripes", "method": "stripe_wise"}
TARGET = {"ratios": {}, "target": {"axis": "macs", "reduction": 0.3}}
GATES = {"share": 0.6, "learning_rate": 0.01}
PLAN = {
    "format": 1,
    "policy": "inside_blocks",
    "widths": {"2": 8, "5": 8},
    "kept": {"2": [0, 2, 3, 5], "5": [1, 2, 4, 5, 6, 7]},
}
#: Every kind of trial that trains, and every way to train while filters are chosen.
TRIALS: dict[str, Fields] = {
    "baseline": {"kind": "baseline", "method": None, "ratios": {}, "weights": None},
    "dense": {"kind": "dense", "method": None, "ratios": {}},
    "scratch": {"kind": "scratch", "method": None, "ratios": {}, "weights": None, "plan": PLAN},
    "one_shot": {},
    "adamw": {"recipe": {"optimizer": "adamw", "learning_rate": 0.01, "warmup_epochs": 2}},
    "plain_sgd": {"recipe": {"momentum": 0.0, "schedule": "step"}},
    "augmented": {"recipe": {"augmentation": "shift_flip", "label_smoothing": 0.1}},
    "recalibrated": {"recipe": {"recalibration_images": 50}},
    **{
        name: {"schedule": {"name": name, "selection": 0.8}}
        for name in ("iterative", "hfp", "sfp", "asfp", "srfp", "asrfp", "ghfp")
    },
    "sfp_adamw": {
        "schedule": {"name": "ghfp", "selection": 0.8},
        "recipe": {"optimizer": "adamw", "learning_rate": 0.01},
    },
    "slimming": {"method": "bn_scale", "method_settings": {"sparsity": 1e-2}},
    "slimming_and_sfp": {
        "method": "bn_scale",
        "method_settings": {"sparsity": 1e-2},
        "schedule": {"name": "sfp", "selection": 0.8},
    },
    "scop": {"method": "scop", "method_settings": {"share": 0.8, "saturation": 1.0}},
    "scop_that_ends_early": {"method": "scop", "method_settings": {"share": 0.8, "steps": 5}},
    "scop_with_noise": {
        "method": "scop",
        "method_settings": {"share": 0.6, "knockoff": "pca_gaussian", "batch_norm": "joint"},
    },
    "scop_and_sfp": {
        "method": "scop",
        "method_settings": {"share": 0.4},
        "schedule": {"name": "sfp", "selection": 0.8},
    },
    "stripes": {**STRIPES, "method_settings": {"share": 0.8, "alpha": 1e-2}},
    "stripes_to_a_target": {
        **STRIPES,
        **TARGET,
        "method_settings": {"share": 0.8, "weight_decay": 0.0},
    },
    "native_stripes": {
        **STRIPES,
        "ratios": {},
        "method_settings": {"mode": "native", "share": 0.8, "alpha": 0.1, "delta": 0.6},
    },
    "gates": {"method": "weight_gates", "method_settings": GATES},
    "gates_to_a_target": {"method": "weight_gates", "method_settings": GATES, **TARGET},
    "free_gates": {"method": "free_gates", "method_settings": GATES, **TARGET},
    "gates_that_begin_again": {
        "method": "weight_gates",
        "method_settings": {"share": 0.8, "learning_rate": 0.3},
        "recipe": {"batch_size": 4},
        **TARGET,
    },
}


@pytest.mark.parametrize("trial", TRIALS)
def test_killed_after_every_epoch_a_trial_ends_as_if_it_had_not_been(
    bench: Bench, trial: str
) -> None:
    spec = bench.spec(**TRIALS[trial])
    expected, whole = bench.run(spec)
    assert len(whole) >= EPOCHS
    assert bench.checkpoints(spec) == []
    reports: Reports = []
    result: dict[str, Any] = {}
    killed_at, attempts = 2, 0
    while not result and attempts < 5 * len(whole):
        attempts += 1
        result, more = bench.run(spec, attempt=attempts, killed_at=killed_at)
        fresh = [report for report in more if report not in reports]
        reports += fresh
        # An earlier call to train, or one that a hook has ended, begins again: live a bit longer.
        killed_at = 2 if fresh else killed_at + 1
    assert result == expected
    assert reports == whole
    assert attempts >= len(whole) - 1
    assert bench.checkpoints(spec) == []


def test_in_recovery_nothing_is_selected_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.spec()
    expected, _ = bench.run(spec)
    bench.run(spec, killed_at=3)
    monkeypatch.delattr(methods.PruningMethod, "select")
    result, reports = bench.run(spec, attempt=2)
    assert result == expected
    assert [step for step, _ in reports] == [3, 4, 5]


def test_checkpoints_can_be_rarer_than_epochs(bench: Bench) -> None:
    spec = bench.spec(**TRIALS["sfp"])
    expected, whole = bench.run(spec)
    bench.run(spec, killed_at=5, every=2)
    assert len(bench.checkpoints(spec)) == 2
    bench.run(spec, attempt=2, killed_at=1, every=2)
    result, reports = bench.run(spec, attempt=3, every=2)
    assert result == expected
    assert reports == whole[4:]


def test_without_checkpoints_a_trial_begins_again(bench: Bench) -> None:
    spec = bench.spec()
    expected, whole = bench.run(spec, every=0)
    bench.run(spec, killed_at=4, every=0)
    assert bench.checkpoints(spec) == []
    assert bench.run(spec, attempt=2, every=0) == (expected, whole)


@pytest.mark.parametrize(("damaged", "first"), [(1, 3), (2, 1)])
def test_a_damaged_checkpoint_changes_no_number(bench: Bench, damaged: int, first: int) -> None:
    spec = bench.spec(**TRIALS["sfp"])
    expected, whole = bench.run(spec)
    bench.run(spec, killed_at=4)
    names = bench.checkpoints(spec)
    assert len(names) == 2
    for name in names[-damaged:]:
        path = f"{checkpoint_folder(spec.uid)}/{name}"
        content = bytearray(bench.node.artifacts.read_bytes(path))
        content[len(content) // 2] ^= 1
        bench.node.artifacts.write_bytes(path, bytes(content))
    assert bench.run(spec, attempt=2) == (expected, whole[first - 1 :])


def without(part: str, key: str) -> Callable[[Mapping[str, State]], dict[str, State]]:
    """Return what takes something out of a checkpoint."""

    def take(parts: Mapping[str, State]) -> dict[str, State]:
        return {**parts, part: {k: v for k, v in parts[part].items() if k != key}}

    return take


@pytest.mark.parametrize(
    "change",
    [without("network", "2.weight"), without("random", "torch"), without("trial", "before")],
)
def test_a_checkpoint_that_does_not_fit_is_dropped_and_the_trial_begins_again(
    bench: Bench, change: Callable[[Mapping[str, State]], dict[str, State]]
) -> None:
    spec = bench.spec()
    expected, whole = bench.run(spec)
    bench.run(spec, killed_at=3)
    kept = TrialCheckpoints(bench.node.artifacts, spec.uid, attempt=1, epochs=1)
    assert isinstance(kept.resume, Checkpoint)
    kept.write(replace(kept.resume, step=kept.resume.step + 1, parts=change(kept.resume.parts)))
    assert bench.run(spec, attempt=2) == (expected, whole)


class FullStore(ArtifactStore):
    """Has no room for checkpoints."""

    def write_bytes(self, path: str, data: bytes, *, staging: str | None = None) -> str:
        if path.startswith("checkpoints/"):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return super().write_bytes(path, data, staging=staging)


class NotingStore(ArtifactStore):
    """Remembers where files were written before they took their place."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.staged: dict[str, str | None] = {}

    def write_bytes(self, path: str, data: bytes, *, staging: str | None = None) -> str:
        self.staged[path] = staging
        return super().write_bytes(path, data, staging=staging)


def test_what_a_killed_attempt_left_half_written_goes_with_the_checkpoints(bench: Bench) -> None:
    spec, store = bench.spec(), NotingStore(bench.folder / "artifacts")
    left = bench.folder / "artifacts" / checkpoint_folder(spec.uid) / f".{'0' * 32}.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    replace(bench, node=replace(bench.node, artifacts=store)).run(spec)
    lasting = {path: to for path, to in store.staged.items() if not path.startswith("checkpoints")}
    assert {path.partition("/")[0] for path in lasting} == {"weights", "trials"}
    assert set(lasting.values()) == {checkpoint_folder(spec.uid)}
    assert not left.parent.exists()


def test_without_room_for_checkpoints_a_trial_completes_all_the_same(bench: Bench) -> None:
    spec = bench.spec()
    expected = bench.run(spec)
    store = FullStore(bench.folder / "artifacts")
    assert replace(bench, node=replace(bench.node, artifacts=store)).run(spec) == expected


def test_a_trial_that_fails_by_itself_leaves_no_checkpoint(bench: Bench) -> None:
    other, spec = bench.spec(), bench.spec(seed=4)
    bench.run(other, killed_at=3)
    bench.run(spec, killed_at=3)
    assert len(bench.checkpoints(spec)) == 2

    def refuse(_step: int, _values: dict[str, float]) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        run_trial(spec, replace(bench.node, attempt=2, checkpoint_epochs=1), refuse)
    assert bench.checkpoints(spec) == []
    assert len(bench.checkpoints(other)) == 2
    TrialCheckpoints(bench.node.artifacts, other.uid, attempt=1, epochs=1).remove()


def test_a_trial_that_ran_out_of_gpu_memory_goes_on_from_its_checkpoint(bench: Bench) -> None:
    spec = bench.spec(seed=5)
    expected, all_reports = bench.run(spec)

    def run_out(step: int, _values: dict[str, float]) -> None:
        if step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        run_trial(spec, replace(bench.node, checkpoint_epochs=1), run_out)
    result, reports = bench.run(spec, attempt=2)
    assert result == expected
    assert reports == all_reports[2:]
    assert bench.checkpoints(spec) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.available())
def test_every_method_says_what_it_keeps_while_it_trains(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[object] = []
    train = PruningSession.train

    def watched(self: PruningSession, *arguments: Any, **hooks: Any) -> None:
        states.append(hooks.get("state"))
        train(self, *arguments, **hooks)

    monkeypatch.setattr(PruningSession, "train", watched)
    kind = methods.kind_of(name)
    schedule = {"name": "ghfp", "selection": 0.6} if kind.schedulable else {}
    spec = bench.spec(method=name, unit=kind.unit, schedule=schedule)
    expected, whole = bench.run(spec)
    assert None not in states, f"{name} trains and passes no state"
    for epoch in (3, 5):
        bench.run(spec, killed_at=epoch)
        result, reports = bench.run(spec, attempt=2)
        assert result == expected
        assert reports[-1] == whole[-1]
