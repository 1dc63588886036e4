"""A network is grouped and proven once for all trials of a sweep, on all machines."""

from pathlib import Path

import pytest
import torch
from torch import nn

import workers.networks.known_layouts
from methods import Layout, find_layout
from tracking.artifacts import ArtifactStore
from workers.models import build_model
from workers.node.node import Node
from workers.settings import LayerSettings, ModelSettings

SHAPE = (1, 8, 8)


class Counted:
    """Machines that share an artifact store, and how often groups were looked for."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.calls = folder, 0
        patch.setattr(workers.networks.known_layouts, "find_layout", self._find)

    def _find(self, *given: object) -> Layout:
        self.calls += 1
        return find_layout(*given)  # type: ignore[arg-type]

    def node(self, machine: str) -> Node:
        store = ArtifactStore(str(self.folder / "artifacts"))
        return Node(device=torch.device("cpu"), cache_dir=self.folder / machine, artifacts=store)

    def kept(self) -> list[Path]:
        return list((self.folder / "artifacts" / "layouts").iterdir())


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(tmp_path, monkeypatch)


def network() -> nn.Module:
    return build_model(ModelSettings(name="digits_net"), 10, 1)


def layout(node: Node, layers: LayerSettings | None = None) -> Layout:
    return node.layout(network(), SHAPE, layers or LayerSettings(), "filters")


def test_a_process_looks_once_for_the_same_network(counted: Counted) -> None:
    node = counted.node("here")
    assert layout(node) is layout(node)
    assert counted.calls == 1


def test_another_machine_takes_what_the_first_has_found(counted: Counted) -> None:
    first, second = (layout(counted.node(name)) for name in ("here", "there"))
    assert counted.calls == 1
    assert second.groups == first.groups


def test_other_settings_of_layers_are_looked_at_anew(counted: Counted) -> None:
    node = counted.node("here")
    assert layout(node, LayerSettings(protect=("conv3",))).widths != layout(node).widths
    assert counted.calls == 2


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"groups": [1], "positions": {}}'])
def test_what_is_kept_but_damaged_is_found_again(counted: Counted, content: bytes) -> None:
    first = layout(counted.node("here"))
    (kept,) = counted.kept()
    kept.write_bytes(content)
    assert layout(counted.node("there")).groups == first.groups
    assert counted.calls == 2


def test_a_store_without_room_costs_time_alone(
    counted: Counted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(ArtifactStore, "write_bytes", full)
    assert layout(counted.node("here")).groups
    assert "not shared with other trials: No space left" in caplog.text
