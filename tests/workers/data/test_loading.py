import fcntl
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.shared_data import JPEG_COPY, shared_file
from workers.data import DataSet, Split, describe, load
from workers.errors import DataError, TestSplitReadError
from workers.files import file_lock
from workers.settings import DataSettings


def digits(**changes: object) -> DataSettings:
    return DataSettings.model_validate({"name": "digits", **changes})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everything(data: DataSet, split: Split) -> tuple[Tensor, Tensor]:
    images, labels = zip(*data.eval_batches(split, 100), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return load(digits(), "cpu", tmp_path_factory.mktemp("cache"))


def test_the_digits_are_described_without_a_download() -> None:
    info = describe(digits())
    assert info.classes == tuple("0123456789")
    assert info.input_shape == (1, 8, 8)
    assert info.train_images + info.val_images + info.test_images == 1797
    assert info.test_images == pytest.approx(0.2 * 1797, abs=5)
    assert info.val_images == pytest.approx(0.1 * 0.8 * 1797, abs=5)


def test_loading_gives_what_was_described(data: DataSet) -> None:
    assert data.info == describe(digits())
    assert len(data.train) == data.info.train_images
    assert len(data.val) == data.info.val_images
    assert len(data.for_trial().take_test()) == data.info.test_images


def test_no_image_is_in_two_splits(data: DataSet) -> None:
    splits = (data.train, data.val, data.for_trial().take_test())
    images = [
        tuple(image.flatten().tolist()) for split in splits for image in everything(data, split)[0]
    ]
    assert len(images) == 1797
    assert len(set(images)) == 1797  # the digits hold no image twice


def test_every_class_has_its_share_of_every_split(data: DataSet) -> None:
    for split, share in ((data.val, 0.08), (data.for_trial().take_test(), 0.2)):
        counts = Counter(split.labels.tolist())
        assert len(counts) == 10
        assert all(abs(count - share * 180) < 3 for count in counts.values())


def test_training_images_are_normalised(data: DataSet) -> None:
    images, _ = everything(data, data.train)
    assert images.dtype == torch.float32
    assert abs(images.mean().item()) < 0.05
    assert abs(images.std().item() - 1) < 0.05


def test_a_given_normalisation_is_used(tmp_path: Path) -> None:
    data = load(digits(mean=(0.5,), std=(0.25,)), "cpu", tmp_path)
    images, _ = everything(data, data.val)
    assert images.min() == -2.0
    assert images.max() == 2.0


def test_the_test_split_is_handed_out_once_per_trial(data: DataSet) -> None:
    trial = data.for_trial()
    trial.take_test()
    with pytest.raises(TestSplitReadError, match="'digits' cannot be read here"):
        trial.take_test()
    assert len(data.for_trial().take_test()) == data.info.test_images


def test_an_epoch_shows_every_training_image_once(data: DataSet) -> None:
    seen = torch.cat([images for images, _ in data.train_batches(100, generator())])
    known, _ = everything(data, data.train)
    assert sorted(seen.flatten(1).tolist()) == sorted(known.flatten(1).tolist())


def test_labels_stay_with_their_images(data: DataSet) -> None:
    known, labels = everything(data, data.train)
    label_of = {
        tuple(image): label
        for image, label in zip(known.flatten(1).tolist(), labels.tolist(), strict=True)
    }
    for images, shuffled in data.train_batches(100, generator()):
        assert [label_of[tuple(image)] for image in images.flatten(1).tolist()] == shuffled.tolist()


def test_the_generator_decides_order_and_augmentation(data: DataSet) -> None:
    def epoch(seed: int) -> Tensor:
        batches = data.train_batches(100, generator(seed), "shift_flip")
        return torch.cat([images for images, _ in batches])

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))


@pytest.mark.parametrize(
    ("images", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 5]), (5, [5]), (1, [1])]
)
def test_no_training_batch_holds_one_image_unless_there_is_one(
    data: DataSet, images: int, sizes: list[int]
) -> None:
    few = DataSet(
        data.info, train=data.train.first(images), val=data.val, test=data.val, device=data.device
    )
    assert [len(labels) for _, labels in few.train_batches(4, generator())] == sizes
    assert few.steps_per_epoch(4) == len(sizes)


def test_the_first_images_of_a_split_are_of_all_classes(data: DataSet) -> None:
    assert len(set(data.train.first(64).labels.tolist())) == 10


def test_streaming_gives_the_same_batches(data: DataSet, tmp_path: Path) -> None:
    streamed = load(digits(), "cpu", tmp_path, memory_limit=1000)
    assert list(tmp_path.iterdir()) == []
    for ours, theirs in zip(
        streamed.train_batches(100, generator(), "shift"),
        data.train_batches(100, generator(), "shift"),
        strict=True,
    ):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_a_stream_can_be_left_early(tmp_path: Path) -> None:
    streamed = load(digits(), "cpu", tmp_path, memory_limit=0)
    batches = streamed.train_batches(2, generator())
    assert len(next(batches)[1]) == 2
    del batches


