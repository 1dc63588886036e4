"""What training keeps beside a network's weights, as tensors and JSON: enough to go on."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

#: By name: tensors, and what survives JSON (lists, not tuples; numbers that are finite).
State = Mapping[str, Any]


class Stateful(Protocol):
    """Keeps what cannot be found again from the network and the settings alone."""

    def state_dict(self) -> State:
        """Return all of it as it is after an epoch; tensors are copied before training goes on."""

    def load_state_dict(self, state: State) -> None:
        """Take over what :meth:`state_dict` gave, maybe elsewhere; its tensors are on the CPU."""


class _NoState:
    """Keeps nothing."""

    def state_dict(self) -> State:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""


NO_STATE: Stateful = _NoState()  #: Of training whose hooks remember nothing from step to step.


def optimizer_state(
    optimizer: optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """Return what ``optimizer`` remembers of each parameter, as ``name/key``.

    Its groups and their settings are left out: whoever made it can make it again.
    """
    return {
        f"{name}/{key}": value
        for name, parameter in parameters
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


@torch.no_grad()
def load_optimizer_state(
    optimizer: optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]], state: State
) -> None:
    """Let ``optimizer`` remember what :func:`optimizer_state` gave, and nothing else.

    Raises:
        KeyError: There is no parameter of that name.
    """
    known = dict(parameters)
    optimizer.state.clear()
    for path, value in state.items():
        name, _, key = path.rpartition("/")
        parameter = known[name]
        if key == "step":  # counted on the CPU, but for a fused optimizer
            home = parameter.device if optimizer.defaults.get("fused") else "cpu"
            optimizer.state[parameter][key] = value.clone().to(home)
        else:
            held = torch.empty_like(parameter, dtype=value.dtype)
            optimizer.state[parameter][key] = held.copy_(value)
