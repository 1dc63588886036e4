import pickle
import struct
import zipfile
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from tests.object_store import running_object_store
from tracking.artifacts import ArtifactStore
from workers.data import describe, load
from workers.errors import DataError, ImageError
from workers.settings import DataSettings


def save(path: Path, value: int = 0, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 2 * value, 3 * value)).save(path)


def fill(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> Path:
    """``count`` images of every class; pixel values tell them apart."""
    for at, name in enumerate(classes):
        for number in range(count):
            save(root / name / f"{number}.png", 1 + count * at + number)
    return root


def folder(path: Path, **changes: object) -> DataSettings:
    return DataSettings.model_validate({"name": "image_folder", "path": str(path), **changes})


def zipped(root: Path, below: str = "") -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, below + path.relative_to(root).as_posix())
    return root.with_suffix(".zip")


@pytest.mark.parametrize("name", ["test", "val", "valid"])
def test_train_and_test_folders_are_the_splits(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / name, count=3)
    info = describe(folder(tmp_path))
    assert info.classes == ("cat", "dog")
    assert (info.train_images, info.val_images, info.test_images) == (18, 2, 6)


def test_a_flat_test_folder_gives_way_to_val(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "val", count=3)
    save(tmp_path / "test" / "unlabelled.png")
    assert describe(folder(tmp_path)).test_images == 6


@pytest.mark.parametrize("parts", ["", "train", "outer", "outer/train"])
def test_without_a_test_folder_a_fifth_is_held_out(tmp_path: Path, parts: str) -> None:
    fill(tmp_path / "set" / parts)
    info = describe(folder(tmp_path / "set"))
    assert info.test_images == 4
    assert info.train_images + info.val_images == 16


def test_a_zip_is_the_data_set_its_folder_is(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "train")
    fill(tmp_path / "set" / "test")
    (tmp_path / "set" / "README.txt").write_text("not an image")
    plain = describe(folder(tmp_path / "set"))
    assert describe(folder(zipped(tmp_path / "set"))) == plain
    assert describe(folder(zipped(tmp_path / "set", below="outer/"))) == plain


@pytest.mark.integration
def test_a_zip_at_an_address_is_read_there_and_fetched_to_train(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "train")
    fill(tmp_path / "set" / "test")
    plain = describe(folder(zipped(tmp_path / "set")))
    with running_object_store() as url:
        ArtifactStore(url).put_file(tmp_path / "set.zip", "photos/set.zip")
        settings = DataSettings(name="image_folder", path=f"{url}/photos/set.zip")
        assert describe(settings) == plain
        for _ in range(2):
            data = load(settings, "cpu", tmp_path / "cache")
            assert data.info == plain
        assert len(list((tmp_path / "cache").glob("fetched-*[!k]"))) == 1
        with pytest.raises(DataError, match=r"'s3://.*/gone.zip' cannot be read \(FileNotFound"):
            describe(DataSettings(name="image_folder", path=f"{url}/gone.zip"))
        with pytest.raises(DataError, match=r"'s3://.*/gone.zip' cannot be read \(FileNotFound"):
            load(DataSettings(name="image_folder", path=f"{url}/gone.zip"), "cpu", tmp_path)
        ArtifactStore(url).write_bytes("text.zip", bytes(1000))
        with pytest.raises(DataError, match="is there, but is no zip file"):
            describe(DataSettings(name="image_folder", path=f"{url}/text.zip"))


def test_another_pixel_changes_the_hash(tmp_path: Path) -> None:
    fill(tmp_path)
    before = describe(folder(tmp_path)).data_hash
    save(tmp_path / "cat" / "0.png", 200)
    assert describe(folder(tmp_path)).data_hash != before


def test_pixels_and_labels_arrive(tmp_path: Path) -> None:
    fill(tmp_path / "set")
    data = load(folder(tmp_path / "set", mean=(0, 0, 0), std=(1, 1, 1)), "cpu", tmp_path / "cache")
    seen = set()
    for split in (data.train, data.val, data.take_test()):
        for images, labels in data.eval_batches(split, 4):
            pixels = (images * 255).round().int()
            assert (pixels == pixels[:, :, :1, :1]).all()
            red, green, blue = pixels[:, :, 0, 0].T
            assert torch.equal(green, 2 * red)
            assert torch.equal(blue, 3 * red)
            assert torch.equal((red > 10).long(), labels)
            seen.update(red.tolist())
    assert seen == set(range(1, 21))


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path / "a" / f"{number}.png", 10, mode="L")
        save(tmp_path / "b" / f"{number}.png", 20, mode="L")
    info = describe(folder(tmp_path))
    assert info.input_shape == (1, 8, 8)
    assert 10 / 255 < info.mean[0] < 20 / 255


def test_one_image_in_colour_makes_the_set_colour(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path / "a" / f"{number}.png", 10, mode="L")
        save(tmp_path / "b" / f"{number}.png", 20)
    assert describe(folder(tmp_path)).channels == 3


def test_images_of_differing_sizes_need_an_edge(tmp_path: Path) -> None:
    fill(tmp_path)
    save(tmp_path / "cat" / "0.png", size=(8, 12))
    with pytest.raises(DataError, match=r"differ in size \(8x8, 8x12\); set data.image_size"):
        describe(folder(tmp_path))
    assert describe(folder(tmp_path, image_size=6)).input_shape == (3, 6, 6)


