"""A layout as data, so that a network is grouped and proven once and not in every trial.

It is kept under a name made of all that it depends on: what the network is made of, the policy, the
images, the versions, and the code that finds and proves groups.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.structure.cost import output_positions
from methods.structure.groups import Group, LayerPolicy, Layout, Member, Shape
from methods.structure.narrowing import own_tensors
from methods.structure.predicted_cost import cost_model


def layout_name(network: nn.Module, input_shape: Shape, policy: LayerPolicy) -> str:
    """Name the layout of ``network`` by what it comes of: 32 hexadecimal digits.

    Weights do not matter. The source of its classes does, as far as it can be read.
    """
    kinds: set[Any] = {type(module) for module in network.modules()}
    content = {
        "layers": list(_layers(network)),
        "sources": sorted(map(_source, kinds)),
        "input_shape": input_shape,
        "policy": asdict(policy),
        "versions": [torch.__version__, version("torch-pruning")],
        "code": _own_code(),
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def layout_to_json(layout: Layout, network: nn.Module) -> dict[str, Any]:
    """Return a layout of ``network`` as JSON-able data."""
    return {
        "groups": [asdict(group) for group in layout.groups],
        "left_whole": dict(layout.left_whole),
        "positions": output_positions(network, layout.input_shape),
    }


def layout_from_json(
    data: Mapping[str, Any], network: nn.Module, input_shape: Shape, policy: LayerPolicy
) -> Layout | None:
    """Rebuild a layout; None where ``network`` does not run as the one it was made of.

    Args:
        data: What :func:`layout_to_json` gave under the name that this network has.
        network: The dense network; it is run once.
        input_shape: ``(C, H, W)`` of one image.
        policy: What the layout was found under.
    """
    positions = output_positions(network, input_shape)
    if list(positions.items()) != list(data["positions"].items()):  # in the order they run
        return None
    groups = [_group(each) for each in data["groups"]]
    return Layout(
        groups=tuple(groups),
        cost=cost_model(network, positions, groups),
        policy=policy,
        input_shape=input_shape,
        left_whole=dict(data["left_whole"]),
    )


def _group(data: Mapping[str, Any]) -> Group:
    members = {
        side: tuple(
            Member(layer=each["layer"], channels=tuple(map(tuple, each["channels"])))
            for each in data[side]
        )
        for side in ("outputs", "inputs")
    }
    lists = {name: tuple(data[name]) for name in ("producers", "norms")}
    return Group(**{**data, **members, **lists})


def _layers(network: nn.Module) -> Iterator[tuple[Any, ...]]:
    for name, module in network.named_modules():
        tensors = [(n, list(t.shape), str(t.dtype)) for _, n, t in own_tensors(module)]
        yield name, type(module).__qualname__, module.extra_repr(), tensors


@cache
def _source(kind: type) -> str:
    if kind.__module__.startswith("torch."):
        return kind.__qualname__
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):  # written at a prompt, or made by a function
        text = kind.__qualname__
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _own_code() -> str:
    """Hash the modules beside this one, whose results are kept."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()
