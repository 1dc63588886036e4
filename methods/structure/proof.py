"""Trying a layout before it is believed: masked against shrunk, on weights that hide nothing.

Every group is cut at other, scattered filters than its neighbours, so that groups that overlap or
channels that are exchanged show. The network is a copy whose norms have statistics of a trained
one, and no layer of which is all zeros or all ones: a branch that begins at zero would hide what is
cut inside it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from methods.errors import LayoutError
from methods.structure.cost import count_cost, evaluation_mode, output_tensors
from methods.structure.groups import Group, Layout
from methods.structure.limits import Watch
from methods.structure.narrowing import uncompiled
from methods.structure.plan import PruningPlan
from methods.structure.surgery import masked, shrink

CLEAR = 1e-5  #: Difference that is rounding, relative to the spread of the outputs.
WRONG = 1e-2  #: Difference that is none; what lies between is decided in double precision.
IMAGES = 2
EDGE = 64  #: Pixels of an image's edge that show as much of the channels as a larger one's do.

MakeLayout = Callable[[Sequence[Group]], Layout]


class _NoDropout(TorchFunctionMode):
    """Dropout draws as many numbers as there are channels: nothing to compare two widths by."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if "dropout" in name and "fused" not in name and args:
            return args[0]
        if name.rstrip("_") == "rrelu":
            return torch.nn.functional.leaky_relu(args[0], 0.2)
        return func(*args, **(kwargs or {}))


class Proof:
    """Tries groups of one network.

    Args:
        network: The dense network; it is left as it is.
        layout_of: Makes a layout of some groups.
        watch: Ends it at the limits.
    """

    def __init__(self, network: nn.Module, layout_of: MakeLayout, watch: Watch) -> None:
        self._dense = network
        self._watch = watch
        self._layout_of = layout_of
        self._shape = layout_of(()).input_shape
        self._twins: dict[torch.dtype, nn.Module] = {}
        self._edges, self._modes = self._what_runs()

    def _what_runs(self) -> tuple[tuple[int, int], tuple[bool, ...]]:
        """Find the size of images to try with, and the modes in which the dense network runs."""
        _, height, width = self._shape
        small = (min(height, EDGE), min(width, EDGE))
        for edges in dict.fromkeys((small, (height, width))):
            self._edges = edges
            modes = tuple(mode for mode in (False, True) if self._fails(mode) is None)
            if False in modes:
                return edges, modes
        return (height, width), ()

    def _fails(self, training: bool) -> Exception | None:
        try:
            self._run(self._twin(torch.float32), training)
        except Exception as error:  # a user's network raises anything
            return error
        return None

    def problem(self, groups: Sequence[Group]) -> str | None:
        """Say what goes wrong when all of ``groups`` are cut; None: nothing does."""
        self._watch.look()
        for draw, modes in enumerate((self._modes, self._modes[:1])):
            try:
                layout = self._layout_of(groups)
                found = self._try(layout, _scattered_plan(layout, draw), modes)
            except Exception as error:  # torch and a user's network raise anything
                return f"without some of its filters the network fails ({_one_line(error)})"
            if found:
                return found
        return None

    def _try(self, layout: Layout, plan: PruningPlan, modes: Sequence[bool]) -> str | None:
        small, full = self._pair(layout, plan, torch.float32)
        for training in modes:
            difference = _differ(self._run(full, training), self._run(small, training))
            if CLEAR < difference < WRONG:
                difference = self._precisely(layout, plan, training, difference)
            if difference <= CLEAR or (training and not self._repeats()):
                continue
            return (
                "the network without some of its filters computes something else than with "
                f"nobody reading them (difference {difference:.1g} of the outputs' spread)"
            )
        counted = count_cost(small, layout.input_shape)
        predicted = (layout.cost_of("macs", plan.kept), layout.cost_of("params", plan.kept))
        if tuple(counted) != predicted:
            return f"it costs {tuple(counted)} without some of its filters, not {predicted}"
        return None

    def _precisely(
        self, layout: Layout, plan: PruningPlan, training: bool, difference: float
    ) -> float:
        """Return the difference in double precision, where the network can be run in that."""
        try:
            small, full = self._pair(layout, plan, torch.float64)
            return _differ(self._run(full, training), self._run(small, training))
        except Exception:  # a network that casts what it is given
            return difference

    def _repeats(self) -> bool:
        """Say whether the dense network trains alike twice."""
        twin = self._twin(torch.float32)
        return _differ(self._run(twin, True), self._run(twin, True)) <= CLEAR

    def _twin(self, dtype: torch.dtype) -> nn.Module:
        if dtype not in self._twins:
            self._twins[dtype] = _revealing(self._dense, dtype)
        return self._twins[dtype]

    def _pair(
        self, layout: Layout, plan: PruningPlan, dtype: torch.dtype
    ) -> tuple[nn.Module, nn.Module]:
        small = copy.deepcopy(self._twin(dtype))
        shrink(small, plan, layout)
        return small, masked(self._twin(dtype), plan, layout)

    def _run(self, network: nn.Module, training: bool) -> list[Tensor]:
        first = next(network.parameters())
        with evaluation_mode(network), _seeded(), _NoDropout(), torch.no_grad():
            images = torch.randn(IMAGES, self._shape[0], *self._edges).to(first)
            before = copy.deepcopy(network.state_dict()) if training else {}
            network.train(training)
            output = uncompiled(network)(images)
            if training:  # batch norms have moved
                network.load_state_dict(before)
        found = [*output_tensors(output)]
        if not found:
            raise LayoutError(f"it gives {type(output).__name__}, in which there is no tensor")
        return found


