"""One forward pass and one training step, tried before anything is spent on a network.

What trains is judged by its logits, ``[N, classes]``. A network that gives something else, or gives
it only as long as it is whole, would fail in every trial of a sweep.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import Layout, MethodError, PruningMethod, PruningPlan, removed_count, shrink
from methods.testing.tiny_session import TinySession
from workers.errors import ModelError
from workers.raised import told

_BATCH: Final = 2  #: Images; batch norm wants more than one.
_IMAGES: Final = 8  #: That a choice is tried on.
_SHOWN: Final = 5  #: Names of a mapping that are told.


def try_dense(network: nn.Module, classes: int, input_shape: tuple[int, int, int]) -> None:
    """Run a network as it is, and train a copy of it for one step.

    Args:
        network: Left as it is.
        classes: How many logits there must be.
        input_shape: ``(C, H, W)`` of one image.

    Raises:
        ModelError: It fails, or what it gives is not one row of logits for every image.
    """
    _step(network, classes, input_shape, "")


def try_shrunk(network: nn.Module, layout: Layout, plan: PruningPlan, classes: int) -> None:
    """Do the same with what ``plan`` leaves of a network.

    Raises:
        ModelError: It fails, or what it gives is not one row of logits for every image.
    """
    small = copy.deepcopy(network)
    shrink(small, plan, layout)
    removed = sum(layout.widths.values()) - sum(map(len, plan.kept.values()))
    _step(small, classes, layout.input_shape, f", without {removed} of its {layout.policy.unit},")


def try_choice(method: PruningMethod, network: nn.Module, layout: Layout, classes: int) -> None:
    """Let a method choose half of the filters once, on a copy of a network and made-up images.

    Methods that train in order to choose are not tried: what they train for takes epochs.

    Raises:
        MethodError: What the method says of its own scores.
        Exception: Whatever its code raises.
    """
    if method.trains or method.sets_cost:
        return
    session = TinySession(layout, classes=classes, epochs=0, images=_IMAGES)
    ratios = dict.fromkeys(layout.widths, 0.5)
    with torch.random.fork_rng():
        plan = method.select(copy.deepcopy(network), ratios, session)
    for name, width in layout.widths.items():
        left = len(plan.kept[name]) if name in plan.kept else width
        due = width - removed_count(name, width, 0.5)
        if left != due:
            raise MethodError(
                f"The method {method.name!r} keeps {left} of {width} filters of {name!r} where "
                f"the ratio 0.5 keeps {due}. A trial that costs something else would be compared "
                "with others: let choose return as many as it is asked for."
            )


def _step(
    network: nn.Module, classes: int, input_shape: tuple[int, int, int], without: str
) -> None:
    network = copy.deepcopy(network)
    images = torch.rand(_BATCH, *input_shape)
    labels = torch.arange(_BATCH) % classes
    who = f"{type(network).__name__}{without}"
    with torch.random.fork_rng():
        network.eval()
        with torch.no_grad():
            _logits(network, images, classes, who, "")
        network.train()
        with torch.enable_grad():
            logits = _logits(network, images, classes, who, " while it trains")
            try:
                F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
            except Exception as error:  # whatever the network's own code does with gradients
                raise ModelError(f"{who} cannot be trained: {told(error)}.") from error
    if all(weight.grad is None for weight in network.parameters()):
        raise ModelError(
            f"{who} has no weight that the loss depends on, so nothing would be trained. See that "
            "requires_grad is set, and that forward does not run without gradients."
        )


def _logits(network: nn.Module, images: Tensor, classes: int, who: str, when: str) -> Tensor:
    try:
        found = network(images)
    except Exception as error:  # a user's network may raise anything
        shape = tuple(images.shape[1:])
        raise ModelError(
            f"{who} fails{when} on images of shape {shape}: {told(error)}. Another "
            "data.image_size, or arguments of the model, may fit."
        ) from error
    if not isinstance(found, Tensor):
        raise ModelError(
            f"{who} returns {_what(found)}{when}, and a sweep needs the logits alone, a tensor "
            "[images, classes]. Wrap it in a module whose forward returns those; an auxiliary head "
            "is switched off by an argument of the model, such as aux_logits: false."
        )
    if found.shape != (len(images), classes):
        raise ModelError(
            f"{who} returns shape {tuple(found.shape)}{when} for {len(images)} images, and with "
            f"{classes} classes it must be {(len(images), classes)}: one logit per class. Let "
            "the model take num_classes, which a sweep gives it."
        )
    return found


def _what(found: Any) -> str:
    if isinstance(found, Mapping):
        names = ", ".join(map(str, list(found)[:_SHOWN]))
        return f"a {type(found).__name__} of {names}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {len(found)}"
    return f"a {type(found).__name__}"
