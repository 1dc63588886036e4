"""Image folders and zip files as people have them: laid out, linked, packed and saved anyhow."""

import os
import shutil
import stat
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workers.data.test_sources import fill, folder, save, zipped
from workers.data import DataInfo, describe, load
from workers.data.archive import MOST_BYTES
from workers.errors import DataError
from workers.settings import DataSettings


def split(root: Path, train: str, test: str) -> Path:
    fill(root / train)
    fill(root / test, count=3)
    return root


def counts(info: DataInfo) -> tuple[int, int, int]:
    return info.train_images, info.val_images, info.test_images


class TestSplits:
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("Train", "Test"),
            ("TRAIN", "VAL"),
            ("Training", "Testing"),
            ("training", "validation"),
            ("train", "eval"),
            ("Training Set", "Test Set"),
            ("train_images", "test_images"),
            ("seg_train", "seg_test"),
            ("seg_train/seg_train", "seg_test/seg_test"),
            ("outer/Train", "outer/Valid"),
            ("TrainSet", "ValSet"),
            ("trainset", "testset"),
            ("trn", "tst"),
        ],
    )
    def test_splits_go_by_any_usual_name(self, tmp_path: Path, train: str, test: str) -> None:
        plain = describe(folder(split(tmp_path / "plain", "train", "test")))
        assert counts(plain) == (18, 2, 6)
        assert describe(folder(split(tmp_path / "some", train, test))) == plain

    def test_plain_names_come_before_others(self, tmp_path: Path) -> None:
        split(tmp_path, "train", "val")
        fill(tmp_path / "Test", count=5)
        fill(tmp_path / "training", count=5)
        assert counts(describe(folder(tmp_path))) == (18, 2, 6)

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        fill(tmp_path, classes=("bus", "car", "train"))
        info = describe(folder(tmp_path))
        assert info.classes == ("bus", "car", "train")
        assert info.class_images == ((7, 1, 2),) * 3

    def test_classes_may_have_words_of_splits_in_their_names(self, tmp_path: Path) -> None:
        fill(tmp_path, classes=("test tube", "train station", "valley"))
        assert describe(folder(tmp_path)).classes == ("test tube", "train station", "valley")

    def test_classes_that_differ_in_case_alone_are_refused(self, tmp_path: Path) -> None:
        fill(tmp_path, ("Cat", "cat", "dog"))
        with pytest.raises(DataError, match="'Cat' and 'cat' differ in upper and lower case only"):
            describe(folder(tmp_path))

    def test_images_that_train_and_judge_are_counted(self, tmp_path: Path) -> None:
        fill(tmp_path / "train")
        for number in range(4):
            save(tmp_path / "test" / "cat" / f"{number}.png", 100 + number)
            save(tmp_path / "test" / "dog" / f"{number}.png", 200 + number)
        assert describe(folder(tmp_path)).repeated == 0
        for file in (tmp_path / "train" / "cat").iterdir():  # 9 of them train, 1 validates
            shutil.copy(file, tmp_path / "test" / "cat" / f"copy of {file.name}")
        for info in (describe(folder(tmp_path)), describe(folder(zipped(tmp_path)))):
            assert info.repeated == 9
            assert info.told().endswith("; 9 of validation and test are training images as well")

    def test_flat_splits_are_no_classes(self, tmp_path: Path) -> None:
        fill(tmp_path, classes=("train", "test"))
        with pytest.raises(DataError, match="found 0 class folder"):
            describe(folder(tmp_path))

    def test_a_test_split_without_one_to_train_on_is_refused(self, tmp_path: Path) -> None:
        split(tmp_path, "Testing", "Others")
        with pytest.raises(DataError, match="has a folder 'Testing' but no 'train'"):
            describe(folder(tmp_path))


