import os
import pickle
import re
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from torch import Tensor, nn

from tests.shared_data import (
    JPEG_COPY,
    PUBLISHED_MEAN,
    PUBLISHED_STD,
    RESNET20,
    RESNET56,
    shared_file,
)
from workers.data import load
from workers.errors import CheckpointError, UnreadableCheckpointError, WeightsMismatchError
from workers.models import build_model
from workers.networks.checkpoints import (
    adopt,
    fit,
    from_safetensors,
    read_weights,
    to_safetensors,
    weights_hash,
)
from workers.settings import DataSettings, ModelSettings


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "net", "model_state_dict"])
def test_weights_are_found_where_people_save_them(tmp_path: Path, nest: str | None) -> None:
    weights = network().state_dict()
    torch.save({"epoch": 3, nest: weights} if nest else weights, tmp_path / "some.pt")
    assert same(read_weights(tmp_path / "some.pt"), weights)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."]
)
def test_prefixes_of_wrappers_are_dropped(tmp_path: Path, prefix: str) -> None:
    weights = network().state_dict()
    torch.save({prefix + name: value for name, value in weights.items()}, tmp_path / "some.pt")
    assert same(read_weights(tmp_path / "some.pt"), weights)


def test_a_part_named_module_keeps_its_name(tmp_path: Path) -> None:
    weights = {"module.weight": torch.ones(1), "head.weight": torch.ones(1)}
    torch.save(weights, tmp_path / "some.pt")
    assert same(read_weights(tmp_path / "some.pt"), weights)


def test_safetensors_survive_the_trip_through_bytes_and_through_a_file(tmp_path: Path) -> None:
    weights = network().state_dict()
    (tmp_path / "some.bin").write_bytes(to_safetensors(weights))
    assert same(read_weights(tmp_path / "some.bin"), weights)
    assert same(from_safetensors(to_safetensors(weights)), weights)


def test_tensors_that_share_memory_can_be_serialised() -> None:
    tensor = torch.arange(6.0)
    shared = {"all": tensor, "part": tensor[:3], "turned": tensor.reshape(2, 3).T}
    assert same(from_safetensors(to_safetensors(shared)), shared)


def test_equal_weights_give_equal_bytes_whatever_their_order() -> None:
    weights = network().state_dict()
    assert to_safetensors(weights) == to_safetensors(dict(reversed(weights.items())))


def test_code_in_a_checkpoint_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": network().state_dict(), "extra": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="would run code"):
        read_weights(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        read_weights(tmp_path / "whole.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04 cut short", b"\x05\0\0\0\0\0\0\0{oops", b"\0" * 8 + b"{}"],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pt"):
        read_weights(tmp_path / "damaged.pt")


def test_weights_are_fetched_from_a_url() -> None:
    weights = network().state_dict()
    fsspec.filesystem("memory").pipe("/checkpoints/some.bin", to_safetensors(weights))
    assert same(read_weights("memory://checkpoints/some.bin"), weights)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("memory://checkpoints/gone.pt", "cannot be fetched (FileNotFoundError"),
        ("nowhere://checkpoints/some.pt", "cannot be fetched (ValueError: Protocol not known"),
        ("memory://checkpoints/damaged.pt", "is no checkpoint"),
    ],
)
def test_a_url_that_gives_no_weights_is_named(url: str, problem: str) -> None:
    fsspec.filesystem("memory").pipe("/checkpoints/damaged.pt", b"damaged")
    with pytest.raises(UnreadableCheckpointError, match=re.escape(f"{url!r} {problem}")):
        read_weights(url)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt.*cannot be read"):
        read_weights(tmp_path / "gone.pt")


def test_a_checkpoint_without_weights_says_where_they_belong(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="below one of state_dict"):
        read_weights(tmp_path / "empty.pt")


def test_fitting_loads_every_value() -> None:
    source, target = network(), network()
    fit(target, source.state_dict())
    assert same(dict(target.state_dict()), dict(source.state_dict()))


