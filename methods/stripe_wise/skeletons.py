"""The skeletons of a network while it trains: factors, and which stripes are gone for good."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn, optim

from methods.hooks import Step
from methods.state import State
from methods.structure.groups import Group
from methods.structure.stripe_conv import bare_weight, merge, wear
from methods.structure.surgery import filter_parameters


class Skeletons:
    """Skeletons on every convolution that may lose stripes, until :meth:`merge`.

    Args:
        network: Whoever has it trains it with the hooks :meth:`penalise` and :meth:`hold`.
        groups: Stripes of its convolutions, or filters of its 1x1 convolutions.
        weight_decay: Of the factors; None: as of all parameters.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[Group],
        *,
        weight_decay: float | None = None,
    ) -> None:
        self.alpha = 0.0  #: Weight of the L1 penalty on the factors.
        self._weight_decay = weight_decay
        self._layers = [_Layer(network, group) for group in groups]
        self._prepared: optim.Optimizer | None = None

    @property
    def factors(self) -> dict[str, nn.Parameter]:
        """The factors by group, ``[N, K, K]``; 0 where a stripe is gone."""
        return {layer.group.name: layer.factors for layer in self._layers}

    def state_dict(self) -> State:
        """Return which stripes are gone; the factors are the network's."""
        return {f"gone/{layer.group.name}": layer.gone for layer in self._layers}

    def load_state_dict(self, state: State) -> None:
        """Take over which stripes are gone."""
        for layer in self._layers:
            layer.remove(state[f"gone/{layer.group.name}"])

    @torch.no_grad()
    def penalise(self, step: Step) -> None:
        """Add the subgradient of the penalty to the factors' gradients."""
        if self._prepared is not step.optimizer:
            self._prepared = step.optimizer
            self._decay_apart(step.optimizer)
        for layer in self._layers:
            if layer.factors.grad is not None:
                layer.factors.grad.add_(layer.factors.sign(), alpha=self.alpha)

    def _decay_apart(self, optimizer: optim.Optimizer) -> None:
        """Give the factors the weight decay that is theirs."""
        if self._weight_decay is None:
            return
        ours = {id(factors) for factors in self.factors.values()}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in ours]
        like = {name: value for name, value in group.items() if name != "params"}
        like["weight_decay"] = self._weight_decay
        optimizer.add_param_group({**like, "params": [*self.factors.values()]})

    @torch.no_grad()
    def hold(self, step: Step) -> None:
        """Keep what is gone at zero whatever the optimizer did, and let it forget it."""
        for layer in self._layers:
            layer.hold(step.optimizer)

    def scores(self) -> dict[str, Tensor]:
        """Return ``|factor| * norm of the stripe`` by group, ``[width]``; ``-inf`` where gone."""
        return {
            layer.group.name: layer.scores().masked_fill(layer.gone, -torch.inf).flatten().cpu()
            for layer in self._layers
        }

    def remove(self, stripes: Mapping[str, Tensor]) -> None:
        """Let stripes go for good.

        Args:
            stripes: Which, by group, ``[width]`` of booleans.
        """
        for layer in self._layers:
            layer.remove(stripes[layer.group.name])

    def remove_below(self, delta: float) -> None:
        """Let stripes go whose factor is ``delta`` or less; every layer keeps its strongest."""
        for layer in self._layers:
            scores = layer.scores().flatten()
            below = (layer.factors.detach().abs() <= delta).flatten()
            layer.remove(below.index_fill(0, scores.argmax(), False))

    def kept(self) -> dict[str, tuple[int, ...]]:
        """Return the stripes that are left, ascending, by group."""
        return {
            layer.group.name: tuple((~layer.gone).flatten().nonzero().flatten().tolist())
            for layer in self._layers
        }

    def merge(self) -> None:
        """Multiply the factors into the weights; the network computes what it did, without them."""
        for layer in self._layers:
            merge(layer.conv)


class _Layer:
    """The skeleton of one convolution."""

    def __init__(self, network: nn.Module, group: Group) -> None:
        conv = network.get_submodule(group.name)
        assert isinstance(conv, nn.Conv2d)
        self.group, self.conv = group, conv
        self.factors = wear(conv).factors
        self.gone = torch.zeros_like(self.factors, dtype=torch.bool)  # [N, K, K]
        self._parameters = filter_parameters(network, group)  # without the weight, which is bare
        self._is_whole = True

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Return ``|factor| * norm of the stripe``, ``[N, K, K]``."""
        norms: Tensor = torch.linalg.vector_norm(bare_weight(self.conv), dim=1)
        return self.factors.abs() * norms

    def remove(self, stripes: Tensor) -> None:
        """Let stripes go, ``[width]`` of booleans."""
        self.gone |= stripes.to(self.gone.device).reshape(self.gone.shape)
        self._is_whole = False

    def hold(self, optimizer: optim.Optimizer) -> None:
        """Set to zero what is gone; a filter without stripes goes with its batch norm."""
        if self._is_whole:
            return
        _clear(optimizer, self.factors, self.gone)
        empty = self.gone.flatten(1).all(dim=1)
        for part in self._parameters:  # whose dimension of channels is the first
            gone = empty[:, None].expand_as(part.rows).flatten()
            dead = empty.new_zeros(len(part.parameter)).index_copy_(0, part.rows.flatten(), gone)
            _clear(optimizer, part.parameter, dead)


def _clear(optimizer: optim.Optimizer, parameter: nn.Parameter, where: Tensor) -> None:
    """Zero some entries, or rows, of a parameter and of all the optimizer remembers of them."""
    remembered = optimizer.state[parameter].values() if parameter in optimizer.state else ()
    for value in (parameter, *remembered):
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where.reshape(*where.shape, *[1] * (value.dim() - where.dim())), 0.0)