class TestLinks:
    @pytest.mark.parametrize("target", [".", "..", "../..", "../dog"])
    def test_each_real_folder_counts_once(self, tmp_path: Path, target: str) -> None:
        plain = describe(folder(split(tmp_path / "set", "train", "test")))
        (tmp_path / "set" / "train" / "cat" / "again").symlink_to(target)
        assert describe(folder(tmp_path / "set")) == plain

    def test_folders_that_link_to_each_other_end(self, tmp_path: Path) -> None:
        fill(tmp_path, classes=tuple("abcdefgh"))
        for one in "abcdefgh":
            for other in "abcdefgh":
                (tmp_path / one / f"to_{other}").symlink_to(f"../{other}")
        assert describe(folder(tmp_path)).num_classes == 8

    def test_classes_may_be_links_to_elsewhere(self, tmp_path: Path) -> None:
        fill(tmp_path / "store")
        (tmp_path / "set").mkdir()
        for name in ("cat", "dog"):
            (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
        assert describe(folder(tmp_path / "set")) == describe(folder(tmp_path / "store"))

    def test_a_link_to_nothing_is_named_as_one(self, tmp_path: Path) -> None:
        fill(tmp_path)
        (tmp_path / "cat" / "99.png").symlink_to("../../cache/ab")
        with pytest.raises(DataError, match=r"99.png: is a link to '../../cache/ab', where there"):
            describe(folder(tmp_path))


class TestWhatIsNoFile:
    def test_a_pipe_among_the_images_is_named(self, tmp_path: Path) -> None:
        fill(tmp_path)
        os.mkfifo(tmp_path / "cat" / "99.png")
        with pytest.raises(DataError, match=r"99.png: is a pipe, no file"):
            describe(folder(tmp_path))

    def test_a_device_behind_a_link_is_named(self, tmp_path: Path) -> None:
        fill(tmp_path)
        (tmp_path / "cat" / "99.png").symlink_to("/dev/zero")
        with pytest.raises(DataError, match=r"99.png: is a device, no file"):
            describe(folder(tmp_path))

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("/dev/zero", "is a device, but no zip file"),
            ("file:///dev/zero", "is a device, but no zip file"),
            ("/proc/self", "belongs to the system"),
            ("/proc", "belongs to the system"),
            ("/sys", "belongs to the system"),
            ("a\0b", "cannot be read"),
            ("/" + "x" * 300, "File name too long"),
        ],
    )
    def test_what_is_no_data_set_is_refused_at_once(self, path: str, says: str) -> None:
        began = time.monotonic()
        with pytest.raises(DataError, match=says):
            describe(DataSettings(name="image_folder", path=path))
        assert time.monotonic() - began < 2.0

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "images.zip")
        with pytest.raises(DataError, match="is a pipe, but no zip file"):
            describe(folder(tmp_path / "images.zip"))

    def test_system_folders_behind_links_are_not_entered(self, tmp_path: Path) -> None:
        fill(tmp_path)
        plain = describe(folder(tmp_path))
        (tmp_path / "cat" / "system").symlink_to("/proc")
        assert describe(folder(tmp_path)) == plain

    def test_a_place_full_of_other_files_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("workers.data.archive._MOST_OTHERS", 100)
        fill(tmp_path, count=1)
        for number in range(101):
            (tmp_path / "cat" / f"{number}.txt").touch()
        with pytest.raises(DataError, match=r"holds 101 files that are no images"):
            describe(folder(tmp_path))

    def test_an_address_of_this_machine_is_a_path(self, tmp_path: Path) -> None:
        fill(tmp_path / "50% set")
        plain = describe(folder(tmp_path / "50% set"))
        assert (
            describe(DataSettings(name="image_folder", path=(tmp_path / "50% set").as_uri()))
            == plain
        )


