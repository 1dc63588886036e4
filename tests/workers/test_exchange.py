import importlib
import io
import json
import re
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workers import exchange
from workers.exchange import ExchangeError, Form, PackagesMissingError, file_of
from workers.models import build_model
from workers.settings import ModelSettings

SHAPE = (1, 8, 8)
FACTS = {"classes": '["a", "b"]'}
HAS_ONNX = all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="prunesweep[onnx] is not installed")
FORMS = ["torch_export", pytest.param("onnx", marks=needs_onnx)]


def digits_net() -> nn.Module:
    return build_model(ModelSettings(name="digits_net"), 10, 1).eval()


def test_a_program_of_torch_gives_the_networks_logits_at_any_batch_size() -> None:
    network = digits_net()
    content = file_of("torch_export", network, SHAPE, FACTS)
    facts: dict[str, Any] = {"classes.txt": ""}
    program: Any = torch.export.load(io.BytesIO(content), extra_files=facts).module()
    for count in (1, 7, 12):
        images = torch.rand(count, *SHAPE)
        assert torch.allclose(program(images), network(images), atol=1e-5)
    assert facts["classes.txt"] == FACTS["classes"]


@needs_onnx
def test_an_onnx_file_gives_the_networks_logits_in_onnxruntime() -> None:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    network = digits_net()
    content = file_of("onnx", network, SHAPE, FACTS)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (1, 7, 12):
        images = torch.rand(count, *SHAPE)
        (found,) = session.run(["logits"], {"images": images.numpy()})
        assert torch.allclose(torch.from_numpy(found), network(images), atol=1e-5)
    held = session.get_modelmeta().custom_metadata_map
    assert json.loads(held["classes"]) == ["a", "b"]


class Branching(nn.Module):
    """Goes another way by what is in the images, which no tracer can follow."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


class FixedBatch(nn.Module):
    """Runs on two images only."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, -1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", [Branching(), FixedBatch()])
def test_a_network_that_cannot_be_traced_is_said(form: Form, network: nn.Module) -> None:
    with pytest.raises(ExchangeError, match="No network"):
        file_of(form, network.eval(), SHAPE, FACTS)


class Restless(nn.Module):
    """Gives other logits each time."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) + torch.rand_like(images).flatten(1)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_with_other_logits_is_not_handed_out(form: Form) -> None:
    with pytest.raises(ExchangeError, match=r"its logits are .* from the network's"):
        file_of(form, Restless().eval(), SHAPE, FACTS)


def test_missing_packages_are_one_message_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "find_spec", lambda name: None)
    with pytest.raises(PackagesMissingError, match=re.escape("pip install 'prunesweep[onnx]'")):
        file_of("onnx", digits_net(), SHAPE, FACTS)
    assert file_of("torch_export", digits_net(), SHAPE, FACTS)