def test_fitting_does_without_batch_norm_counters() -> None:
    target = network()
    weights = {k: v + 1 for k, v in network().state_dict().items() if "num_batches" not in k}
    fit(target, weights)
    assert same({k: target.state_dict()[k] for k in weights}, weights)


def test_weights_that_do_not_fit_are_listed_and_leave_the_network_as_it_was() -> None:
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    weights = {**network(5).state_dict(), "extra": torch.ones(1)}
    del weights["1.running_mean"]
    with pytest.raises(WeightsMismatchError) as caught:
        fit(target, weights)
    message = str(caught.value)
    assert "1 missing (1.running_mean)" in message
    assert "1 unexpected (extra)" in message
    assert "5 of another shape (0.weight [5, 1, 3, 3] for [4, 1, 3, 3]" in message
    assert "and 1 more" in message
    assert same(before, dict(target.state_dict()))
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_the_hash_names_the_content() -> None:
    weights = dict(network().state_dict())
    name = weights_hash(weights)
    assert len(name) == 32
    assert name == weights_hash(dict(reversed(weights.items())))
    assert name == weights_hash({**weights, "1.num_batches_tracked": torch.tensor(9)})
    assert name == weights_hash(
        {
            k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v
            for k, v in weights.items()
        }
    )
    assert name == weights_hash(from_safetensors(to_safetensors(weights)))


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {**w, "0.bias": w["0.bias"] + 1e-6},
        lambda w: {**w, "0.bias": w["0.bias"].double()},
        lambda w: {**w, "0.bias": w["0.bias"][:, None]},
        lambda w: {k: v for k, v in w.items() if k != "0.bias"},
        lambda w: {("2.bias" if k == "0.bias" else k): v for k, v in w.items()},
    ],
)
def test_any_change_of_content_changes_the_hash(change: Any) -> None:
    weights = dict(network().state_dict())
    assert weights_hash(change(weights)) != weights_hash(weights)


def test_half_precision_weights_have_a_hash() -> None:
    weights = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(())}
    assert weights_hash(weights) != weights_hash({**weights, "a": torch.ones(3)})


@pytest.mark.parametrize(
    ("file", "name"), [(RESNET20, "cifar_resnet20"), (RESNET56, "cifar_resnet56")]
)
def test_published_checkpoints_load_as_they_are(file: str, name: str) -> None:
    model = build_model(ModelSettings(name=name), 10, 3)
    weights = read_weights(shared_file(file))
    fit(model, weights)
    assert weights_hash(weights) == weights_hash(model.state_dict())


def test_the_published_resnet20_sees_the_jpeg_copy_as_measured(tmp_path: Path) -> None:
    model = build_model(ModelSettings(name="cifar_resnet20"), 10, 3)
    fit(model, read_weights(shared_file(RESNET20)))
    settings = DataSettings(
        name="image_folder",
        path=str(shared_file(JPEG_COPY)),
        train_images=100,
        test_images=1000,
        mean=PUBLISHED_MEAN,
        std=PUBLISHED_STD,
    )
    data = load(settings, "cpu", tmp_path)
    correct = 0
    with torch.no_grad():
        for images, labels in data.eval_batches(data.take_test(), 250):
            correct += int((model.eval()(images).argmax(dim=1) == labels).sum())
    assert 780 <= correct <= 840  # 81.0 % on all 10,000; a standard deviation is 12 images


def saved(tmp_path: Path, content: Any) -> Path:
    torch.save(content, tmp_path / "some.pth")
    return tmp_path / "some.pth"