class TestImages:
    def test_a_bomb_is_named(self, tmp_path: Path) -> None:
        fill(tmp_path)
        Image.new("1", (14_000, 14_000), 1).save(tmp_path / "cat" / "scan.png")
        with pytest.raises(DataError, match=r"scan.png: is too large: Image size \(196000000"):
            describe(folder(tmp_path, image_size=32))

    def test_a_line_that_would_become_a_wall_is_named(self, tmp_path: Path) -> None:
        fill(tmp_path)
        save(tmp_path / "cat" / "line.png", size=(60_000, 1))
        with pytest.raises(DataError, match=r"line.png: has 60000x1 pixels, too long and narrow"):
            load(folder(tmp_path, image_size=64), "cpu", tmp_path / "cache")

    def test_a_file_larger_than_any_image_is_not_read(self, tmp_path: Path) -> None:
        fill(tmp_path)
        with (tmp_path / "cat" / "99.png").open("wb") as file:
            file.truncate(6 << 30)
        with pytest.raises(DataError, match=r"99.png: has 6,144 MiB, and an image may have 256"):
            describe(folder(tmp_path))

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "Git LFS"),
            (b"<!DOCTYPE html><html></html>", "a web page"),
        ],
    )
    def test_what_lies_in_place_of_an_image_is_told(
        self, tmp_path: Path, content: bytes, what: str
    ) -> None:
        split(tmp_path, "train", "test")
        file = next((tmp_path / "train").rglob("*.png"))
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{what}.*bring the file itself") as raised:
            describe(folder(tmp_path))
        assert str(file) in str(raised.value)

    def test_kinds_that_are_left_out_are_counted(self, tmp_path: Path) -> None:
        fill(tmp_path)
        for number in range(3):
            (tmp_path / "cat" / f"{number}.gif").touch()
        (tmp_path / "dog" / "LICENSE").touch()
        (tmp_path / "README.md").touch()
        info = describe(folder(tmp_path))
        assert info.left_out == ((".gif", 3), ("", 1))
        assert info.told() == (
            "14 training, 2 validation and 4 test images (3, 8, 8) in 2 classes: cat 7+1+2, "
            "dog 7+1+2; left out: 3 .gif, 1 without suffix"
        )

    @pytest.mark.parametrize("suffix", ["jpg", "tif"])
    def test_colours_of_print_become_those_of_screens(self, tmp_path: Path, suffix: str) -> None:
        fill(tmp_path)
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cat" / f"red.{suffix}")
        assert (self._pixel(tmp_path, "red") - [254, 0, 0] < 12).all()

    def test_a_palette_becomes_colours(self, tmp_path: Path) -> None:
        fill(tmp_path)
        red = Image.new("RGB", (8, 8), (200, 10, 20)).convert("P", palette=Image.Palette.ADAPTIVE)
        red.save(tmp_path / "cat" / "red.png")
        assert self._pixel(tmp_path, "red").tolist() == [200, 10, 20]

    def _pixel(self, root: Path, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        from workers.data.image_folder import open_image_folder

        opened = open_image_folder(str(root), None)
        item = next(n for n, file in enumerate(opened.names) if name in file)
        pixels: np.ndarray[tuple[int], np.dtype[np.int64]] = opened.decode(np.array([item]))[
            0, :, 3, 3
        ].astype(np.int64)
        return pixels

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_photos_are_turned_as_the_camera_says(self, tmp_path: Path, orientation: int) -> None:
        from workers.data.image_folder import open_image_folder

        upright = np.zeros((8, 12, 3), dtype=np.uint8)
        upright[:4, :6] = 200  # bright at the top left
        stored = Image.fromarray(upright)
        undo = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }
        if orientation in undo:
            stored = stored.transpose(undo[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir()
            for number in range(10):
                stored.save(tmp_path / name / f"{number}.png", exif=exif)
        opened = open_image_folder(str(tmp_path), None)
        assert opened.shape == (3, 8, 12)
        assert (opened.decode(np.arange(20)).transpose(0, 2, 3, 1) == upright).all()
        assert opened.is_turned == (orientation > 1)

    def test_a_program_behind_a_suffix_is_not_run(self, tmp_path: Path) -> None:
        fill(tmp_path)
        (tmp_path / "cat" / "0.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
        )
        with pytest.raises(DataError, match=r"0.png: cannot be decoded \(cannot identify image"):
            describe(folder(tmp_path))


class TestZips:
    def test_a_zip_of_windows_is_the_folder_it_was_made_from(self, tmp_path: Path) -> None:
        root = split(tmp_path / "set", "train", "test")
        path = tmp_path / "windows.zip"
        zip_with(path, {file: file.replace("/", "\\") for file in files_of(root)}, root)
        assert describe(folder(path)) == describe(folder(root))

    def test_a_zip_of_windows_may_name_its_folder_otherwise(self, tmp_path: Path) -> None:
        root = split(tmp_path / "set", "train", "test")
        path = tmp_path / "mixed.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("set/", b"")
            for file in files_of(root):
                entry = zipfile.ZipInfo("set\\" + file.replace("/", "\\"))
                entry.create_system = 0
                archive.writestr(entry, (root / file).read_bytes())
        assert describe(folder(path)) == describe(folder(root))

    def test_names_may_begin_with_a_dot_and_a_slash(self, tmp_path: Path) -> None:
        root = split(tmp_path / "set", "train", "test")
        path = tmp_path / "dotted.zip"
        zip_with(path, {file: f"./{file}" for file in files_of(root)}, root)
        assert describe(folder(path)) == describe(folder(root))

    def test_an_entry_larger_than_any_image_is_not_read(self, tmp_path: Path) -> None:
        path = zipped(fill(tmp_path / "set"))
        with (
            zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
            archive.open("cat/bomb.png", "w") as file,
        ):
            for _ in range((MOST_BYTES >> 20) + 1):
                file.write(bytes(1 << 20))
        assert path.stat().st_size < 1 << 20
        with pytest.raises(DataError, match=r"cat/bomb.png in .*: has 257 MiB, and an image may"):
            describe(folder(path))

    def test_a_header_that_lies_about_the_size_is_found_out(self, tmp_path: Path) -> None:
        path = zipped(fill(tmp_path / "set"))
        with zipfile.ZipFile(path) as archive:
            size = struct.pack("<I", archive.getinfo("cat/0.png").file_size)
        content = path.read_bytes()
        path.write_bytes(content.replace(size, struct.pack("<I", 20)))
        with pytest.raises(DataError, match=r"in .*set.zip"):
            load(folder(path), "cpu", tmp_path / "cache")

    @pytest.mark.parametrize(
        ("field", "value", "says"),
        [
            ("flag_bits", 1, "cat/0.png in .*: is encrypted; zip the folder anew"),
            ("compress_type", 9, "cat/0.png in .*: is compressed by Deflate64, which is not read"),
            ("compress_type", 77, "cat/0.png in .*: is compressed by method 77"),
            ("external_attr", (stat.S_IFLNK | 0o777) << 16, "cat/0.png in .*: is a link"),
        ],
    )
    def test_what_cannot_be_read_is_told_for_what_it_is(
        self, tmp_path: Path, field: str, value: int, says: str
    ) -> None:
        path = tmp_path / "set.zip"
        root = fill(tmp_path / "set")
        with zipfile.ZipFile(path, "w") as archive:
            for file in files_of(root):
                archive.write(root / file, file)
            setattr(archive.filelist[0], field, value)  # in the table of contents
        with pytest.raises(DataError, match=says):
            describe(folder(path))

    @pytest.mark.parametrize("keep", [0.3, 0.9, 0.99])
    def test_a_zip_that_is_cut_short_is_named(self, tmp_path: Path, keep: float) -> None:
        path = zipped(fill(tmp_path / "set"))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)] + b"PK\5\6" + bytes(18))
        with pytest.raises(DataError, match=r"set.zip"):
            describe(folder(path))


def files_of(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def zip_with(path: Path, names: dict[str, str], root: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file, name in names.items():
            archive.writestr(name, (root / file).read_bytes())
