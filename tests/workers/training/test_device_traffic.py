"""How often training waits for its device: never per step, and for nothing it could have had."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import methods
from methods import CostTarget, Step
from methods.scop.method import CHECK_STEPS
from tests.device_traffic import Traffic
from tracking.artifacts import ArtifactStore
from workers.data import DataSet, Split, load
from workers.data.stores import TensorStore
from workers.files import SharedFiles
from workers.models import build_model
from workers.networks.checkpoints import weights_hash
from workers.networks.shapes import layout_of
from workers.settings import DataSettings, LayerSettings, ModelSettings, Recipe, TrialSpec
from workers.training.session import PruningSession, TrainingSession

CPU, AWAY = torch.device("cpu"), torch.device("meta")  # where reading a value is an error
DATA = DataSettings(train_images=200, test_images=40, validation_fraction=0.2)
MODEL = ModelSettings(name="digits_net")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return load(DATA, CPU, tmp_path_factory.mktemp("cache"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model(MODEL, 10, 1)


def specification(data: DataSet, batch_size: int, **changes: Any) -> TrialSpec:
    return TrialSpec(
        kind="prune",
        model=MODEL,
        data=DATA,
        data_hash=data.info.data_hash,
        recipe=Recipe(epochs=2, batch_size=batch_size, augmentation="shift_flip"),
        seed=1,
        weights=weights_hash(network().state_dict()),
        **changes,
    )


def traffic_of(
    data: DataSet, folder: Path, batch_size: int, method: str | None = None, **changes: Any
) -> Counter[str]:
    """Train for two epochs, or let a method choose in two, and count."""
    spec = specification(data, batch_size, method=method, **changes)
    files = SharedFiles(artifacts=ArtifactStore(folder / str(batch_size)), cache_dir=folder)
    model = network()
    layout = layout_of(model, (1, 8, 8), LayerSettings(), spec.unit)
    session = PruningSession(spec, data.for_trial(), CPU, files, lambda *_: None, layout)
    chosen = methods.create(method, spec.method_settings) if method else None
    with Traffic() as traffic, session.meter.act("recover"):
        if chosen:
            ratios = {} if spec.target else dict.fromkeys(layout.widths, 0.4)
            chosen.select(model, ratios, session)
        else:
            session.train(model, 2)
    return traffic.counts


TARGET = CostTarget(axis="macs", reduction=0.4)
LEARNING: dict[str, dict[str, Any]] = {
    "bn_scale": {"method_settings": {"pull": 0.5}},
    "stripe_wise": {"unit": "stripes", "target": TARGET},
    "filter_norm": {"schedule": {"name": "hfp"}},
    "geometric_median": {"schedule": {"name": "ghfp"}},
    "taylor": {"schedule": {"name": "iterative"}},
}


class TestSteps:
    """Twice as many steps must not be one reading, one transfer or one list more."""

    def test_training_waits_for_no_step(self, digits: DataSet, tmp_path: Path) -> None:
        few, many = (traffic_of(digits, tmp_path, size) for size in (8, 4))
        assert few == many
        assert few["reads"] > 0  # the loss of an epoch, and its evaluation: the counter works

    @pytest.mark.parametrize("method", LEARNING)
    def test_methods_that_train_wait_for_no_step(
        self, digits: DataSet, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("methods.stripe_wise.method.UPDATES", 5)  # so few steps, so few updates
        few, many = (
            traffic_of(digits, tmp_path, size, method, **LEARNING[method]) for size in (8, 4)
        )
        assert few == many

    def test_scop_looks_at_its_factors_every_few_steps(
        self, digits: DataSet, tmp_path: Path
    ) -> None:
        few, many = (traffic_of(digits, tmp_path, size, "scop") for size in (8, 4))
        drawn = 20  # numbers on the CPU, one a step
        assert many["reads"] - few["reads"] <= drawn + 2 * 20 // CHECK_STEPS
        assert (many["made"], many["moves"]) == (few["made"], few["moves"])

    def test_gates_read_what_they_cost_once_a_step(self, digits: DataSet, tmp_path: Path) -> None:
        """Whether the target is met ends the phase, at the step at which it is."""
        few, many = (
            traffic_of(digits, tmp_path, size, "weight_gates", target=TARGET) for size in (8, 4)
        )
        assert many["reads"] - few["reads"] <= 40
        assert many["moves"] - few["moves"] <= 2 * 40  # to the cost model on the CPU, and back


class TestBatches:
    def test_images_on_the_device_travel_no_more(self, digits: DataSet) -> None:
        few, many = (moves_of_an_epoch(digits, home=AWAY, batch_size=size) for size in (8, 4))
        assert few == many <= 3  # the order, twice, and how images move

    def test_images_in_memory_travel_once_a_batch(
        self, digits: DataSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pinned = []

        def pin(images: Tensor) -> Tensor:
            pinned.append(images)
            return images

        monkeypatch.setattr(Tensor, "pin_memory", pin)
        few, many = (moves_of_an_epoch(digits, home=CPU, batch_size=size) for size in (8, 4))
        assert many - few == 40 - 20
        assert len(pinned) == 20 + 40

    def test_images_that_are_streamed_are_decoded_ahead(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("workers.data.stores.decoder_threads", lambda: 2)
        streamed = load(DATA, CPU, tmp_path, memory_limit=0)
        asked = []

        class Pool(ThreadPoolExecutor):
            def submit(self, *work: Any, **more: Any) -> Any:
                asked.append(work)
                return super().submit(*work, **more)

        monkeypatch.setattr("workers.data.stores.ThreadPoolExecutor", Pool)
        next(streamed.train_batches(10, torch.Generator()))
        assert len(asked) == 4  # beside the one that was waited for, one for each thread, and one


def moves_of_an_epoch(digits: DataSet, *, home: torch.device, batch_size: int) -> int:
    """Count the moves of an epoch of images that lie at ``home``, for a network elsewhere."""
    images = torch.zeros(160, 1, 8, 8, dtype=torch.uint8, device=home)
    store = TensorStore(images=images, device=AWAY)
    rows = torch.arange(160)
    split = Split(store=store, rows=rows, labels=torch.zeros_like(rows, device=AWAY))
    data = DataSet(digits.info, train=split, val=split, test=split, device=AWAY)
    with Traffic() as traffic:
        for batch, labels in data.train_batches(batch_size, torch.Generator(), "shift_flip"):
            assert batch.device == labels.device == AWAY
    return traffic.counts["moves"]


class TestKernels:
    @pytest.mark.parametrize(("least", "timed"), [(1000, False), (1, True)])
    def test_kernels_are_timed_only_where_a_shape_trains_long(
        self,
        digits: DataSet,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        least: int,
        timed: bool,
    ) -> None:
        monkeypatch.setattr("workers.training.session.TUNING_STEPS", least)
        seen = []

        def look(step: Step) -> None:
            seen.append(torch.backends.cudnn.benchmark)
            assert step.images.is_contiguous(memory_format=torch.channels_last)
            for weight in step.network.parameters():
                if weight.dim() == 4:
                    assert weight.is_contiguous(memory_format=torch.channels_last)

        files = SharedFiles(artifacts=ArtifactStore(tmp_path), cache_dir=tmp_path)
        spec = specification(digits, 40)
        session = TrainingSession(spec, digits.for_trial(), CPU, files, lambda *_: None)
        session.train(network(), 1, after_step=look)
        assert set(seen) == {timed}
        assert not torch.backends.cudnn.benchmark
