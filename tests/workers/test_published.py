"""Networks and weights that others publish: found on disk, never downloaded."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision

from orchestrator.errors import SpecError
from orchestrator.specification.loading import parse_spec
from workers.errors import ModelError, UnreadableCheckpointError, WeightsMismatchError
from workers.models import build_model, published_weights
from workers.networks.checkpoints import adopt, with_own_head
from workers.settings import ModelSettings


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_of_torchvision_are_found_where_it_keeps_them(hub: Path) -> None:
    older = hub / "resnet50-0676ba61.pth"
    older.write_bytes(b"")
    assert published_weights("torchvision/resnet50") == older
    newest = hub / "resnet50-11ad3fa6.pth"
    newest.write_bytes(b"")
    assert published_weights("torchvision/resnet50") == newest


def test_weights_that_are_not_here_are_named_with_the_command_that_fetches_them(hub: Path) -> None:
    with pytest.raises(UnreadableCheckpointError) as raised:
        published_weights("torchvision/squeezenet1_1")
    assert str(hub / "squeezenet1_1-b8a52dc0.pth") in str(raised.value)
    assert "get_model('squeezenet1_1', weights='DEFAULT')" in str(raised.value)
    assert not list(hub.iterdir())


def test_a_sweep_names_them_by_one_word(hub: Path) -> None:
    spec = {
        "name": "of_theirs",
        "model": "torchvision/squeezenet1_1",
        "checkpoint": "pretrained",
        "arms": ["l1"],
    }
    with pytest.raises(SpecError, match=r"checkpoint: .*squeezenet1_1-b8a52dc0.pth.*Fetch them"):
        parse_spec(spec)
    file = hub / "squeezenet1_1-b8a52dc0.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    assert parse_spec(spec).checkpoint == str(file)


@pytest.mark.parametrize("model", ["digits_net", "mine.py:build"])
def test_only_what_is_published_is_pretrained(model: str) -> None:
    with pytest.raises(ModelError, match="has no published weights; only"):
        published_weights(model)


def test_a_network_of_other_classes_keeps_its_own_last_layer() -> None:
    theirs = torchvision.models.resnet18(num_classes=12).state_dict()
    network = build_model(ModelSettings(name="torchvision/resnet18"), 10, 3)
    head = network.get_submodule("fc").weight
    assert isinstance(head, torch.Tensor)
    before = head.detach().clone()
    with pytest.raises(WeightsMismatchError, match=r"fc.weight \[12, 512\] for \[10, 512\]"):
        adopt(network, theirs)
    adopt(network, with_own_head(network, theirs, 10))
    assert torch.equal(head, before)
    assert torch.equal(network.state_dict()["conv1.weight"], theirs["conv1.weight"])


def test_weights_of_the_same_classes_keep_their_last_layer() -> None:
    theirs = torchvision.models.resnet18(num_classes=10).state_dict()
    network = build_model(ModelSettings(name="torchvision/resnet18"), 10, 3)
    assert with_own_head(network, theirs, 10) is theirs


def test_without_timm_one_line_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="pip install timm") as raised:
        build_model(ModelSettings(name="timm/resnet18"), 10, 3)
    assert "\n" not in str(raised.value)


class TestTimm:
    @pytest.fixture(autouse=True)
    def _needs_timm(self) -> None:
        pytest.importorskip("timm")

    def test_networks_get_the_classes_and_channels_of_the_data(self) -> None:
        network = build_model(ModelSettings(name="timm/resnet10t"), 7, 1).eval()
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 7)

    @pytest.mark.parametrize("name", ["resnet10", "resnet_10t"])
    def test_an_unknown_name_gets_the_nearest(self, name: str) -> None:
        with pytest.raises(ModelError, match="did you mean 'timm/resnet"):
            build_model(ModelSettings(name=f"timm/{name}"), 10, 3)

    def test_arguments_that_a_sweep_sets_are_refused(self) -> None:
        settings = ModelSettings(name="timm/resnet10t", arguments={"pretrained": True})
        with pytest.raises(ModelError, match="multiple values for keyword argument 'pretrained'"):
            build_model(settings, 10, 3)

    def test_weights_that_are_not_here_are_named(self, hub: Path) -> None:
        with pytest.raises(UnreadableCheckpointError, match=r"timm.create_model\('resnet18', pre"):
            published_weights("timm/resnet18")
        file = hub / "resnet18_a1_0-d63eafa0.pth"
        file.write_bytes(b"")
        assert published_weights("timm/resnet18") == file