def test_the_shorter_edge_is_resized_and_the_middle_cut_out(tmp_path: Path) -> None:
    fill(tmp_path / "set")
    for path in (tmp_path / "set").rglob("*.png"):
        wide = np.zeros((8, 32, 3), dtype=np.uint8)
        wide[:, 12:20] = 200  # the middle square
        Image.fromarray(wide).save(path)
    settings = folder(tmp_path / "set", image_size=4, mean=(0, 0, 0), std=(1, 1, 1))
    data = load(settings, "cpu", tmp_path / "cache")
    images, _ = next(data.eval_batches(data.val, 2))
    assert images.shape[1:] == (3, 4, 4)
    assert (images[..., 1:3] * 255).round().eq(200).all()
    assert images.mean() > 0.7


def test_a_size_the_probe_missed_is_named_when_decoded(tmp_path: Path) -> None:
    fill(tmp_path / "set", count=200)
    save(tmp_path / "set" / "cat" / "101.png", size=(9, 9))
    with pytest.raises(ImageError, match=r"101\.png: is 9x9 pixels, others are 8x8"):
        load(folder(tmp_path / "set"), "cpu", tmp_path / "cache")


@pytest.mark.parametrize("memory_limit", [0, 1 << 20])
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_corrupt_image_is_named(tmp_path: Path, memory_limit: int, as_zip: bool) -> None:
    root = fill(tmp_path / "set", count=200)
    broken = root / "cat" / "101.png"
    broken.write_bytes(broken.read_bytes()[:50])
    path = zipped(root) if as_zip else root
    with pytest.raises(ImageError, match=r"101\.png.*cannot be decoded") as caught:  # noqa: PT012
        data = load(folder(path), "cpu", tmp_path / "cache", memory_limit=memory_limit)
        for split in (data.train, data.val, data.take_test()):
            list(data.eval_batches(split, 50))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_failed_decoding_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", count=200)
    save(root / "cat" / "101.png", size=(9, 9))
    for _ in range(2):
        with pytest.raises(ImageError):
            load(folder(root), "cpu", tmp_path / "cache")
    save(root / "cat" / "101.png", 3)
    assert load(folder(root), "cpu", tmp_path / "cache").info.num_classes == 2


def test_16_bit_pixels_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(tmp_path / "cat" / "0.png")
    with pytest.raises(ImageError, match="convert it to 8 bits"):
        describe(folder(tmp_path))


def test_an_empty_folder_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 0 class folder.*train/CLASS"):
        describe(folder(tmp_path))


def test_images_without_class_folders_are_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(DataError, match="found 0 class folder"):
        describe(folder(tmp_path))


@pytest.mark.parametrize("as_zip", [False, True])
def test_an_empty_class_is_named(tmp_path: Path, as_zip: bool) -> None:
    fill(tmp_path / "set")
    (tmp_path / "set" / "emu").mkdir()
    with pytest.raises(DataError, match="class 'emu' has no images"):
        describe(folder(zipped(tmp_path / "set") if as_zip else tmp_path / "set"))


def test_classes_must_be_the_same_in_train_and_test(tmp_path: Path) -> None:
    fill(tmp_path / "train", classes=("cat", "dog"))
    fill(tmp_path / "test", classes=("cat", "eel"))
    with pytest.raises(DataError, match=r"only in train \['dog'\], only in test \['eel'\]"):
        describe(folder(tmp_path))


def test_a_test_folder_without_train_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path / "test")
    fill(tmp_path / "val")
    with pytest.raises(DataError, match="no 'train'"):
        describe(folder(tmp_path))


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.tar").write_text("hello")
    with pytest.raises(DataError, match="no zip file"):
        describe(folder(tmp_path / "images.tar"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_a_missing_data_set_says_both_ways_out(tmp_path: Path, name: str) -> None:
    settings = DataSettings.model_validate({"name": name, "path": str(tmp_path)})
    with pytest.raises(DataError, match=r"Set data.download to true.*or copy the folder"):
        describe(settings)


def test_mnist_is_read_from_its_own_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.repeat(labels, 28 * 28)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">ii", 0x801, count) + labels.tobytes()
        )
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 0x803, count, 28, 28) + images.tobytes()
        )
    settings = DataSettings(
        name="mnist", path=str(tmp_path), validation_fraction=0.25, mean=(0.0,), std=(1.0,)
    )
    data = load(settings, "cpu", tmp_path / "cache")
    assert data.info.input_shape == (1, 28, 28)
    assert (len(data.train), len(data.val), data.info.test_images) == (30, 10, 20)
    for batch, classes in data.eval_batches(data.take_test(), 7):
        assert torch.equal((batch[:, 0, 5, 5] * 255).round().long(), classes)


def test_cifar10_is_read_from_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = torchvision.datasets.CIFAR10
    base = tmp_path / kind.base_folder
    base.mkdir()

    def write(name: str, content: dict[str, object]) -> list[str]:
        (base / name).write_bytes(pickle.dumps(content))
        return [name, md5((base / name).read_bytes()).hexdigest()]

    labels = list(range(10)) * 3
    pixels = np.zeros((30, 3, 32 * 32), dtype=np.uint8)
    pixels[:, 2] = np.array(labels)[:, None]  # the label is in the blue channel
    batch = {"data": pixels.reshape(30, -1), "labels": labels}
    meta = write("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(kind, "train_list", [write("data_batch_1", batch)])
    monkeypatch.setattr(kind, "test_list", [write("test_batch", batch)])
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    settings = DataSettings(
        name="cifar10", path=str(tmp_path), validation_fraction=0.3, mean=(0, 0, 0), std=(1, 1, 1)
    )
    data = load(settings, "cpu", tmp_path / "cache")
    assert data.info.classes[3] == "class 3"
    assert data.info.input_shape == (3, 32, 32)
    for images, labels_seen in data.eval_batches(data.take_test(), 7):
        assert torch.equal((images[:, 2, 9, 9] * 255).round().long(), labels_seen)
        assert not images[:, :2].any()
