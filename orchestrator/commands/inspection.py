"""What of a network can be pruned, before anything is written about a sweep.

Its groups with the layers in them, the share of the MACs each can lose, what is left whole and why,
and what every layer policy lets go in all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Group as Parts
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from methods import Group
from methods.structure.cost import count_cost
from orchestrator.agenda.prunable import PrunableNetwork, prunable_under_each, widest
from orchestrator.errors import InputError, Problem, SpecError
from orchestrator.specification.loading import SpecFile
from orchestrator.specification.settings import CHECK
from orchestrator.specification.spec import SweepSpec
from prunesweep import PrunesweepError
from tracking.plain_text import visible
from tracking.report.grid import Folded
from workers.data import describe
from workers.models import build_model
from workers.raised import told
from workers.settings import PolicyName

Shape = tuple[int, int, int]

_CIFAR: Final[Shape] = (3, 32, 32)
_IMAGENET: Final[Shape] = (3, 224, 224)


class ImageShapeError(InputError, ValueError):
    """The shape of an image on the command line is none."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return (
            f"--image is {self.text!r}; write channels, height and width of one image, as in "
            "3x224x224."
        )


def inspect_facts(
    model: str, overrides: Sequence[str], image: str | None, classes: int | None
) -> dict[str, Any]:
    """Describe what may go of a network; nothing is written.

    Args:
        model: A network as a specification names it, or a specification file.
        overrides: ``key.path=VALUE``, as of a specification.
        image: ``CxHxW``; None: that of the data set, or a usual one.
        classes: Logits; None: as many as the data set has classes, or 10.

    Raises:
        SpecError: The file or an override has a mistake, or the network cannot be built or run.
        ImageShapeError: ``image`` is none.
    """
    shape = None if image is None else _shape(image)
    is_file = ":" not in model and Path(model).suffix in {".yaml", ".yml", ".json"}
    file = SpecFile.read(model, overrides) if is_file else _bare(model).overridden(overrides)
    spec = file.spec(CHECK if is_file else {})
    if is_file and (shape is None or classes is None):
        data = describe(spec.data)
        shape, classes = shape or data.input_shape, classes or data.num_classes
    shape, classes = shape or _usual(spec.model.name), classes or 10
    try:
        return {"model": spec.model.name, "image": list(shape), **_facts(spec, shape, classes)}
    except PrunesweepError as error:
        raise file.located(SpecError([Problem("model", str(error))])) from error
    except (Exception, SystemExit) as error:  # the network's own code may raise anything
        message = f"cannot be used, {told(error)}; `prunesweep --debug inspect` shows more"
        raise file.located(SpecError([Problem("model", message)])) from error


def inspect_view(facts: Mapping[str, Any]) -> RenderableType:
    """Show them to a person."""
    image = "x".join(map(str, facts["image"]))
    chosen = facts["policies"][facts["policy"]]
    head = (
        f"{visible(facts['model'])} on images {image}, {facts['classes']} classes: "
        f"{facts['macs']:,} MACs, {facts['params']:,} parameters"
    )
    parts: list[RenderableType] = [Text(head, style="bold"), _totals(facts["policies"])]
    if chosen["refused"] is None:
        parts += [Text(f"Groups under layers.policy = {facts['policy']}:"), _groups(chosen)]
        if chosen["left_whole"]:
            parts.append(Text("Left whole:"))
        parts += [Text(visible(f"  {n}: {why}")) for n, why in chosen["left_whole"].items()]
    return Parts(*parts)


def _bare(model: str) -> SpecFile:
    return SpecFile.of({"name": "inspect", "model": model, "arms": ["random"]})


def _usual(model: str) -> Shape:
    return _IMAGENET if model.startswith("torchvision/") else _CIFAR


def _shape(text: str) -> Shape:
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ImageShapeError(text)
    channels, height, width = map(int, parts)
    return channels, height, width


def _facts(spec: SweepSpec, shape: Shape, classes: int) -> dict[str, Any]:
    torch.manual_seed(0)
    network = build_model(spec.model, classes, shape[0])
    found = prunable_under_each(spec, network, shape)
    dense = count_cost(network, shape)
    return {
        "classes": classes,
        "macs": dense.macs,
        "params": dense.params,
        "policy": _chosen(spec, found),
        "policies": {policy: _policy(prunable) for policy, prunable in found.items()},
    }


def _chosen(spec: SweepSpec, found: Mapping[PolicyName, PrunableNetwork | str]) -> PolicyName:
    """Return the policy of the specification, or what ``auto`` stands for."""
    return widest(found) if spec.layers.policy == "auto" else spec.layers.policy


def _policy(prunable: PrunableNetwork | str) -> dict[str, Any]:
    if isinstance(prunable, str):
        return {"refused": prunable, "macs_share": None, "groups": [], "left_whole": {}}
    return {
        "refused": None,
        "macs_share": prunable.reachable[1],
        "groups": [_group(group, prunable) for group in prunable.layout.groups],
        "left_whole": dict(prunable.layout.left_whole),
    }


def _group(group: Group, prunable: PrunableNetwork) -> dict[str, Any]:
    following = [m.layer for m in group.outputs if m.layer not in group.producers]
    return {
        "name": group.name,
        "filters": group.width,
        "macs_share": prunable.share_of(group.name),
        "producers": list(group.producers),
        "follow": following,
        "readers": [member.layer for member in group.inputs],
    }


def _totals(policies: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Policy")
    table.add_column("Groups", justify="right")
    table.add_column("MACs that can go", justify="right")
    table.add_column("", overflow="fold")
    for policy, found in policies.items():
        share = found["macs_share"]
        shown = "-" if share is None else f"{share:.1%}"
        why = Text(visible(found["refused"] or ""))
        table.add_row(policy, str(len(found["groups"])), shown, why)
    return table


def _groups(found: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Group", overflow="fold")
    table.add_column("Filters", justify="right")
    table.add_column("MACs that can go", justify="right")
    for column in ("With it", "Read by"):
        table.add_column(column, overflow="fold")
    for group in found["groups"]:
        along = [n for n in (*group["producers"], *group["follow"]) if n != group["name"]]
        table.add_row(
            Folded(visible(group["name"])),
            str(group["filters"]),
            f"{group['macs_share']:.1%}",
            Folded(visible(", ".join(along))),
            Folded(visible(", ".join(group["readers"]))),
        )
    return table