def prove(proof: Proof, groups: Sequence[Group]) -> tuple[list[Group], dict[str, str]]:
    """Return the groups that can be cut, all of them together, and why the others cannot.

    All are tried at once, then halves of those that fail, down to single groups.
    """
    left: dict[str, str] = {}

    def sound(some: Sequence[Group]) -> list[Group]:
        if not some:
            return []
        problem = proof.problem(some)
        if problem is None:
            return list(some)
        if len(some) == 1:
            left[some[0].name] = problem
            return []
        middle = len(some) // 2
        return joined(sound(some[:middle]), sound(some[middle:]))

    def joined(one: list[Group], other: list[Group]) -> list[Group]:
        if not one or not other or proof.problem([*one, *other]) is None:
            return [*one, *other]
        for group in other:
            problem = proof.problem([*one, group])
            if problem is None:
                one = [*one, group]
            else:
                left[group.name] = f"together with other groups, {problem}"
        return one

    return sound(list(groups)), left


def _scattered_plan(layout: Layout, draw: int) -> PruningPlan:
    generator = torch.Generator().manual_seed(draw)
    kept = {}
    for group in layout.groups:
        order = torch.randperm(group.width, generator=generator).tolist()
        kept[group.name] = tuple(sorted(order[: max(1, (group.width * (1 + draw)) // 3)]))
    return PruningPlan(policy=layout.policy.kind, widths=layout.widths, kept=kept)


@torch.no_grad()
def _revealing(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy a network and give it weights of a trained one's kind wherever it has none."""
    twin = copy.deepcopy(network).to(dtype)
    for module in twin.modules():
        module.zero_grad(set_to_none=True)
    with _seeded():
        for module in twin.modules():
            for name, value in module.named_buffers(recurse=False):
                if name == "running_mean":
                    value.copy_(torch.randn(value.shape) * 0.1)
                elif name == "running_var":
                    value.copy_(torch.rand(value.shape) + 0.5)
            for value in module.parameters(recurse=False):
                if value.is_floating_point() and value.numel() and value.min() == value.max():
                    value.add_(torch.rand(value.shape).to(value) * 0.5 + 0.25)
    return twin


def _differ(expected: list[Tensor], found: list[Tensor]) -> float:
    """Return the largest difference relative to the spread; infinity where shapes differ."""
    if [t.shape for t in expected] != [t.shape for t in found]:
        return float("inf")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.numel():
            spread = float((one.max() - one.min()).double())
            gap = float((one - other).abs().max().double())
            worst = max(worst, gap / spread if spread > 0 else (0.0 if gap == 0 else float("inf")))
            if gap != gap:
                return float("inf")
    return worst


@contextmanager
def _seeded() -> Iterator[None]:
    """Draw the same numbers each time, and leave the process's own generator where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}"