def test_images_are_decoded_once_per_node(tmp_path: Path) -> None:
    load(digits(), "cpu", tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    assert len(written) == 2
    load(digits(split_seed=5, validation_fraction=0.3), "cpu", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == written


def test_a_cache_file_that_was_cut_short_is_made_anew(data: DataSet, tmp_path: Path) -> None:
    load(digits(), "cpu", tmp_path)
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:500])
    again = load(digits(), "cpu", tmp_path)
    assert torch.equal(everything(again, again.val)[0], everything(data, data.val)[0])


def test_writing_to_a_batch_reaches_nobody_else(data: DataSet) -> None:
    before, _ = everything(data, data.val)
    for images, _ in data.eval_batches(data.val, 50):
        images.zero_()
    assert torch.equal(everything(data, data.val)[0], before)


def test_a_lock_excludes_other_holders(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / "some.lock"),
        (tmp_path / "some.lock").open() as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / "some.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_hash_follows_images_and_splits_but_not_the_normalisation() -> None:
    name = describe(digits()).data_hash
    assert name == describe(digits(mean=(0.5,), std=(0.5,))).data_hash
    changes: list[dict[str, object]] = [
        {"split_seed": 1},
        {"validation_fraction": 0.2},
        {"train_images": 500},
        {"test_images": 100},
        {"image_size": 16},
    ]
    others = {describe(digits(**change)).data_hash for change in changes}
    assert len(others | {name}) == len(changes) + 1


def test_the_splits_stay_what_they_were() -> None:
    """A changed hash means that results of other versions cannot be compared: say so."""
    assert describe(digits()).data_hash == "f56fdbbea6d55f052c845f8fefc5c2d0"


def test_another_validation_split_leaves_the_test_split_alone(tmp_path: Path) -> None:
    tests = []
    for seed in (0, 1):
        data = load(digits(split_seed=seed, mean=(0.0,), std=(1.0,)), "cpu", tmp_path)
        images, _ = everything(data, data.take_test())
        tests.append(sorted(images.flatten(1).tolist()))
    assert tests[0] == tests[1]


def test_subsets_are_balanced(tmp_path: Path) -> None:
    data = load(digits(train_images=205, test_images=50), "cpu", tmp_path)
    labels = torch.cat([data.train.labels, data.val.labels])
    assert torch.bincount(labels).tolist() == [21] * 5 + [20] * 5
    assert torch.bincount(data.take_test().labels).tolist() == [5] * 10


def test_images_can_be_enlarged(tmp_path: Path) -> None:
    data = load(digits(image_size=32, train_images=20, test_images=10), "cpu", tmp_path)
    assert data.info.input_shape == (1, 32, 32)
    images, _ = next(data.eval_batches(data.val, 5))
    assert images.shape[1:] == (1, 32, 32)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"train_images": 1430}, "ask for at most 13"),
        ({"test_images": 5}, "there are 10 classes"),
        ({"train_images": 10}, "leaves none to train on"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "one number per channel"),
        ({"mean": (0.5,)}, "or leave both out"),
        ({"mean": (0.5,), "std": (0.0,)}, "at least 1e-06"),
        ({"name": "mnist"}, "needs data.path"),
        ({"name": "image_folder", "path": "/no/such/folder"}, "does not exist"),
    ],
)
def test_bad_settings_stop_at_the_door(changes: dict[str, object], hint: str) -> None:
    with pytest.raises(DataError, match=hint) as caught:
        describe(digits(**changes))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_small_subset_of_a_large_zip_is_decoded_alone(tmp_path: Path) -> None:
    settings = DataSettings(
        name="image_folder", path=str(shared_file(JPEG_COPY)), train_images=200, test_images=100
    )
    data = load(settings, "cpu", tmp_path)
    assert data.info.num_classes == 10
    assert data.info.input_shape == (3, 32, 32)
    assert (data.info.train_images, data.info.val_images, data.info.test_images) == (180, 20, 100)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.npy")) < 301 * 3 * 32 * 32


@pytest.mark.gpu
def test_batches_on_the_gpu_are_those_of_the_cpu(data: DataSet, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for limit in (0, 1 << 30):
        there = load(digits(), "cuda", tmp_path, memory_limit=limit)
        for ours, theirs in zip(
            there.train_batches(100, generator(), "shift_flip"),
            data.train_batches(100, generator(), "shift_flip"),
            strict=True,
        ):
            assert ours[0].is_cuda
            torch.testing.assert_close(ours[0].cpu(), theirs[0])
            assert torch.equal(ours[1].cpu(), theirs[1])