class TestFromElsewhere:
    """Checkpoints as people have them: taken exactly, or told for what they are."""

    def taken(self, path: Path) -> dict[str, Tensor]:
        model = network()
        adopt(model, read_weights(path))
        return dict(model.state_dict())

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda w: {"ema": w, "epoch": 3},
            lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}},
            lambda w: {f"net.backbone.{k}": v for k, v in w.items()},
            lambda w: w | {"total_ops": torch.zeros(1, dtype=torch.float64)},
            lambda w: w | {f"1.{k}": torch.zeros(1) for k in ("total_ops", "total_params")},
            lambda w: {f"module.{k}": v for k, v in w.items()} | {"n_averaged": torch.tensor(5)},
            lambda w: {"model": {"ema": {f"module.{k}": v for k, v in w.items()}}},
            lambda w: {k: v.double() for k, v in w.items()},
        ],
    )
    def test_weights_are_found_under_what_wrappers_leave(self, tmp_path: Path, wrap: Any) -> None:
        weights = dict(network().state_dict())
        assert same(self.taken(saved(tmp_path, wrap(weights))), weights)

    def test_what_a_wrapped_network_lacks_in_names_is_added(self) -> None:
        model = nn.Sequential()
        model.add_module("inner", network())
        weights = dict(network().state_dict())
        adopt(model, weights)
        assert same({k.removeprefix("inner."): v for k, v in model.state_dict().items()}, weights)

    def test_a_networks_own_counter_of_such_a_name_is_kept(self) -> None:
        model = network()
        model.register_buffer("n_averaged", torch.tensor(7))
        weights = {k: v.clone() for k, v in model.state_dict().items()}
        weights["n_averaged"] += 1
        adopt(model, weights)
        assert model.state_dict()["n_averaged"] == 8

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS"),
            (b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>", "a web page"),
            (b"<HTML>", "a web page"),
            (Path("/etc/passwd").read_bytes(), "is no checkpoint"),
            (b"hello" * 100, "is no checkpoint"),
            (b"\x80\x02", "cannot be read"),
            (b"\x80" * 300, "cannot be read"),
            (b"PK\x03\x04" + bytes(300), "cannot be read"),
            (b"\xff" * 8 + b'{"a": 1}', "cannot be read"),
        ],
    )
    def test_what_is_no_checkpoint_is_told_for_what_it_is(
        self, tmp_path: Path, content: bytes, says: str
    ) -> None:
        (tmp_path / "some.pth").write_bytes(content)
        with pytest.raises(UnreadableCheckpointError, match=says) as caught:
            read_weights(tmp_path / "some.pth")
        assert "run code" not in str(caught.value)

    @pytest.mark.parametrize("path", ["/dev/zero", "file:///dev/zero", "/proc/self/mem", "."])
    def test_what_is_no_file_is_refused_at_once(self, path: str) -> None:
        with pytest.raises(UnreadableCheckpointError, match=r"is no file|cannot be read"):
            read_weights(path)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "some.pth")
        with pytest.raises(UnreadableCheckpointError, match="is no file"):
            read_weights(tmp_path / "some.pth")

    def test_a_checkpoint_that_contains_itself_ends(self, tmp_path: Path) -> None:
        content: dict[str, Any] = {"epoch": 3}
        content["model"] = content["state_dict"] = content
        with pytest.raises(UnreadableCheckpointError, match="holds no weights"):
            read_weights(saved(tmp_path, content))

    @pytest.mark.parametrize(
        ("tensor", "says"),
        [
            (torch.ones(4, 1, 3, 3, device="meta"), "without values"),
            (torch.ones(4, 1, 3, 3).to_sparse(), "a sparse tensor"),
            (torch.ones(4, 1, 3, 3, dtype=torch.complex64), "complex numbers"),
            (torch.full((4, 1, 3, 3), 0.1, dtype=torch.float64), "1 not finite, or not exact"),
            (torch.full((4, 1, 3, 3), torch.nan), "1 not finite"),
            (torch.full((4, 1, 3, 3), -torch.inf), "1 not finite"),
            (torch.ones(1).expand(4, 10**6, 10**6), "1 of another shape"),
        ],
    )
    def test_values_are_taken_exactly_or_not_at_all(
        self, tmp_path: Path, tensor: Tensor, says: str
    ) -> None:
        weights = {**network().state_dict(), "0.weight": tensor}
        path = saved(tmp_path, weights)
        with pytest.raises(CheckpointError, match=says):
            self.taken(path)
